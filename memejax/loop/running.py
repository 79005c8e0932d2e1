"""A stage under way: `loop`, from its first update or last checkpoint to its end."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ml_collections import ConfigDict

from memejax import build, logs, parallel, profile
from memejax.checkpoint import Checkpoints
from memejax.data import plans
from memejax.loop.course import Course
from memejax.loop.evaluation import Evaluation
from memejax.loop.signals import Interrupted, Signals
from memejax.loop.teller import Memory, Teller


def loop(
    stage: build.Stage,
    config: ConfigDict,
    where: pathlib.Path,
    signals: Signals,
    evaluation: Evaluation | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Runs a stage to its end, from its last checkpoint if it has one.

    The stage's own state is given up, to the first update or to the checkpoint.
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
        feeder, self._memory = stage.feeder, Memory()
        if self._checkpoints.latest is not None:
            # Before it is read: there may be no room for two states.
            stage.give_up()
        saved = self._checkpoints.restore_latest(stage.state)
        if saved is not None:
            self.state, self.step = saved.state, saved.step
            feeder = feeder.with_plan(plans.Plan(**saved.plan))
            self._memory = Memory(**saved.position)
            logs.say(f"{where.name}: resumes after step {self.step}")
        self._total = len(feeder.plan)
        self._logger = logs.Logger(
            where, title=where.name, total=self._total, start=self.step
        )
        self._course = Course(feeder, stage.refresh, logger=self._logger, where=where)
        self._teller = Teller(
            self._logger,
            self._memory,
            every=config.log.every,
            batch=feeder.plan.batch,
            total=self._total,
            is_collapsed=stage.is_collapsed,
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
