"""The whole job on tiny models: stages, resuming, signals, errors."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from support import ROOT, tiny

from memejax import build, dataset, evaluate, folder, logs, loop, metrics, train
from memejax.checkpoint import Checkpoints


def lines_without_clock(path):
    return [
        {k: v for k, v in line.items() if k != "clock"}
        for line in logs.read_metrics(path)
    ]


def last_state(where, config, seed=0):
    """The raw arrays of the last checkpoint of a fine-tuning stage."""
    data = dataset.load(config, where)
    stage = build.finetune(config, data, seed=seed, mesh=build.mesh(config))
    with Checkpoints(where / str(seed) / "finetune/checkpoints", keep=2) as saves:
        state = saves.restore(stage.state, step=saves.latest).state
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed."""
    where = tmp_path_factory.mktemp("whole")
    return where, train.run(tiny(), where)


def test_results_and_files(finished):
    where, results = finished
    assert json.loads((where / "results.json").read_text()) == results
    scored = results["seeds"]["0"]["evaluate"]["splits"]
    assert set(scored) == {"dev_seen", "test_unseen"}
    assert set(scored["test_unseen"]) == {"cnn", "vit", "average", "constant"}
    assert scored["test_unseen"]["constant"]["auroc"] == 0.5
    ids, proba, _ = metrics.read_predictions(
        where / "0/evaluate/predictions/test_unseen.csv"
    )
    assert len(ids) == 16
    # The figures are those of the predictions on disk and the labels on disk.
    rows = map(json.loads, (where / "memes/test_unseen.jsonl").read_text().splitlines())
    labels = {str(row["id"]): row["label"] for row in rows}
    np.testing.assert_allclose(
        metrics.auroc(proba, [labels[i] for i in ids]),
        scored["test_unseen"]["average"]["auroc"],
    )
    arms = [
        metrics.read_predictions(
            where / f"0/evaluate/predictions/test_unseen.{arm}.csv"
        )[1]
        for arm in ("cnn", "vit")
    ]
    np.testing.assert_allclose(proba, np.mean(arms, axis=0))
    assert results["peak_memory_gb"] > 0.1 and results["preset"] == "demo"
    for name in ("config.json", "environment.json", "report.html", "tokenizer"):
        assert (where / name).exists(), name
    assert list((where / "0/pretrain").glob("events.*"))


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
    where, _ = finished
    lines = logs.read_metrics(where / "0/finetune/metrics.jsonl")
    train_lines = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train_lines] == [5, 10, 12]
    assert {"lr/cnn", "lr/vit", "loss", "bce/cnn", "grad_norm"} <= set(train_lines[0])
    assert train_lines[0]["clock"]["steps_per_second"] > 0
    dev = [line for line in lines if line["split"] == "dev_seen"]
    assert [line["step"] for line in dev] == [4, 8, 12]


def test_any_checkpoint_can_be_evaluated(finished, tmp_path):
    where = tmp_path / "copy"
    shutil.copytree(finished[0], where)
    # What has no checkpoint any more is passed over.
    shutil.rmtree(where / "0/pretrain/checkpoints")
    results = evaluate.run(where)
    assert "probe-pretrain" not in results["seeds"]["0"]
    probe = results["seeds"]["0"]["probe-finetune"]
    assert probe["split"] == "test_unseen" and probe["classes"] == 2
    assert set(probe["figures"]) == {"finetune", "untrained", "pixels"}
    assert 0 <= probe["figures"]["finetune"]["vit"]["knn"]["auroc"] <= 1
    assert (where / "0/probe-finetune/attention.png").exists()
    assert any((where / "0/probe-finetune").glob("events.out.tfevents.*"))
    assert json.loads((where / "results.json").read_text()) == results
    # The figures of the run itself stay as they were.
    assert results["summary"] == finished[1]["summary"]
    with pytest.raises(ValueError, match="holds no finished run"):
        evaluate.run(tmp_path)


def test_a_finished_run_prints_its_results(finished, capsys):
    where, results = finished
    capsys.readouterr()
    assert train.run(tiny(), where) == json.loads(json.dumps(results))
    assert "finished" in capsys.readouterr().out


def test_another_config_on_the_folder_is_an_error(finished):
    where, _ = finished
    with pytest.raises(folder.OtherRunError, match=r"pretrain\.batch: 16 there, 32"):
        train.run(tiny(**{"pretrain.batch": 32}), where)
    # What does not change the result may differ.
    train.run(tiny(**{"log.every": 7, "pipeline.threads": 1}), where)


