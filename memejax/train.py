"""Stages and the one loop. Read this first; it is the map.

    main.py     flags -> config -> train.run(config, workdir)
    train.py    run: data, then for each seed the stages in order, then the summary
                  pretrain   CASS on images and captions; no labels
                  finetune   the labels, from the pretrained arms or from scratch
                  evaluate   the best checkpoint on every split
                loop: chunks in, state on, metrics out, checkpoints, signals
    build.py    config -> Data and Stage (state, compiled step, feeder)
    steps.py    what one update computes, of losses/ and augment.py
    feeders.py  what the loop eats, made of data/pipeline.py and data/plans.py
    parallel.py devices
    folder.py   the run's folder; logs.py what it says; report.py its page

Everything is resumable: each stage restores its last checkpoint, and a stage that
ended has an outcome.json and is not run again.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import build, evaluate, folder, logs, losses, metrics, report
from memejax.checkpoint import Checkpoints
from memejax.data import plans

# The metric of the dev split that chooses the best checkpoint.
BEST = "auroc"


class NonFiniteLossError(FloatingPointError):
    """The loss is not finite; the message names the step."""


class Interrupted(SystemExit):
    """A signal ended the run after a save; exit status 128 + its number."""


def run(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs every stage for every seed, and returns what results.json holds.

    Raises:
      folder.OtherRunError: if the folder holds a run of another config.
      hateful_memes.BadRecordsError: naming every bad record of the data.
      NonFiniteLossError: if a loss is not finite.
      Interrupted: after SIGTERM or SIGINT, when the state is saved.
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
    data = build.data(config, path)
    logs.say(_about_data(data))
    by_seed = {}
    with _Signals() as signals:
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
    data: build.Data
    mesh: Mesh
    seed: int
    folder: pathlib.Path
    signals: _Signals


def _run_seed(context: _Context) -> dict[str, Any]:
    """The stages of one seed, in order."""
    stages = tuple(context.config.stages)
    unknown = set(stages) - {"pretrain", "finetune", "evaluate"}
    if unknown or list(stages) != sorted(stages, key=_ORDER.index):
        raise ValueError(
            f"stages must be some of {_ORDER} in this order, got {stages}"
        )
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
    """Scores the best checkpoint: predictions of every split, figures of labelled ones."""
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
                values,
                split.labels,
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
                bootstrap=config.evaluate.bootstrap,
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
        return saves.restore(stage.state).state


def _variables(state) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


# The loop


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a stage is judged while it runs.

    Attributes:
      score: state -> {arm: P(hateful) [n]}.
      labels: int [n].
      split: the split's name.
    """

    score: Callable[[Any], dict[str, np.ndarray]]
    labels: np.ndarray
    split: str


