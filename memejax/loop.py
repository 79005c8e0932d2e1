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
from typing import Any, NoReturn

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
    running = _Running(stage, config, where, evaluation)
    try:
        for count, chunk in running.chunks():
            if recorder is not None:
                run_chunk = recorder.of(running.step, count)
            running.advance(run_chunk, count, chunk)
            asked = signals.asked()
            if not (running.due() or asked):
                continue
            running.record()
            asked = asked or signals.asked(now=True)
            if asked:
                running.interrupt(asked)
            if running.ends_early():
                break
        best = running.finish()
    except Exception as error:
        # Of several processes: to close the checkpoints would wait for the others.
        parallel.leave(error)
        raise
    finally:
        if recorder is not None:
            recorder.close()
        running.close()
    return running.state, running.outcome(best)


class _Running:
    """A stage on its way: where it stands, and what is written of it.

    Attributes:
      state: after `step` updates.
      step: updates done.
    """

    def __init__(self, stage, config, where, evaluation):
        self._stage, self._where, self._evaluation = stage, where, evaluation
        self._save_every = config.checkpoint.every
        self._checkpoints = Checkpoints(
            where / "checkpoints",
            keep=config.checkpoint.keep,
            best=evaluation.rating if evaluation else None,
        )
        self.state, self.step = stage.state, 0
        feeder, self._memory = stage.feeder, _Memory()
        saved = self._checkpoints.restore_latest(self.state)
        if saved is not None:
            self.state, self.step = saved.state, saved.step
            feeder = feeder.with_plan(plans.Plan(**saved.plan))
            self._memory = _Memory(**saved.position)
            logs.say(f"{where.name}: resumes after step {self.step}")
        self._total = len(feeder.plan)
        self._logger = logs.Logger(
            where, title=where.name, total=self._total, start=self.step
        )
        self._course = _Course(feeder, stage.refresh, self._logger, where)
        self._teller = _Teller(
            self._logger,
            self._memory,
            config.log.every,
            feeder.plan.batch,
            self._total,
            stage.is_collapsed,
        )
        self._began = time.perf_counter() - self._memory.seconds
        self._pending: tuple[int, Any] | None = None

    def chunks(self) -> Iterator[tuple[int, Any]]:
        """Chunks from here to the stage's end."""
        start = self._total if self._memory.ended else self.step
        return self._course.chunks(start, lambda: self.state)

    def advance(self, run_chunk: Callable[..., Any], count: int, chunk: Any) -> None:
        """Makes the updates of a chunk, and takes the metrics of the one before."""
        self.state, values = run_chunk(self.state, chunk)
        self.step += count
        self._take_pending()
        self._pending = (self.step, values)

    def _take_pending(self) -> None:
        if self._pending is not None:
            self._teller.take(*self._pending)
        self._pending = None

    def due(self) -> bool:
        """Whether an evaluation or a checkpoint is."""
        return self._judges() or self._every(self._save_every)

    def _judges(self) -> bool:
        return self._evaluation is not None and self._every(self._stage.eval_every)

    def _every(self, steps: int) -> bool:
        return self.step % steps == 0 or self.step == self._total

    def record(self) -> None:
        """Takes the last metrics, judges where that is due, and saves."""
        self._take_pending()
        rating = self._judge(self._evaluation) if self._judges() else None
        self._memory.seconds = time.perf_counter() - self._began
        self._checkpoints.save(
            self.step,
            self.state,
            plan=self._course.feeder.plan.as_arrays(),
            position=dataclasses.asdict(self._memory),
            metrics=rating,
        )

    def _judge(self, evaluation) -> dict[str, float]:
        """Measures, logs it, keeps count of the best."""
        found, memory = evaluation.measure(self.state), self._memory
        self._logger.metrics(self.step, evaluation.split, found.values)
        for name, values in found.histograms.items():
            self._logger.histogram(self.step, f"{evaluation.split}/{name}", values)
        better = memory.best is None or found.rating > memory.best
        memory.best = found.rating if better else memory.best
        memory.since_best = 0 if better else memory.since_best + 1
        memory.ended = 0 < self._stage.patience <= memory.since_best
        said = tuple(found.values) if found.said is None else found.said
        shown = "  ".join(f"{name} {found.values[name]:.4f}" for name in said)
        logs.say(f"  {evaluation.split} at step {self.step}: {shown}")
        return {evaluation.rating: found.rating}

    def interrupt(self, number: int) -> NoReturn:
        """Ends the run for a signal, when what was saved is on disk."""
        self._checkpoints.wait()
        logs.say(
            f"{self._where.name}: {signal.Signals(number).name} received, saved after "
            f"step {self.step}; the same command goes on from here"
        )
        raise Interrupted(128 + number)

    def ends_early(self) -> bool:
        """Whether nothing better has come for too long; says so."""
        if not (self._memory.ended and self._evaluation):
            return False
        logs.say(
            f"{self._where.name}: ends after step {self.step}, no better "
            f"{self._evaluation.rating} in {self._memory.since_best} evaluations"
        )
        return True

    def finish(self) -> int | None:
        """The step of the best checkpoint, when all are on disk."""
        self._checkpoints.wait()
        return self._checkpoints.best

    def outcome(self, best: int | None) -> dict[str, Any]:
        """What the stage came to, as JSON."""
        return {
            "steps": self.step,
            "best_step": best,
            "best": self._memory.best,
            "seconds": round(self._memory.seconds, 2),
            **self._teller.verdict(),
        }

    def close(self) -> None:
        """Closes the files."""
        self._logger.close()
        self._checkpoints.close()


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
