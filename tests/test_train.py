"""The whole job on tiny models: stages, files, errors."""

import dataclasses
import gc
import json
import math
import pathlib
import shutil
import time
import types
import weakref

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from support import tiny

from memejax import (
    datasets,
    errors,
    evaluate,
    folder,
    lock,
    logs,
    loop,
    metrics,
    parallel,
    restored,
    train,
)
from memejax.checkpoint import Checkpoints, DamagedCheckpointError
from memejax.predict.predictor import load_predictor
from memejax.signals import Interrupted, Signals
from memejax.stage import Stage
from memejax.stages import context, finetune, pretrain
from memejax.stages.parts import training
from memejax.stages.parts.training import devices
from memejax.train import results as of_run
from memejax.train.run import run_seed
from memejax.train.starts import Starts


def test_results_and_files(finished):
    path, results = finished
    assert json.loads((path / "results.json").read_text()) == results
    scored = results["seeds"]["0"]["evaluate"]["splits"]
    assert set(scored) == {"dev_seen", "test_unseen"}
    assert set(scored["test_unseen"]) == {"cnn", "vit", "average", "constant"}
    assert scored["test_unseen"]["constant"]["auroc"] == 0.5
    ids, proba, _ = metrics.read_predictions(
        path / "0/evaluate/predictions/test_unseen.csv"
    )
    assert len(ids) == 16
    # The figures are those of the predictions on disk and the labels on disk.
    rows = map(json.loads, (path / "memes/test_unseen.jsonl").read_text().splitlines())
    labels = {str(row["id"]): row["label"] for row in rows}
    np.testing.assert_allclose(
        metrics.auroc(proba, [labels[i] for i in ids]),
        scored["test_unseen"]["average"]["auroc"],
    )


def test_each_arm_is_scored_by_its_own_best_checkpoint(finished):
    path, results = finished
    outcome = results["seeds"]["0"]["evaluate"]
    lines = [
        line
        for line in logs.read_metrics(path / "0/finetune/metrics.jsonl")
        if line["split"] == "dev_seen"
    ]
    assert len(lines) == 3
    for arm in ("cnn", "vit", "average"):
        scores = {line["step"]: line[f"auroc/{arm}"] for line in lines}
        # Ties go to the first.
        best = max(scores, key=lambda step: (scores[step], -step))
        assert outcome["checkpoints"][arm] == best
        dev = outcome["splits"]["dev_seen"][arm]["auroc"]
        assert dev == pytest.approx(scores[best])
        # As one arm is read again.
        predictor = load_predictor(path, arm=arm)
        ids, proba, _ = metrics.read_predictions(
            path / "0/evaluate/predictions/test_unseen"
            f"{'' if arm == 'average' else '.' + arm}.csv"
        )
        rows = map(
            json.loads, (path / "memes/test_unseen.jsonl").read_text().splitlines()
        )
        of_id = {str(row["id"]): row for row in rows}
        pictures = [str(path / "memes" / of_id[i]["img"]) for i in ids]
        decoded, errors = predictor.read(pictures)
        assert not errors
        again = predictor.predict(decoded, [of_id[i]["text"] for i in ids])
        np.testing.assert_allclose(again, proba, atol=1e-5)
    assert outcome["checkpoint"] == outcome["checkpoints"]["average"]
    assert len(set(outcome["checkpoints"].values())) > 1
    assert results["peak_memory_gb"] > 0.1 and results["preset"] == "demo"
    for name in ("config.json", "environment.json", "report.html", "tokenizer"):
        assert (path / name).exists(), name
    assert list((path / "0/pretrain").glob("events.*"))


def test_the_panel_is_kept(finished):
    _, results = finished
    outcome = results["seeds"]["0"]["pretrain"]
    assert outcome["collapsed"] in (True, False)
    assert set(outcome["panel"]) == {
        f"{arm}/{figure}"
        for arm in ("cnn", "vit")
        for figure in ("std", "mean_cosine", "effective_rank")
    }


def test_metrics_lines(finished):
    path, _ = finished
    lines = logs.read_metrics(path / "0/finetune/metrics.jsonl")
    train_lines = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train_lines] == [5, 10, 12]
    assert {"lr/cnn", "lr/vit", "loss", "bce/cnn", "grad_norm"} <= set(train_lines[0])
    assert train_lines[0]["clock"]["steps_per_second"] > 0
    dev = [line for line in lines if line["split"] == "dev_seen"]
    assert [line["step"] for line in dev] == [4, 8, 12]


