"""The one loop that every stage runs in.

Progress, checkpoints, signals, the stop at a non-finite loss and the collapse
warning are written once, here, whatever the objective and whatever feeds it.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax import build, logs, parallel, profile
from memejax.checkpoint import Checkpoints
from memejax.data import plans

# The metric of the dev split that chooses the best checkpoint.
BEST = "auroc"


class NonFiniteLossError(FloatingPointError):
    """The loss is not finite; the message names the step."""


class Interrupted(SystemExit):
    """A signal ended the run after a save; exit status 128 + its number."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an evaluation found.

    Attributes:
      values: figures for the log.
      rating: the one that chooses the best checkpoint; larger is better.
      histograms: name -> values, for TensorBoard.
      said: which figures the console shows; None shows all.
    """

    values: Mapping[str, float]
    rating: float
    histograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a stage is judged while it runs.

    Attributes:
      measure: state -> Measured.
      split: name of what it is measured on.
      rating: what the rating is called.
    """

    measure: Callable[[Any], Measured]
    split: str
    rating: str = BEST


def loop(
    stage: build.Stage,
    config: ConfigDict,
    where: pathlib.Path,
    signals: Signals,
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
    run_chunk, recorder = stage.run_chunk, _recorder(stage, config, where)
    saves = Checkpoints(
        where / "checkpoints",
        keep=config.checkpoint.keep,
        best=evaluation.rating if evaluation else None,
    )
    state, feeder, step, memory = stage.state, stage.feeder, 0, _Memory()
    saved = saves.restore_latest(state)
    if saved is not None:
        state, step = saved.state, saved.step
        feeder = feeder.with_plan(plans.Plan(**saved.plan))
        memory = _Memory(**saved.position)
        logs.say(f"{where.name}: resumes after step {step}")
    total = len(feeder.plan)
    logger = logs.Logger(where, title=where.name, total=total, start=step)
    course = _Course(feeder, stage.refresh, logger, where)
    teller = _Teller(
        logger,
        memory,
        config.log.every,
        feeder.plan.batch,
        total,
        stage.is_collapsed,
    )
    began = time.perf_counter() - memory.seconds
    pending: tuple[int, Any] | None = None

    def present() -> Any:
        return state

    try:
        for count, chunk in course.chunks(total if memory.ended else step, present):
            if recorder is not None:
                run_chunk = recorder.of(step, count)
            state, values = run_chunk(state, chunk)
            step += count
            if pending is not None:
                teller.take(*pending)
            pending = (step, values)
            judge = evaluation and (step % stage.eval_every == 0 or step == total)
            save = step % config.checkpoint.every == 0 or step == total
            asked = signals.asked()
            if not (judge or save or asked):
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
                plan=course.feeder.plan.as_arrays(),
                position=dataclasses.asdict(memory),
                metrics=rating,
            )
            asked = asked or signals.asked(now=True)
            if asked:
                saves.wait()
                logs.say(
                    f"{where.name}: {signal.Signals(asked).name} received, saved after "
                    f"step {step}; the same command goes on from here"
                )
                raise Interrupted(128 + asked)
            if memory.ended and evaluation:
                logs.say(
                    f"{where.name}: ends after step {step}, no better "
                    f"{evaluation.rating} in {memory.since_best} evaluations"
                )
                break
        saves.wait()
        best = saves.best
    except Exception as error:
        # Of several processes: to close the checkpoints would wait for the others.
        parallel.leave(error)
        raise
    finally:
        if recorder is not None:
            recorder.close()
        logger.close()
        saves.close()
    return state, {
        "steps": step,
        "best_step": best,
        "best": memory.best,
        "seconds": round(memory.seconds, 2),
        **teller.verdict(),
    }


def _recorder(
    stage: build.Stage, config: ConfigDict, where: pathlib.Path
) -> profile.Recorder | None:
    """What traces a window of the run, None where none is asked for.

    The window goes beside the stage's other TensorBoard files.
    """
    if not config.profile.start or not parallel.is_first():
        return None
    return profile.Recorder(
        stage.run_chunk,
        where,
        start=config.profile.start,
        steps=config.profile.steps,
        dtype=config.model.dtype if "model" in config else "float32",
        title=f"{config.name}, preset {config.preset}, {where.name}",
    )


class _Course:
    """The plan that a stage follows, drawn again where the stage says so."""

    def __init__(self, feeder, refresh, logger, where):
        self.feeder = feeder
        self._refresh, self._logger, self._where = refresh, logger, where

    def chunks(self, start: int, state: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
        """Chunks from a step on; nothing is read ahead past a new plan.

        Args:
          start: the first step.
          state: gives the state that the chunks before led to.
        """
        total = len(self.feeder.plan)
        again = self._refresh.steps if self._refresh else ()
        while start < total:
            if start in again:
                self._draw(state(), start)
            stop = min((step for step in again if step > start), default=total)
            yield from self.feeder.chunks(start, stop)
            start = stop

    def _draw(self, state: Any, step: int) -> None:
        new = self._refresh.draw(state, self.feeder.plan, step)
        self.feeder = self.feeder.with_plan(new.plan)
        self._logger.metrics(step, "curriculum", new.values)
        if new.arrays and parallel.is_first():
            folder = self._where / "refreshes"
            folder.mkdir(exist_ok=True)
            np.savez_compressed(folder / f"{step}.npz", **new.arrays)


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

    def __init__(self, logger, memory, every, batch, total, is_collapsed):
        self._logger, self._memory = logger, memory
        self._is_collapsed = is_collapsed
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
        verdicts = {arm: self._is_collapsed(panel) for arm, panel in arms.items()}
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
    """Measures, logs it, keeps count of the best."""
    found = evaluation.measure(state)
    logger.metrics(step, evaluation.split, found.values)
    for name, values in found.histograms.items():
        logger.histogram(step, f"{evaluation.split}/{name}", values)
    better = memory.best is None or found.rating > memory.best
    memory.best = found.rating if better else memory.best
    memory.since_best = 0 if better else memory.since_best + 1
    said = tuple(found.values) if found.said is None else found.said
    shown = "  ".join(f"{name} {found.values[name]:.4f}" for name in said)
    logs.say(f"  {evaluation.split} at step {step}: {shown}")
    return {evaluation.rating: found.rating}


class Signals:
    """Catches SIGTERM and SIGINT, so that the loop can save before it ends.

    Of several processes, what any of them receives ends all at the same step.
    """

    def __init__(self):
        self.received = 0
        self._agreement = parallel.Agreement()
        self._old: dict[int, Any] = {}

    def asked(self, *, now: bool = False) -> int:
        """The signal that a process received, 0 without any; the same in all.

        Of several processes at every tenth call only, or `now`.
        """
        return self._agreement.largest(self.received, now=now)

    def __enter__(self) -> Signals:
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
