"""Stages, in order, for each seed. Read this first; it is the map.

    main.py     flags -> config -> train.run(config, workdir)
    train.py    run: data, then for each seed the stages in order, then the summary
                  pretrain   multimodal CASS, CASS or DINO; no labels
                  probe      what the pretrained features are worth, with pictures
                  finetune   the labels, from the pretrained arms or from scratch
                  evaluate   the best checkpoint on every split
                or, of stored features, in place of all before evaluate
                  graph      a network on the memes' graphs
                or, of small pictures, all seeds at once
                  classify   a classifier under a curriculum (classify.py)
    loop.py     the one loop: chunks in, state on, metrics out, checkpoints, signals
    dataset.py  config -> Data (splits as columns)
    build/      config -> Stage (state, compiled step, feeder)
    steps/      what one update computes, of losses/, views.py and augment/
    feeders.py  what the loop eats, made of data/pipeline.py and data/plans.py
    parallel/   devices
    evaluate.py what a checkpoint's features are worth; scores.py probabilities
    folder.py   the run's folder; logs.py what it says; report/ its page

Everything is resumable: each stage restores its last checkpoint, and a stage that
ended has an outcome.json and is not run again.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import (
    build,
    classify,
    dataset,
    evaluate,
    feeders,
    folder,
    logs,
    metrics,
    parallel,
    report,
    scores,
)
from memejax.checkpoint import Checkpoints
from memejax.loop import BEST, Evaluation, Measured, Signals, loop
from memejax.report import graph_pictures


def run(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs every stage for every seed, and returns what results.json holds.

    Raises:
      folder.OtherRunError: if the folder holds a run of another config.
      hateful_memes.BadRecordsError: naming every bad record of the data.
      loop.NonFiniteLossError: if a loss is not finite.
      loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
      parallel.ProcessError: if there are several processes, and the stages are for one.
    """
    started = time.perf_counter()
    logs.say(_about_run(config))
    config = build.adopt(config, logs.say)
    path = folder.claim(workdir, config.to_dict(), build.RUNTIME)
    done = _read(path / "results.json")
    if done is not None:
        logs.say(f"This run is finished; its results, from {path}:")
        _show(done)
        return done
    if parallel.count() > 1 and {"classify", "graph"} & set(config.stages):
        raise parallel.ProcessError(
            f"stages={tuple(config.stages)} run in one process; there are "
            f"{parallel.count()}"
        )
    parallel.keep_compiled(path / "compiled")
    if tuple(config.stages) == ("classify",):
        return _classify(config, path, started)
    if "graph" in config.stages:
        # Too small for more than one device.
        mesh, data = parallel.mesh(1), build.graph_data(config)
    else:
        mesh, data = build.mesh(config), _load(config, path)
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
    if parallel.is_first():
        folder.write_json(path / "results.json", results)
        report.write(path)
    _show(results)
    # No process ends before everything is written.
    parallel.sync("written")
    logs.say(
        f"{logs.clock(results['seconds'])} in all, peak memory "
        f"{results['peak_memory_gb']:.2f} GB; results and report in {path}"
    )
    return results


def _classify(config: ConfigDict, path: pathlib.Path, started: float) -> dict[str, Any]:
    """All seeds of a classifier of small pictures, and what results.json holds."""
    data = classify.load(config)
    logs.say(", ".join(f"{name} {value}" for name, value in data.facts.items()))
    with Signals() as signals:
        outcome = classify.run(config, data, path, signals=signals)
    results = {
        "config": config.name,
        "preset": config.preset,
        "data": dict(data.facts),
        **outcome,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_gb": round(logs.peak_memory(), 3),
    }
    folder.write_json(path / "results.json", results)
    classify.write_page(config, path)
    _show(results)
    logs.say(f"{logs.clock(results['seconds'])} in all; results and report in {path}")
    return results


def _read(path: pathlib.Path) -> Any:
    """What a JSON file holds, None if there is none; the same in all processes."""
    # A folder on a network shows a new file to one machine before the other.
    return parallel.from_first(folder.read_json(path))


def _load(config: ConfigDict, path: pathlib.Path) -> dataset.Data:
    """The data; of several processes the first writes what is to be written."""
    with parallel.first_before_others("data"):
        if not parallel.is_first():
            config = dataset.as_written(config, path)
        return dataset.load(config, path)