def test_any_checkpoint_can_be_evaluated(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    # What has no checkpoint any more is passed over.
    shutil.rmtree(path / "0/pretrain/checkpoints")
    results = evaluate.run(path)
    assert "probe-pretrain" not in results["seeds"]["0"]
    probe = results["seeds"]["0"]["probe-finetune"]
    assert probe["split"] == "test_unseen" and probe["classes"] == 2
    assert set(probe["figures"]) == {"finetune", "untrained", "pixels"}
    assert 0 <= probe["figures"]["finetune"]["vit"]["knn"]["auroc"] <= 1
    assert (path / "0/probe-finetune/attention.png").exists()
    assert any((path / "0/probe-finetune").glob("events.out.tfevents.*"))
    assert json.loads((path / "results.json").read_text()) == results
    # The figures of the run itself stay as they were.
    assert results["summary"] == finished[1]["summary"]
    with pytest.raises(ValueError, match="holds no finished run"):
        evaluate.run(tmp_path)


def test_a_finished_run_prints_its_results(finished, capsys):
    path, results = finished
    capsys.readouterr()
    assert train.run(tiny(), path) == json.loads(json.dumps(results))
    assert "finished" in capsys.readouterr().out


def test_another_config_on_the_folder_is_an_error(finished):
    path, _ = finished
    with pytest.raises(folder.OtherRunError, match=r"pretrain\.batch: 16 there, 32"):
        train.run(tiny(**{"pretrain.batch": 32}), path)
    # What does not change the result may differ.
    train.run(tiny(**{"log.every": 7, "pipeline.threads": 1}), path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = tiny(**{"pretrain.optimizer.groups.cnn.lr": 1e30, "checkpoint.every": 1})
    with pytest.raises(loop.NonFiniteLossError, match=r"the loss is nan at step \d+"):
        train.run(config, tmp_path)
    data = datasets.load(config, tmp_path)
    stage = pretrain.make(config, data, seed=0, mesh=devices(config))
    with Checkpoints(tmp_path / "0/pretrain/checkpoints", keep=2) as saves:
        assert saves.latest is not None
        latest = saves.latest
        state = saves.restore(stage.abstract, step=latest).state
    assert int(state.step) == latest >= 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_scores_that_are_not_finite_stop_the_run(tmp_path):
    """The loss of the update that diverged was still finite."""
    config = tiny(
        **{
            "stages": ("finetune", "evaluate"),
            "finetune.optimizer.groups.cnn.lr": 1e30,
            "finetune.optimizer.warmup": 0,
            "finetune.steps": 1,
            "finetune.eval_every": 1,
        }
    )
    with pytest.raises(errors.NotFiniteError, match="16 of 16 memes a score that is"):
        train.run(config, tmp_path)


def test_early_stop_and_best_checkpoint(tmp_path):
    config = tiny(
        **{
            "stages": ("finetune", "evaluate"),
            # Frozen: no evaluation after the first can be better.
            "finetune.optimizer.groups.cnn.lr": 0.0,
            "finetune.optimizer.groups.vit.lr": 0.0,
            "finetune.eval_every": 2,
            "finetune.patience": 2,
        }
    )
    results = train.run(config, tmp_path)["seeds"]["0"]
    assert "pretrain" not in results
    # BatchNorm's running statistics still move, so the first may not be the best.
    outcome = results["finetune"]
    assert outcome["steps"] <= 12 and outcome["steps"] % 2 == 0
    assert outcome["steps"] - outcome["best_step"] in (0, 2, 4)
    assert results["evaluate"]["checkpoint"] == outcome["best_step"]
    assert (
        results["evaluate"]["splits"]["dev_seen"]["average"]["auroc"] == outcome["best"]
    )


def test_two_seeds_and_their_summary(tmp_path):
    results = train.run(
        tiny(seeds=2, stages=("finetune", "evaluate"), **{"finetune.steps": 4}),
        tmp_path,
    )
    rows = [
        results["seeds"][s]["evaluate"]["splits"]["test_unseen"]["average"]["auroc"]
        for s in ("0", "1")
    ]
    summary = results["summary"]["test_unseen"]["average"]["auroc"]
    np.testing.assert_allclose(summary["mean"], np.mean(rows))
    np.testing.assert_allclose(summary["std"], abs(rows[0] - rows[1]) / math.sqrt(2))
    assert rows[0] != rows[1]


@pytest.fixture
def left(monkeypatch):
    """How many arrays of pretraining's last state live when fine-tuning has its own."""
    counts, refs = [], []

    def watched(stage, options, path, *rest):
        def init():
            state = first()
            if refs:
                gc.collect()
                counts.append(sum(ref() is not None for ref in refs))
            return state

        first = stage.init
        if path.name == "finetune":
            stage = dataclasses.replace(stage, init=init)
        state, outcome = loop.loop(stage, options, path, *rest)
        if path.name == "pretrain":
            refs.extend(map(weakref.ref, jax.tree.leaves(state)))
        return state, outcome

    monkeypatch.setattr(context, "loop", watched)
    return counts


@pytest.mark.parametrize(
    ("modalities", "first"), [("image", ("pretrain",)), ("text", ())]
)
def test_controls_run(tmp_path, modalities, first, left):
    config = tiny(
        stages=(*first, "finetune", "evaluate"),
        **{
            "model.arm.modalities": modalities,
            "pretrain.steps": 2,
            "finetune.steps": 2,
        },
    )
    results = train.run(config, tmp_path)
    # Every picture and every caption stands once with each label.
    assert results["summary"]["test_unseen"]["average"]["auroc"]["mean"] == 0.5
    # Nothing of one stage takes memory in the next.
    assert left == [0] * len(first)


def test_unknown_choices_name_the_options(tmp_path):
    for change, message in [
        (
            {"model.image.cnn.name": "vgg"},
            "model.image.cnn.name: got 'vgg'.*resnet50",
        ),
        ({"model.dtype": "float8"}, "'float8', expected one of bfloat16"),
        ({"data.dev": "dev"}, "data.dev=dev"),
        ({"pretrain.epochs": 2.0}, "one of steps and epochs"),
    ]:
        with pytest.raises(ValueError, match=message):
            train.run(tiny(**change), tmp_path / str(abs(hash(message))))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((), "expected some of"),
        (("pretrain", "train"), "expected some of .*'pretrain', 'probe'"),
        (("evaluate", "pretrain"), "evaluate may come after finetune or after graph"),
        (("finetune", "probe"), "probe may come after pretrain$"),
        (("probe", "finetune"), "probe may come after pretrain$"),
        (("finetune", "graph"), "graph may come first$"),
        (("classify", "evaluate"), "evaluate may come after finetune"),
        (("pretrain", "pretrain"), "pretrain may come first$"),
    ],
)
def test_wrong_stages_leave_the_folder_free(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        train.run(tiny(stages=wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("alone", [("classify",), ("graph", "evaluate")])
def test_stages_of_one_process_leave_the_folder_free(tmp_path, monkeypatch, alone):
    monkeypatch.setattr(parallel, "count", lambda: 2)
    with pytest.raises(parallel.ProcessError, match="one process; there are 2"):
        train.run(tiny(stages=alone), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_seconds_and_memory_are_of_all_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "peak_memory", lambda: 3.0)
    with (
        pytest.raises(Interrupted),
        Starts(tmp_path, began=time.perf_counter() - 100),
    ):
        raise Interrupted(143)
    monkeypatch.setattr(logs, "peak_memory", lambda: 1.0)
    taken = Starts(tmp_path, began=time.perf_counter() - 50).taken()
    assert 150 <= taken["seconds"] < 160 and taken["peak_memory_gb"] == 3.0


def test_seconds_are_at_least_those_of_the_stages():
    """A start that was killed has saved its checkpoints, but not its own seconds."""
    taken = {"seconds": 90.0, "peak_memory_gb": 1.0}
    of_seeds = {
        "0": {"pretrain": {"seconds": 100.0}, "evaluate": {"splits": {}}},
        "1": {"finetune": {"seconds": 80.5}},
    }
    of_seeds["0"]["evaluate"] = {"scored": 16}
    data = types.SimpleNamespace(facts={}, dev="dev_seen")
    for by_seed, together, seconds in [
        (of_seeds, False, 180.5),
        ({"0": {"train": {"errors": {}, "seconds": 95.5}}}, True, 95.5),
        ({"0": {"train": {"errors": {}, "seconds": 10.0}}}, True, 90.0),
    ]:
        given = of_run.gather(
            tiny(), data, by_seed=by_seed, together=together, taken=taken
        )
        assert given["seconds"] == seconds and given["peak_memory_gb"] == 1.0


def test_a_baseline_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def cut(file, array):
        write = getattr(file, "write", None) or pathlib.Path(file).write_bytes
        write(b"NUMPY")
        raise OSError("no space")

    def trained(stage, options, path, *rest):
        path.mkdir(parents=True, exist_ok=True)
        return types.SimpleNamespace(weights=dict), {"steps": 4}

    monkeypatch.setattr(context, "loop", trained)
    scores = lambda *_: np.arange(4.0)  # noqa: E731
    monkeypatch.setattr(finetune, "make_uncertainty", lambda *_, **__: scores)
    nothing = dict.fromkeys(f.name for f in dataclasses.fields(Stage))
    made = Stage(**nothing | {"scoring": lambda _: None, "init": dict})
    monkeypatch.setattr(finetune, "make", lambda *_, **more: made)
    section = tiny("curriculum=bac").curriculum
    config = ConfigDict({"stages": ("finetune",), "curriculum": section})
    train_split = types.SimpleNamespace(labels=np.zeros(4))
    data = types.SimpleNamespace(splits={"train": train_split})
    around = context.Context(
        config=config,
        data=data,
        mesh=devices(tiny()),
        seed=0,
        folder=tmp_path,
        signals=Signals(),
        options=loop.LoopOptions(save_every=1, keep=1, log_every=1),
    )
    with monkeypatch.context() as broken:
        broken.setattr(np, "save", cut)
        with pytest.raises(OSError, match="no space"):
            run_seed(around)
    assert not (tmp_path / "baseline/uncertainty.npy").exists()


def test_an_evaluation_that_was_cut_off_is_made_again(finished, tmp_path, monkeypatch):
    whole, results = finished
    path = tmp_path / "copy"
    shutil.copytree(whole, path)
    for name in ("results.json", "starts.json", "0/evaluate/outcome.json"):
        (path / name).unlink()

    def made(*_):
        raise AssertionError("a first state is made")

    # The best checkpoint's variables lie on the devices alone.
    monkeypatch.setattr(training, "make_init", refusing(training.make_init, made))
    again = train.run(tiny(), path)
    assert again["summary"] == results["summary"]


def refusing(make_init, init):
    """`make_init`, but for the first state."""
    return lambda *args, **more: make_init(*args, **more)._replace(init=init)


def test_a_second_start_on_a_folder_leaves_it_alone(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    (path / "results.json").unlink()
    before = sorted(p.relative_to(path) for p in path.rglob("*"))
    with lock.lock(path), pytest.raises(lock.LockedError, match="is in use by process"):
        train.run(tiny(), path)
    assert sorted(p.relative_to(path) for p in path.rglob("*")) == before


def test_a_finished_run_without_a_page_gets_one(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished[0], path)
    page = path / "report.html"
    written = page.read_text("utf-8")
    page.unlink()
    train.run(tiny(), path)
    assert len(page.read_text("utf-8")) > 0.9 * len(written)


def test_a_damaged_checkpoint_is_resumed_from_the_one_before(
    finished, tmp_path, capsys
):
    """Bitwise; and the best one damaged is an error, never another in its place."""
    whole, results = finished
    path = tmp_path / "copy"
    shutil.copytree(whole, path)
    for name in ("results.json", "starts.json", "0/evaluate/outcome.json"):
        (path / name).unlink()
    (path / "0/finetune/outcome.json").unlink()
    steps = sorted(int(p.name) for p in (path / "0/finetune/checkpoints").iterdir())
    arrays = path / f"0/finetune/checkpoints/{steps[-1]}/state/d"
    damage(max(arrays.iterdir(), key=lambda file: file.stat().st_size))
    again = train.run(tiny(), path)
    assert f"WARNING: finetune: the checkpoint of step {steps[-1]}:" in (
        capsys.readouterr().out
    )
    assert again["summary"] == results["summary"]
    best = again["seeds"]["0"]["finetune"]["best_step"]
    arrays = path / f"0/finetune/checkpoints/{best}/state/d"
    damage(max(arrays.iterdir(), key=lambda file: file.stat().st_size))
    (path / "0/evaluate/outcome.json").unlink()
    (path / "results.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=f"step {best}: .* is damaged"):
        train.run(tiny(), path)
    shutil.copy(whole / "results.json", path)
    with pytest.raises(ValueError, match=f"{best}, which gave .* was damaged"):
        restored.restore(path)


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