PROGRAM = """
import json, sys
sys.path.insert(0, {tests!r})
import conftest  # fake devices
from support import tiny
from memejax import train
train.run(tiny(**json.loads(sys.argv[2])), sys.argv[1])
"""


def start(where, **changes):
    program = PROGRAM.format(tests=str(ROOT / "tests"))
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(where), json.dumps(changes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def kill_when(process, reached, number=signal.SIGKILL):
    """Sends a signal as soon as `reached()` is true; the process must still live."""
    deadline = time.monotonic() + 900
    while not reached():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not come that far"
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate()[0]


def has_line(path, step):
    """Whether the run's metrics have come to a step."""

    def reached():
        if not path.exists():
            return False
        done = path.read_text().splitlines()
        return any(
            json.loads(line)["step"] >= step for line in done if line.endswith("}")
        )

    return reached


def test_killed_three_times_and_resumed_is_the_run_never_killed(finished, tmp_path):
    """SIGKILL at three random steps: bitwise the same parameters and metrics."""
    whole, results = finished
    where = tmp_path / "killed"
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    moments = [("pretrain", s) for s in (3, 6, 9, 12)]
    moments += [("finetune", s) for s in (3, 4, 6, 8, 9)]
    chosen = sorted(rng.choice(len(moments), 3, replace=False))
    print("killed at", [moments[i] for i in chosen])
    for stage, step in (moments[i] for i in chosen):
        saved = where / "0" / stage / "checkpoints" / str(step)
        kill_when(start(where), saved.exists)
        assert not (where / "results.json").exists()
    process = start(where)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert "resumes after step" in output
    for stage in ("pretrain", "finetune"):
        name = f"0/{stage}/metrics.jsonl"
        assert lines_without_clock(where / name) == lines_without_clock(whole / name)
    states = [last_state(w, tiny()) for w in (whole, where)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    again = json.loads((where / "results.json").read_text())
    assert again["summary"] == json.loads(json.dumps(results))["summary"]


def test_sigterm_saves_and_says_so(finished, tmp_path):
    whole, _ = finished
    where = tmp_path / "stopped"
    process = start(where, **{"checkpoint.every": 1000})
    line = has_line(where / "0/pretrain/metrics.jsonl", 5)
    output = kill_when(process, line, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "SIGTERM received, saved after step" in output
    assert train.run(tiny(), where)["seeds"]["0"]["pretrain"]["steps"] == 12
    name = "0/pretrain/metrics.jsonl"
    assert lines_without_clock(where / name) == lines_without_clock(whole / name)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = tiny(**{"pretrain.optimizer.groups.cnn.lr": 1e30, "checkpoint.every": 1})
    with pytest.raises(loop.NonFiniteLossError, match=r"the loss is nan at step \d+"):
        train.run(config, tmp_path)
    data = dataset.load(config, tmp_path)
    stage = build.pretrain(config, data, seed=0, mesh=build.mesh(config))
    with Checkpoints(tmp_path / "0/pretrain/checkpoints", keep=2) as saves:
        assert saves.latest is not None
        latest = saves.latest
        state = saves.restore(stage.state, step=latest).state
    assert int(state.step) == latest >= 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_early_stop_and_best_checkpoint(tmp_path):
    config = tiny(
        **{
            "stages": ("finetune", "evaluate"),
            # Frozen: no evaluation after the first can be better.
            "finetune.optimizer.groups.cnn.lr": 0.0,
            "finetune.optimizer.groups.vit.lr": 0.0,
            "model.image.cnn.stem": "patch4",
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


@pytest.mark.parametrize("modalities", ["image", "text"])
def test_controls_run(tmp_path, modalities):
    config = tiny(
        **{"model.arm.modalities": modalities, "pretrain.steps": 2, "finetune.steps": 2}
    )
    results = train.run(config, tmp_path)
    # Every picture and every caption stands once with each label.
    assert results["summary"]["test_unseen"]["average"]["auroc"]["mean"] == 0.5


def test_unknown_choices_name_the_options(tmp_path):
    for change, message in [
        (
            {"model.image.cnn.name": "vgg"},
            "unknown model.image.cnn.name 'vgg'.*resnet50",
        ),
        ({"model.dtype": "float8"}, "'float8': choose one of .*bfloat16"),
        ({"data.dev": "dev"}, "data.dev=dev"),
        ({"pretrain.epochs": 2.0}, "one of steps and epochs"),
        ({"stages": ("evaluate", "pretrain")}, "in this order"),
    ]:
        with pytest.raises(ValueError, match=message):
            train.run(tiny(**change), tmp_path / str(abs(hash(message))))