def _show(results: dict[str, Any]) -> None:
    """Results on the console."""
    if not parallel.is_first():
        return
    if "errors" in results:
        classify.tell(results)
    else:
        report.console(results)


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
    if not set(stages) <= set(_ORDER) or list(stages) != sorted(
        stages, key=_ORDER.index
    ):
        raise ValueError(f"stages must be some of {_ORDER} in this order, got {stages}")
    if "probe" in stages and "pretrain" not in stages:
        raise ValueError("probe looks at what pretrain made: name both in stages")
    if "graph" in stages and not set(stages) <= {"graph", "evaluate"}:
        raise ValueError(f"graph goes with evaluate alone, got {stages}")
    outcomes, pretrained = {}, None
    if "pretrain" in stages:
        outcomes, pretrained = _pretrain(context, "probe" in stages)
    if "finetune" in stages:
        outcomes |= _finetune(context, pretrained, "evaluate" in stages)
    if "graph" in stages:
        make = functools.partial(
            build.graph,
            context.config,
            context.data,
            seed=context.seed,
            mesh=context.mesh,
        )
        outcomes |= _supervised(context, "graph", make, "evaluate" in stages)
    return outcomes


_ORDER = ("pretrain", "probe", "finetune", "graph", "evaluate")


def _pretrain(
    context: _Context, look: bool
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Pretraining with its collapse panel, and what its features are worth.

    Returns:
      The outcomes, and a function that gives the variables it ended with.
    """
    where = context.folder / "pretrain"
    looked = context.folder / "probe-pretrain"
    outcome = _read(where / "outcome.json")
    seen = _read(looked / "outcome.json")
    ended: Callable[[], Any] = functools.partial(_pretrained, context)
    if outcome is None or (look and seen is None):
        stage = build.pretrain(
            context.config, context.data, seed=context.seed, mesh=context.mesh
        )
        # The loop gives the first state's memory up: a copy is the untrained network.
        untrained = parallel.fetch(stage.state.weights()) if look else None
        if outcome is None:
            state, outcome = loop(stage, context.config, where, context.signals)
            folder.write_json(where / "outcome.json", outcome)
            ended = state.weights
        if look:
            logs.say("probe: neighbours, linear probe, maps and pictures")
            seen = evaluate.probe(
                context.config,
                context.data,
                stage,
                trained=ended(),
                untrained=untrained,
                mesh=context.mesh,
                where=looked,
            )
            folder.write_json(looked / "outcome.json", seen)
    return {"pretrain": outcome} | ({"probe-pretrain": seen} if look else {}), ended


def _finetune(
    context: _Context, pretrained: Callable[[], Any] | None, score: bool
) -> dict[str, Any]:
    """Fine-tuning, and the best checkpoint on every split."""

    def make() -> build.Stage:
        start = pretrained and pretrained()
        return build.finetune(
            context.config,
            context.data,
            seed=context.seed,
            mesh=context.mesh,
            start=start,
            **_curriculum(context, start),
        )

    return _supervised(context, "finetune", make, score)


def _supervised(
    context: _Context, name: str, make: Callable[[], build.Stage], score: bool
) -> dict[str, Any]:
    """A stage that the dev split judges, and its best checkpoint on every split."""
    where = context.folder / name
    scored_in = context.folder / "evaluate"
    outcome = _read(where / "outcome.json")
    scored = _read(scored_in / "outcome.json")
    if outcome is not None and (scored is not None or not score):
        return {name: outcome} | ({"evaluate": scored} if score else {})
    stage = make()
    if outcome is None:
        _, outcome = loop(
            stage, context.config, where, context.signals, _on_dev(context, stage)
        )
        folder.write_json(where / "outcome.json", outcome)
    if not score:
        return {name: outcome}
    scored = _evaluate(context, stage, where, scored_in)
    folder.write_json(scored_in / "outcome.json", scored)
    return {name: outcome, "evaluate": scored}


def _scoring_feeder(context: _Context, split: dataset.Split) -> feeders.Feeder:
    """One pass over a split in order, as the stage's `predict` takes it."""
    graph = "graph" in context.config.stages
    make = build.graph_feeder if graph else build.scoring_feeder
    return make(context.config, split, context.mesh)


def _on_dev(context: _Context, stage: build.Stage) -> Evaluation:
    """How a stage is judged: AUROCs of the arms and their average on the dev split."""
    dev = context.data.splits[context.data.dev]
    dev_feeder = _scoring_feeder(context, dev)

    def measure(state) -> Measured:
        proba = scores.probabilities(stage.predict, state.weights(), dev_feeder)
        values = {
            f"{BEST}/{arm}": metrics.auroc(p, dev.labels) for arm, p in proba.items()
        }
        return Measured(
            values,
            rating=values[f"{BEST}/{scores.AVERAGE}"],
            histograms={f"scores/{arm}": p for arm, p in proba.items()},
        )

    return Evaluation(measure, dev.name)


def _curriculum(context: _Context, start: Any) -> dict[str, Any]:
    """What fine-tuning is to know of its curriculum: section and baseline's scores.

    The baseline that "bac" ranks by is the same fine-tuning in shuffled passes, in the
    folder `baseline`.
    """
    if "curriculum" not in context.config:
        return {}
    section = context.config.curriculum
    if not build.needs_baseline(section):
        return {"curriculum": section}
    train = context.data.splits["train"]
    where = context.folder / "baseline"
    file = where / "uncertainty.npy"
    if parallel.from_first(file.exists()):
        uncertainty = np.load(file)
    else:
        stage = build.finetune(
            context.config,
            context.data,
            seed=context.seed,
            mesh=context.mesh,
            start=start,
        )
        state, _ = loop(stage, context.config, where, context.signals)
        feeder = build.scoring_feeder(context.config, train, context.mesh)
        proba = scores.probabilities(stage.predict, state.weights(), feeder)
        uncertainty = scores.uncertainty(section.score, proba, train.labels)
        if parallel.is_first():
            np.save(file, uncertainty)
    return {"curriculum": section, "uncertainty": uncertainty}


def _evaluate(
    context: _Context, stage: build.Stage, trained: pathlib.Path, where: pathlib.Path
) -> dict[str, Any]:
    """The best checkpoint: predictions of every split, figures of labelled ones."""
    config, data = context.config, context.data
    with Checkpoints(
        trained / "checkpoints", keep=config.checkpoint.keep, best=BEST
    ) as saves:
        saved = saves.restore(stage.state, step=saves.best)
    variables = saved.state.weights()
    proba = {}
    for name, split in data.splits.items():
        if name == "train":
            continue
        feeder = _scoring_feeder(context, split)
        proba[name] = scores.probabilities(stage.predict, variables, feeder)
        if not parallel.is_first():
            continue
        (where / "predictions").mkdir(parents=True, exist_ok=True)
        for arm, values in proba[name].items():
            suffix = "" if arm == scores.AVERAGE else f".{arm}"
            metrics.write_predictions(
                where / "predictions" / f"{name}{suffix}.csv",
                split.ids,
                proba=values,
            )
    if "graph" in config.stages and context.seed == config.seed:
        drawn = graph_pictures.draw(
            config, variables, proba=proba[data.dev][scores.AVERAGE]
        )
        if drawn is not None:
            (where / graph_pictures.FILE).write_bytes(drawn)
    dev = data.splits[data.dev]
    thresholds = {
        arm: metrics.best_threshold(values, dev.labels)
        for arm, values in proba[data.dev].items()
    }
    return {
        "checkpoint": saved.step,
        "splits": {
            name: scores.reports(
                values,
                data.splits[name].labels,
                thresholds=thresholds,
                seed=context.seed,
            )
            for name, values in proba.items()
            if data.splits[name].labelled
        },
    }


def _pretrained(context: _Context) -> Any:
    """The variables that pretraining ended with, from its last checkpoint."""
    stage = build.pretrain(
        context.config, context.data, seed=context.seed, mesh=context.mesh
    )
    return evaluate.restore(
        context.folder / "pretrain", stage, keep=context.config.checkpoint.keep
    )


def _about_run(config: ConfigDict) -> str:
    """What this run is, and how to run the real one."""
    if "graph" in config.stages:
        return (
            f"{config.name}, preset {config.preset}: {config.graph.network} on the "
            f"features in {config.features}"
        )
    if config.preset != "demo":
        return f"{config.name}, preset {config.preset}"
    where = "built in" if config.data.root is None else f"of {config.data.root}"
    on = f"{config.data.name} {where}"
    return (
        f"{config.name}, preset demo: small models on {on}, for a CPU; the real one is "
        f"--config=configs/{config.name}.py:full --config.data.root=FOLDER"
    )


def _about_data(data: dataset.Data) -> str:
    parts = []
    for name, split in data.splits.items():
        share = ""
        if split.labelled and data.classes == 2:
            share = f", {np.mean(split.labels == 1):.1%} hateful"
        parts.append(f"{name} {len(split.ids)}{share}")
    text = f"{data.facts['name']}: {'; '.join(parts)}"
    if data.classes != 2:
        text += f"; {data.classes} classes"
    if data.vocabulary:
        text += f"; vocabulary {data.vocabulary}"
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
