"""Stages, in order, for each seed. Read this first; it is the map.

    main.py     flags -> config -> train.run(config, workdir)
    train.py    run: data, then for each seed the stages in order, then the summary
                  pretrain   CASS on images and captions; no labels
                  finetune   the labels, from the pretrained arms or from scratch
                  evaluate   the best checkpoint on every split
    loop.py     the one loop: chunks in, state on, metrics out, checkpoints, signals
    dataset.py  config -> Data (splits as columns)
    build.py    config -> Stage (state, compiled step, feeder)
    steps.py    what one update computes, of losses/ and augment.py
    feeders.py  what the loop eats, made of data/pipeline.py and data/plans.py
    parallel.py devices
    folder.py   the run's folder; logs.py what it says; report.py its page

Everything is resumable: each stage restores its last checkpoint, and a stage that
ended has an outcome.json and is not run again.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import build, dataset, evaluate, folder, logs, metrics, report
from memejax.checkpoint import Checkpoints
from memejax.loop import BEST, Evaluation, Signals, loop


def run(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs every stage for every seed, and returns what results.json holds.

    Raises:
      folder.OtherRunError: if the folder holds a run of another config.
      hateful_memes.BadRecordsError: naming every bad record of the data.
      loop.NonFiniteLossError: if a loss is not finite.
      loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
    """
    started = time.perf_counter()
    logs.say(_about_run(config))
    path = folder.claim(workdir, config.to_dict(), build.RUNTIME)
    done = folder.read_json(path / "results.json")
    if done is not None:
        logs.say(f"This run is finished; its results, from {path}:")
        report.console(done)
        return done
    mesh = build.mesh(config)
    data = dataset.load(config, path)
    logs.say(_about_data(data))
    by_seed = {}
    with Signals() as signals:
        for seed in range(config.seed, config.seed + config.seeds):
            context = _Context(config, data, mesh, seed, path / str(seed), signals)
            by_seed[str(seed)] = _run_seed(context)
    results = {
        "config": config.name,
        "preset": config.preset,
        "data": dict(data.facts),
        "dev": data.dev,
        "seeds": by_seed,
        "summary": _summary(by_seed),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_gb": round(logs.peak_memory(), 3),
    }
    folder.write_json(path / "results.json", results)
    report.write(path)
    report.console(results)
    logs.say(
        f"{logs.clock(results['seconds'])} in all, peak memory "
        f"{results['peak_memory_gb']:.2f} GB; results and report in {path}"
    )
    return results


@dataclasses.dataclass(frozen=True)
class _Context:
    """What a stage is run with."""

    config: ConfigDict
    data: dataset.Data
    mesh: Mesh
    seed: int
    folder: pathlib.Path
    signals: Signals


def _run_seed(context: _Context) -> dict[str, Any]:
    """The stages of one seed, in order."""
    stages = tuple(context.config.stages)
    unknown = set(stages) - {"pretrain", "finetune", "evaluate"}
    if unknown or list(stages) != sorted(stages, key=_ORDER.index):
        raise ValueError(f"stages must be some of {_ORDER} in this order, got {stages}")
    outcomes = {}
    if "pretrain" in stages:
        outcomes["pretrain"] = _pretrain(context)
    if "finetune" in stages:
        outcomes |= _finetune(context, "pretrain" in stages, "evaluate" in stages)
    return outcomes


_ORDER = ("pretrain", "finetune", "evaluate")


def _pretrain(context: _Context) -> dict[str, Any]:
    """Pretraining, and its collapse panel."""
    where = context.folder / "pretrain"
    done = folder.read_json(where / "outcome.json")
    if done is not None:
        return done
    stage = build.pretrain(
        context.config, context.data, seed=context.seed, mesh=context.mesh
    )
    _, outcome = loop(stage, context.config, where, context.signals)
    folder.write_json(where / "outcome.json", outcome)
    return outcome


