"""The first lines of a run, and what of one arm is printed."""

import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from support import ROOT, tiny

from memejax import metrics, scoring
from memejax.config import load_config
from memejax.report import tables
from memejax.stages import STAGES, finetune
from memejax.stages.parts.training import devices
from memejax.train import announcement


def load(name):
    return load_config(str(ROOT / f"configs/{name}"))


def test_the_first_line_names_the_experiment_and_the_real_run():
    line = announcement.experiment(load("cass_mm.py:demo"))
    assert line.startswith("cass_mm, preset demo: small models on built-in memes; ")
    assert "--config=configs/cass_mm.py:full --config.data.root=FOLDER" in line
    own = tiny(**{"data.root": "/data/mine"})
    assert "on the memes of /data/mine;" in announcement.experiment(own)
    full = announcement.experiment(load("cass_mm.py:full"))
    assert full == "cass_mm, preset full"


def test_devices_are_counted_by_kind(monkeypatch):
    monkeypatch.setattr(announcement.os, "cpu_count", lambda: 2)
    line = announcement.machine(devices(tiny(**{"parallel.devices": 3})))
    assert line == f"on 3 CPU devices, 2 cores, jax {jax.__version__}"
    cards = [types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")] * 2
    mesh = types.SimpleNamespace(devices=np.array(cards))
    assert announcement.machine(mesh).startswith("on 2 x NVIDIA H200, 2 cores")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cass_mm", "supervised", "curriculum"])
def test_a_duration_is_of_what_was_measured(name):
    config = load(f"{name}.py:demo")
    minutes = announcement.MINUTES[name, "demo"]
    known = f"about {minutes} minute{'s' * (minutes > 1)} (measured on 2 CPU cores)"
    with config.unlocked():
        # Neither what a seed is nor where it runs changes its work.
        config.seed, config.log.every = 7, 3
        assert announcement.duration(config) == known
        config.seeds += 1
        assert announcement.duration(config) == ""


def test_no_duration_of_other_work():
    config = load("cass_mm.py:demo")
    config.pretrain.steps = 60
    assert announcement.duration(config) == ""
    assert announcement.duration(load("cass_mm.py:demo,then=probe")) == ""
    assert announcement.duration(load("cass_mm.py:full")) == ""
    # A config of somebody's own.
    assert announcement.duration(ConfigDict({"name": "x", "preset": "demo"})) == ""


def memes(n):
    return types.SimpleNamespace(
        splits={"train": types.SimpleNamespace(ids=range(n), labels=range(n))}
    )


def test_the_plan_counts_updates_of_steps_and_epochs():
    config = tiny(**{"finetune.steps": None, "finetune.epochs": 1.5})
    assert announcement.plan(config, memes(64)) == (
        "plan: pretrain 12 updates, finetune 6 updates, evaluate"
    )
    config = tiny(seeds=2, stages=("finetune", "evaluate"))
    assert announcement.plan(config, memes(64)) == (
        "plan for each of 2 seeds: finetune 12 updates, evaluate"
    )


def test_the_plan_counts_a_baseline():
    config = tiny("curriculum=bac")
    assert "baseline 12 updates, finetune 12 updates" in (
        announcement.plan(config, memes(64))
    )
    classify = load("curriculum.py:demo")
    steps = classify.train.steps
    assert announcement.plan(classify, None) == (
        f"plan: train {steps:,} updates, of {classify.seeds} seeds at once"
    )
    classify.curriculum.kind = "bac"
    assert f"baseline {steps:,} updates, train {steps:,}" in (
        announcement.plan(classify, None)
    )
    classify.baseline = "somewhere"
    assert "baseline" not in announcement.plan(classify, None)


def test_every_stage_that_trains_plans_its_updates():
    for name, kind in STAGES.items():
        assert bool(kind.learned) == (kind.updates is not None), name


@pytest.mark.parametrize("arms", [("gcn",), ("cnn", "vit")])
def test_one_arm_is_printed_once(arms, monkeypatch):
    rng = np.random.default_rng(0)
    proba = {arm: rng.random(20) for arm in arms}
    proba["average"] = np.mean(list(proba.values()), axis=0)
    labels = np.arange(20) % 2
    monkeypatch.setattr(scoring, "probabilities", lambda *_: proba)
    dev = types.SimpleNamespace(name="dev", labels=labels)
    data = types.SimpleNamespace(dev="dev", splits={"dev": dev})
    stage = types.SimpleNamespace(predict=None, scoring=lambda _: None)
    state = types.SimpleNamespace(weights=dict)
    found = finetune.on_dev(data, stage).measure(state)  # type: ignore[arg-type]
    # Written for all: predict, reproduce and figures read it.
    assert set(found.values) == {f"auroc/{arm}" for arm in (*arms, "average")}
    assert found.rating == found.values["auroc/average"]
    shown = arms if len(arms) == 1 else (*arms, "average")
    assert found.printed == tuple(f"auroc/{arm}" for arm in shown)

    reports = metrics.reports_by_arm(
        proba, labels, thresholds=dict.fromkeys(proba, 0.5), seed=0
    )
    seeds = {"0": {"evaluate": {"splits": {"test": reports}}}}
    figures = ("auroc", "accuracy", "threshold_accuracy", "f1")
    results = {
        "dev": "dev",
        "preset": "demo",
        "data": {},
        "seeds": seeds,
        "summary": {
            "test": {
                arm: {f: {"mean": row[f], "std": None} for f in figures}
                for arm, row in reports.items()
            }
        },
    }
    table = tables.splits(results)["test"]
    assert [row[0] for row in table.rows] == [*shown, "constant"]
    subject = "The arm gcn" if len(arms) == 1 else "The average of the arms"
    assert tables.sentence(results).startswith(f"{subject} reaches an AUROC of ")