def loop(
    stage: build.Stage,
    config: ConfigDict,
    where: pathlib.Path,
    signals: _Signals,
    evaluation: Evaluation | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Runs a stage to its end, from its last checkpoint if it has one.

    The metrics of an update are fetched while the device works on the next one.

    Returns:
      The last state, and the stage's outcome as JSON.

    Raises:
      NonFiniteLossError: naming the step; the last good checkpoint stays.
      Interrupted: after a signal, when the state is saved.
    """
    saves = Checkpoints(
        where / "checkpoints",
        keep=config.checkpoint.keep,
        best=BEST if evaluation else None,
    )
    state, feeder, step, memory = stage.state, stage.feeder, 0, _Memory()
    saved = saves.restore(state)
    if saved is not None:
        state, step = saved.state, saved.step
        feeder = feeder.with_plan(plans.Plan(**saved.plan))
        memory = _Memory(**saved.position)
        logs.say(f"{where.name}: resumes after step {step}")
    total = len(feeder.plan)
    logger = logs.Logger(
        where,
        title=where.name,
        total=total,
        start=step,
        tensorboard=config.log.tensorboard,
    )
    teller = _Teller(logger, memory, config.log.every, feeder.plan.batch, total)
    began = time.perf_counter() - memory.seconds
    pending: tuple[int, Any] | None = None
    try:
        for count, chunk in feeder.chunks(step) if not memory.ended else ():
            state, values = stage.run_chunk(state, chunk)
            step += count
            if pending is not None:
                teller.take(*pending)
            pending = (step, values)
            judge = evaluation and (step % stage.eval_every == 0 or step == total)
            save = step % config.checkpoint.every == 0 or step == total
            if not (judge or save or signals.received):
                continue
            teller.take(*pending)
            pending = None
            rating = None
            if judge:
                rating = _judge(evaluation, state, step, logger, memory)
                memory.ended = 0 < stage.patience <= memory.since_best
            memory.seconds = time.perf_counter() - began
            saves.save(
                step,
                state,
                plan=feeder.plan.as_arrays(),
                position=dataclasses.asdict(memory),
                metrics=rating,
            )
            if signals.received:
                saves.wait()
                logs.say(
                    f"{where.name}: {signals.name} received, saved after step {step}; "
                    "the same command goes on from here"
                )
                raise Interrupted(128 + signals.received)
            if memory.ended:
                logs.say(
                    f"{where.name}: ends after step {step}, no better "
                    f"{BEST} in {memory.since_best} evaluations"
                )
                break
        saves.wait()
        best = saves.best
    finally:
        logger.close()
        saves.close()
    return state, {
        "steps": step,
        "best_step": best,
        "best": memory.best,
        "seconds": round(memory.seconds, 2),
        **teller.verdict(),
    }


@dataclasses.dataclass
class _Memory:
    """What the loop remembers, in the checkpoint: JSON only."""

    averages: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    panel: dict[str, float] = dataclasses.field(default_factory=dict)
    warned: bool = False
    best: float | None = None
    since_best: int = 0
    ended: bool = False
    seconds: float = 0.0


class _Teller:
    """Takes the metrics of finished updates: averages, lines, warnings."""

    def __init__(self, logger, memory, every, batch, total):
        self._logger, self._memory = logger, memory
        self._every, self._batch, self._total = every, batch, total
        self._averages = logs.Averages(memory.averages)

    def take(self, step: int, values: Any) -> None:
        """Metrics of the chunk that ended at `step`: scalars, or [steps] each."""
        fetched = {k: np.atleast_1d(v) for k, v in jax.device_get(values).items()}
        count = len(fetched["loss"])
        for i in range(count):
            at = step - count + 1 + i
            row = {name: float(column[i]) for name, column in fetched.items()}
            if not math.isfinite(row["loss"]):
                raise NonFiniteLossError(
                    f"the loss is {row['loss']} at step {at}; the last checkpoint is "
                    "good. A lower learning rate, a longer warm-up or clipping "
                    "(optimizer.groups.*.clip) are what helps most"
                )
            self._averages.add(row)
            if at % self._every == 0 or at == self._total:
                self._tell(at)
        self._memory.averages = self._averages.state()

    def _tell(self, step: int) -> None:
        means = self._averages.means()
        self._averages.clear()
        self._logger.progress(step, self._batch, means)
        panel = {
            name.removeprefix("collapse/"): value
            for name, value in means.items()
            if name.startswith("collapse/")
        }
        if panel:
            self._memory.panel = panel
        reasons = self._reasons()
        # A random network's outputs are all alike; give it a tenth of the run.
        if reasons and not self._memory.warned and 10 * step >= self._total:
            self._memory.warned = True
            logs.say(f"WARNING: COLLAPSED at step {step}: {'; '.join(reasons)}")
        elif panel and not reasons:
            self._memory.warned = False

    def _reasons(self) -> list[str]:
        arms: dict[str, dict[str, float]] = {}
        for name, value in self._memory.panel.items():
            arm, figure = name.split("/")
            arms.setdefault(arm, {})[figure] = value
        verdicts = {arm: losses.is_collapsed(panel) for arm, panel in arms.items()}
        return [f"{arm}: {why}" for arm, (yes, why) in verdicts.items() if yes]

    def verdict(self) -> dict[str, Any]:
        """The last panel and whether it shows a collapse; {} without a panel."""
        if not self._memory.panel:
            return {}
        reasons = self._reasons()
        return {
            "panel": self._memory.panel,
            "collapsed": bool(reasons),
            "why_collapsed": reasons,
        }


def _judge(evaluation, state, step, logger, memory) -> dict[str, float]:
    """Scores the dev split, logs it, keeps count of the best."""
    proba = evaluation.score(state)
    values = {
        f"{BEST}/{arm}": metrics.auroc(p, evaluation.labels)
        for arm, p in proba.items()
    }
    logger.metrics(step, evaluation.split, values)
    for arm, p in proba.items():
        logger.histogram(step, f"{evaluation.split}/scores/{arm}", p)
    rating = values[f"{BEST}/{evaluate.AVERAGE}"]
    better = memory.best is None or rating > memory.best
    memory.best = rating if better else memory.best
    memory.since_best = 0 if better else memory.since_best + 1
    shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
    logs.say(f"  {evaluation.split} at step {step}: {shown}")
    return {BEST: rating}


class _Signals:
    """Catches SIGTERM and SIGINT, so that the loop can save before it ends."""

    def __init__(self):
        self.received = 0
        self._old: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """The received signal's name."""
        return signal.Signals(self.received).name

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _handle(self, number: int, _: object) -> None:
        if self.received:
            # Asked twice: end at once.
            raise Interrupted(128 + number)
        self.received = number


def _about_run(config: ConfigDict) -> str:
    """What this run is, and how to run the real one."""
    if config.preset != "demo":
        return f"{config.name}, preset {config.preset}"
    on = "memes built in" if config.data.root is None else f"memes of {config.data.root}"
    return (
        f"{config.name}, preset demo: small models on {on}, for a CPU; the real one is "
        f"--config=configs/{config.name}.py:full --config.data.root=FOLDER"
    )


def _about_data(data: build.Data) -> str:
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
    """Split -> arm -> figure -> mean and standard deviation over the seeds."""
    evaluated = [s["evaluate"]["splits"] for s in by_seed.values() if "evaluate" in s]
    if not evaluated:
        return {}
    figures = ("auroc", "accuracy", "threshold_accuracy", "f1")
    return {
        split: {
            arm: {
                figure: metrics.mean_std([e[split][arm][figure] for e in evaluated])
                for figure in figures
                if figure in row
            }
            for arm, row in rows.items()
        }
        for split, rows in evaluated[0].items()
    }
