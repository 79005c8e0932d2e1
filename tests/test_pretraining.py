"""Pretraining stages from configs: every method runs, and bad input is told at once."""

import itertools

import jax
import numpy as np
import pytest
from support import ROOT, shrunk
from weights_support import save

from memejax import datasets, losses, train
from memejax.config import load_config
from memejax.stages import finetune, pretrain, probe
from memejax.stages.parts.training import devices

PICTURES = {
    "data.name": "pictures",
    "data.synthetic.train": 64,
    "data.synthetic.test": 32,
    "probe.k": 5,
}
SMALL = {
    "cass": {"pretrain.head.out": 16},
    "dino": {
        # DINO trains each arm by itself: one says as much as two, in half the time.
        "arms": ("vit",),
        "pretrain.head.out": 16,
        "pretrain.head.hidden": 16,
        "pretrain.head.bottleneck": 8,
        "pretrain.augment.global_size": 24,
        "pretrain.augment.local_size": 16,
        "pretrain.augment.local_crops": 2,
    },
}


def small(name, text="then=probe", **changes):
    """A config's demo, but for its sizes, on pictures."""
    config = load_config(str(ROOT / f"configs/{name}.py:{text}"))
    return shrunk(
        config, **(PICTURES if "probe" in config else {}) | SMALL[name] | changes
    )


@pytest.mark.parametrize("name", ["cass", "dino"])
def test_pretraining_and_probe(tmp_path, name):
    results = train.run(small(name), tmp_path)
    outcome = results["seeds"]["0"]["pretrain"]
    assert outcome["steps"] == 12
    assert set(results["seeds"]["0"]) == {"pretrain", "probe-pretrain"}
    probe = results["seeds"]["0"]["probe-pretrain"]
    assert probe["classes"] == 4 and probe["examples"] == {"train": 64, "test": 32}
    assert set(probe["figures"]) == {"pretrain", "untrained", "pixels"}
    arms = {"cnn", "vit"} if name == "cass" else {"vit"}
    for row in ("pretrain", "untrained"):
        assert set(probe["figures"][row]) == arms
    for picture in probe["pictures"]:
        assert (tmp_path / f"0/probe-pretrain/{picture}.png").stat().st_size > 1000
    assert any((tmp_path / "0/probe-pretrain").glob("events.out.tfevents.*"))
    # The verdict is that of the last panel.
    assert set(outcome["panel"]) >= {f"{arm}/effective_rank" for arm in arms}
    if name == "dino":
        assert outcome["panel"]["vit/log_k"] == pytest.approx(np.log(16))


def test_an_embedding_is_an_example_s_own(tmp_path):
    """Whatever its batch: a part of a split gives those rows of the whole."""
    config = small("cass")
    data = datasets.load(config, tmp_path)
    mesh = devices(config)
    stage = pretrain.make(config, data, seed=0, mesh=mesh)
    split, weights = data.splits["test"], stage.init().weights()
    whole = probe.embed(stage.embed, weights, stage.scoring(split))
    rows = np.array([1, 5, 30])
    part = probe.embed(stage.embed, weights, stage.scoring(split.take(rows)))
    assert len(whole["vit"]) == 32
    for arm in ("cnn", "vit"):
        np.testing.assert_allclose(part[arm], whole[arm][rows], rtol=1e-5, atol=1e-6)


def test_what_is_fine_tuned_of_dino_is_the_teacher(tmp_path):
    config = small(
        "dino",
        "then=finetune",
        **{
            "data.name": "memes",
            "stages": ("pretrain", "finetune"),
            "pretrain.teacher.momentum": 0.5,
            "finetune.steps": 4,
        },
    )
    data = datasets.load(config, tmp_path)
    mesh = devices(config)
    stage = pretrain.make(config, data, seed=0, mesh=mesh)
    state = stage.init()
    for _, batch in itertools.islice(stage.feeder.chunks(0), 3):
        state, _ = stage.run_chunk(state, batch)
    start = jax.device_get(state.weights())
    fine = finetune.make(config, data, seed=0, mesh=mesh)
    begun = fine.init(state.weights).params
    taken = begun["arms_vit"]["image_encoder"]["patch"]["kernel"]
    teacher = start["params"]["arms_vit"]["image_encoder"]["patch"]["kernel"]
    student = state.params["arms_vit"]["image_encoder"]["patch"]["kernel"]
    np.testing.assert_array_equal(taken, teacher)
    assert np.any(np.asarray(student) != teacher)