def _finetune(context: _Context, pretrained: bool, score: bool) -> dict[str, Any]:
    """Fine-tuning, and the best checkpoint on every split."""
    where = context.folder / "finetune"
    scores = context.folder / "evaluate"
    outcome = folder.read_json(where / "outcome.json")
    scored = folder.read_json(scores / "outcome.json")
    if outcome is not None and (scored is not None or not score):
        return {"finetune": outcome} | ({"evaluate": scored} if score else {})
    start = _last_state(context, context.folder / "pretrain") if pretrained else None
    stage = build.finetune(
        context.config, context.data, seed=context.seed, mesh=context.mesh, start=start
    )
    del start
    dev = context.data.splits[context.data.dev]
    dev_feeder = build.scoring_feeder(context.config, dev, context.mesh)

    def score_dev(state) -> dict[str, np.ndarray]:
        return evaluate.probabilities(stage.predict, _variables(state), dev_feeder)

    if outcome is None:
        _, outcome = loop(
            stage,
            context.config,
            where,
            context.signals,
            Evaluation(score_dev, dev.labels, dev.name),
        )
        folder.write_json(where / "outcome.json", outcome)
    if not score:
        return {"finetune": outcome}
    scored = _evaluate(context, stage, where, scores)
    folder.write_json(scores / "outcome.json", scored)
    return {"finetune": outcome, "evaluate": scored}


def _evaluate(
    context: _Context, stage: build.Stage, trained: pathlib.Path, where: pathlib.Path
) -> dict[str, Any]:
    """The best checkpoint: predictions of every split, figures of labelled ones."""
    config, data = context.config, context.data
    with Checkpoints(
        trained / "checkpoints", keep=config.checkpoint.keep, best=BEST
    ) as saves:
        saved = saves.restore(stage.state, step=saves.best)
    variables = _variables(saved.state)
    proba = {}
    for name, split in data.splits.items():
        if name == "train":
            continue
        feeder = build.scoring_feeder(config, split, context.mesh)
        proba[name] = evaluate.probabilities(stage.predict, variables, feeder)
        (where / "predictions").mkdir(parents=True, exist_ok=True)
        for arm, values in proba[name].items():
            suffix = "" if arm == evaluate.AVERAGE else f".{arm}"
            metrics.write_predictions(
                where / "predictions" / f"{name}{suffix}.csv",
                split.ids,
                proba=values,
            )
    dev = data.splits[data.dev]
    thresholds = {
        arm: metrics.best_threshold(values, dev.labels)
        for arm, values in proba[data.dev].items()
    }
    return {
        "checkpoint": saved.step,
        "splits": {
            name: evaluate.reports(
                values,
                data.splits[name].labels,
                thresholds=thresholds,
                seed=context.seed,
            )
            for name, values in proba.items()
            if data.splits[name].labelled
        },
    }


def _last_state(context: _Context, where: pathlib.Path):
    """The state that pretraining ended with."""
    stage = build.pretrain(
        context.config, context.data, seed=context.seed, mesh=context.mesh
    )
    with Checkpoints(
        where / "checkpoints", keep=context.config.checkpoint.keep
    ) as saves:
        return saves.restore(stage.state, step=saves.latest).state


def _variables(state) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _about_run(config: ConfigDict) -> str:
    """What this run is, and how to run the real one."""
    if config.preset != "demo":
        return f"{config.name}, preset {config.preset}"
    on = (
        "memes built in" if config.data.root is None else f"memes of {config.data.root}"
    )
    return (
        f"{config.name}, preset demo: small models on {on}, for a CPU; the real one is "
        f"--config=configs/{config.name}.py:full --config.data.root=FOLDER"
    )


def _about_data(data: dataset.Data) -> str:
    parts = []
    for name, split in data.splits.items():
        share = f", {np.mean(split.labels == 1):.1%} hateful" if split.labelled else ""
        parts.append(f"{name} {len(split.ids)}{share}")
    text = f"memes: {'; '.join(parts)}; vocabulary {data.vocabulary}"
    if data.facts["truncated_captions"]:
        text += f"; {data.facts['truncated_captions']} captions cut"
    if data.facts["bad_records"]:
        text += f"; {data.facts['bad_records']} bad records left out"
    return text


def _summary(by_seed: dict[str, Any]) -> dict[str, Any]:
    """Split -> arm -> figure -> {"mean", "std"} over the seeds, None for NaN."""
    evaluated = [s["evaluate"]["splits"] for s in by_seed.values() if "evaluate" in s]
    if not evaluated:
        return {}

    def over_seeds(split: str, arm: str, figure: str) -> dict[str, float | None]:
        spread = metrics.mean_std([e[split][arm][figure] for e in evaluated])
        values = zip(("mean", "std"), spread, strict=True)
        return {name: None if np.isnan(value) else value for name, value in values}

    figures = ("auroc", "accuracy", "threshold_accuracy", "f1")
    return {
        split: {
            arm: {f: over_seeds(split, arm, f) for f in figures if f in row}
            for arm, row in rows.items()
        }
        for split, rows in evaluated[0].items()
    }
