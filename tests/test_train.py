"""The whole job on tiny models: stages, files, errors."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from support import tiny

from memejax import build, dataset, evaluate, folder, logs, loop, metrics, train
from memejax.checkpoint import Checkpoints


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


@pytest.mark.parametrize(
    ("modalities", "first"), [("image", ("pretrain",)), ("text", ())]
)
def test_controls_run(tmp_path, modalities, first):
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