def test_published_cass_has_a_name_for_its_collapse(tmp_path):
    """The verdict names the arm and the figure."""
    config = small("cass")
    data = datasets.load(config, tmp_path)
    stage = pretrain.make(config, data, seed=0, mesh=devices(config))
    panel = losses.collapse_panel(np.ones((8, 4), np.float32))
    collapsed, why = stage.is_collapsed({k: float(v) for k, v in panel.items()})
    assert collapsed and "std 0.000" in why


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cass", {"pretrain.method": "simclr"}, r"unknown pretrain.method 'simclr'.*"),
        ("cass", {"pretrain.augmentation": "auto"}, "unknown pretrain.augmentation"),
        ("cass", {"model.image.vit.name": "vitt"}, "unknown model.image.vit.name"),
        ("cass", {"arms": ("cnn",)}, r"CASS compares two arms, got arms=\('cnn',\)"),
        ("cass", {"arms": ("rnn",)}, "unknown arm 'rnn': choose one of .*cnn.*vit"),
        ("cass", {"data.image_size": 20}, "do not divide into patches of 8"),
        ("cass", {"pretrain.optimizer.rule": "adagrad"}, "adagrad"),
        ("dino", {"pretrain.augment.local_size": 32}, "local_size is 32, and crops"),
        ("dino", {"pretrain.augment.global_size": 0}, "global_size is 0"),
        ("dino", {"pretrain.head.out": 1}, "prototypes: at least 2, got 1"),
        ("dino", {"pretrain.student_temperature": 0.0}, "student_temperature must be"),
        ("dino", {"pretrain.teacher.temperature": -1.0}, "teacher.temperature must be"),
        ("dino", {"pretrain.teacher.momentum": 1.5}, r"momentum must be in \[0, 1\]"),
        ("dino", {"pretrain.center_momentum": -0.1}, "center_momentum must be in"),
    ],
)
def test_bad_numbers_are_told_before_compilation(tmp_path, name, changes, message):
    config = small(name, **changes)
    data = datasets.load(config, tmp_path)
    with pytest.raises(ValueError, match=message):
        pretrain.make(config, data, seed=0, mesh=devices(config))


def test_a_checkpoint_of_another_architecture(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    save(tmp_path / "checkpoint", "resnet")
    config = small("cass")
    config.weights.image_vit = str(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"is a resnet .*expected vit"):
        train.run(config, tmp_path / "run")


def test_an_unknown_average_is_told(tmp_path):
    config = small("cass", "average=ema", **{"pretrain.average.kind": "mean"})
    data = datasets.load(config, tmp_path)
    with pytest.raises(ValueError, match="averaging must be 'ema' or 'swa'"):
        pretrain.make(config, data, seed=0, mesh=devices(config))


def test_pictures_cannot_be_fine_tuned(tmp_path):
    config = small("cass", "then=finetune", **{"data.name": "pictures"})
    data = datasets.load(config, tmp_path)
    with pytest.raises(ValueError, match="fine-tuning is of memes"):
        finetune.make(config, data, seed=0, mesh=devices(config))


def test_one_arm_alone_can_be_fine_tuned(tmp_path):
    config = load_config(str(ROOT / "configs/supervised.py"))
    config = shrunk(config, **{"finetune.steps": 4, "arms": ("cnn",)})
    results = train.run(config, tmp_path)
    assert set(results["summary"]["test_unseen"]) == {"cnn", "average", "constant"}
