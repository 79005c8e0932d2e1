"""The one loop that every stage runs in.

Progress, checkpoints, signals, the stop at a non-finite loss and the collapse warning
are written once, here, for every objective and every feeder.

    loop             a stage from its first update or last checkpoint to its end
    LoopOptions      how often it logs and saves, and which window it profiles
    MetricsTracker   metrics of finished updates -> averages, lines, warnings
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import jax
import numpy as np

from memejax import logs, parallel
from memejax.checkpoint import Checkpoints
from memejax.data import plans
from memejax.errors import DiskFullError, NotFiniteError, is_disk_full
from memejax.plan_runner import PlanRunner
from memejax.signals import Interrupted as Interrupted
from memejax.signals import Signals as Signals
from memejax.stage import Evaluation, Stage


class NonFiniteLossError(NotFiniteError):
    """The loss is not finite; the message names the step."""


class Recorder(Protocol):
    """Traces a window of the updates, as `memejax.profile.Recorder` does."""

    def of(self, step: int, count: int) -> Callable[..., Any]:
        """Return the `run_chunk` of the next `count` updates, after `step` updates."""
        ...

    def close(self) -> None:
        """End a window that is still open."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """Runtime options of the loop; none changes what is computed.

    Attributes:
        save_every: updates between checkpoints.
        keep: latest checkpoints that stay, at least 1.
        log_every: updates between lines.
        recorder: `(run_chunk, folder) -> Recorder`, or None without a window to trace.
    """

    save_every: int
    keep: int
    log_every: int
    recorder: Callable[[Callable[..., Any], pathlib.Path], Recorder] | None = None


@dataclasses.dataclass
class Memory:
    """The loop's memory between checkpoints: JSON only.

    Attributes:
        averages: of the metrics since the last line, as `logs.Averages` gives them.
        panel: of the last line that had one.
        warned: whether its collapse was reported.
        best: rating so far; None before the first evaluation.
        since_best: evaluations since then.
        ended: whether those were too many.
        seconds: of the stage until now.
    """

    averages: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    panel: dict[str, float] = dataclasses.field(default_factory=dict)
    warned: bool = False
    best: float | None = None
    since_best: int = 0
    ended: bool = False
    seconds: float = 0.0


def loop(
    stage: Stage,
    options: LoopOptions,
    path: pathlib.Path,
    signals: Signals,
    evaluation: Evaluation | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Run a stage to its end, from its last checkpoint if it has one.

    The metrics of an update are fetched while the device works on the next one.

    Args:
        stage: to run.
        options: of the loop.
        path: the stage's folder.
        signals: that end the run after a save.
        evaluation: of the stage while it runs; None without.

    Returns:
        The last state, and the stage's outcome as JSON.

    Raises:
        NonFiniteLossError: naming the step; the last good checkpoint stays.
        Interrupted: after a signal, when the state is saved.
    """
    run_chunk, recorder = stage.run_chunk, None
    if options.recorder is not None:
        recorder = options.recorder(run_chunk, path)
    running = _Running(stage, options, path, evaluation)
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
        bests = running.finish()
    except Exception as error:
        running.close_bar()
        # All processes have the same loss and scores, and end alike.
        if isinstance(error, NotFiniteError):
            raise
        shown = running.disk_full() if is_disk_full(error) else error
        # Of several processes: to close the checkpoints would wait for the others.
        parallel.leave(shown)
        if shown is error:
            raise
        raise shown from error
    finally:
        if recorder is not None:
            recorder.close()
        running.close()
    return running.state, running.outcome(bests)


class _Running:
    """A stage under way: its state and its files.

    Attributes:
        state: after `step` updates.
        step: updates done.
    """

    def __init__(self, stage, options, path, evaluation):
        self._stage, self._path, self._evaluation = stage, path, evaluation
        self._save_every = options.save_every
        self._checkpoints = Checkpoints(
            path / "checkpoints",
            keep=options.keep,
            best=self._ratings(evaluation),
        )
        feeder, self._memory = stage.feeder, Memory()
        saved = self._checkpoints.restore_latest(stage.abstract)
        for step, reason in sorted(self._checkpoints.set_aside.items()):
            logs.say(f"WARNING: {path.name}: the checkpoint of step {step}: {reason}")
        if saved is not None and not saved.verified:
            logs.say(
                f"WARNING: {path.name}: the checkpoint of step {saved.step} was saved "
                "by an earlier memejax, without digests: damage would go unnoticed"
            )
        if saved is None:
            if stage.ahead is not None:
                stage.ahead.init.result()
            self.state, self.step = stage.init(), 0
        else:
            self.state, self.step = saved.state, saved.step
            feeder = feeder.with_plan(plans.Plan(**saved.plan))
            self._memory = Memory(**saved.position)
            logs.say(f"{path.name}: resumes after step {self.step}")
            # The state is held once, here.
            del saved
        self._total = len(feeder.plan)
        self._logger = logs.Logger(
            path, title=path.name, total=self._total, start=self.step
        )
        self._plan = PlanRunner(feeder, stage.refresh, logger=self._logger, path=path)
        self._tracker = MetricsTracker(
            self._logger,
            self._memory,
            every=options.log_every,
            batch=feeder.plan.batch,
            total=self._total,
            is_collapsed=stage.is_collapsed,
            saved=lambda: self._checkpoints.latest,
        )
        self._began = time.perf_counter() - self._memory.seconds
        self._pending: tuple[int, Any] | None = None
        self._compiled = self._is_full = False

    def chunks(self) -> Iterator[tuple[int, Any]]:
        """Yield the chunks from here to the stage's end."""
        start = self._total if self._memory.ended else self.step
        return self._plan.chunks(start, lambda: self.state)

    def advance(self, run_chunk: Callable[..., Any], count: int, chunk: Any) -> None:
        """Make the updates of a chunk, and take the metrics of the one before."""
        if not self._compiled:
            # The first call compiles, for seconds to minutes without any other sign.
            logs.say(f"{self._path.name}: compiling the step")
            if self._stage.ahead is not None:
                self._stage.ahead.step.result()
            self._compiled = True
        self.state, values = run_chunk(self.state, chunk)
        self.step += count
        self._take_pending()
        self._pending = (self.step, values)

    def _take_pending(self) -> None:
        if self._pending is not None:
            self._tracker.take(*self._pending)
        self._pending = None

    def due(self) -> bool:
        """Whether an evaluation or a checkpoint is due."""
        return self._judges() or self._every(self._save_every)

    def _judges(self) -> bool:
        return self._evaluation is not None and self._every(self._stage.eval_every)

    def _every(self, steps: int) -> bool:
        return self.step % steps == 0 or self.step == self._total

    def record(self) -> None:
        """Take the last metrics, evaluate if that is due, and save."""
        self._take_pending()
        rating = self._judge(self._evaluation) if self._judges() else None
        self._memory.seconds = time.perf_counter() - self._began
        self._checkpoints.save(
            self.step,
            self.state,
            plan=self._plan.feeder.plan.as_arrays(),
            position=dataclasses.asdict(self._memory),
            metrics=rating,
        )

    def _judge(self, evaluation: Evaluation) -> dict[str, float]:
        """Measure, log, and keep count of the best."""
        found, memory = evaluation.measure(self.state), self._memory
        self._logger.metrics(self.step, evaluation.split, found.values)
        for name, values in found.histograms.items():
            self._logger.histogram(self.step, f"{evaluation.split}/{name}", values)
        better = memory.best is None or found.rating > memory.best
        memory.best = found.rating if better else memory.best
        memory.since_best = 0 if better else memory.since_best + 1
        memory.ended = 0 < self._stage.patience <= memory.since_best
        printed = tuple(found.values) if found.printed is None else found.printed
        shown = "  ".join(f"{name} {found.values[name]:.4f}" for name in printed)
        logs.say(f"  {evaluation.split} at step {self.step}: {shown}")
        return {evaluation.rating: found.rating} | {
            name: found.values[name] for name in evaluation.bests
        }

    @staticmethod
    def _ratings(evaluation: Evaluation | None) -> tuple[str, ...]:
        """Names of the values that have a best checkpoint, the stage's own first."""
        return (evaluation.rating, *evaluation.bests) if evaluation else ()

    def interrupt(self, number: int) -> NoReturn:
        """End the run for a signal, once the checkpoint is on disk."""
        self._checkpoints.wait()
        logs.say(
            f"{self._path.name}: {signal.Signals(number).name} received, saved after "
            f"step {self.step}; the same command goes on from here"
        )
        raise Interrupted(128 + number)

    def ends_early(self) -> bool:
        """Whether too many evaluations brought nothing better; print it if so."""
        if not (self._memory.ended and self._evaluation):
            return False
        logs.say(
            f"{self._path.name}: ends after step {self.step}, no better "
            f"{self._evaluation.rating} in {self._memory.since_best} evaluations"
        )
        return True

    def finish(self) -> dict[str, int | None]:
        """Return rating -> step of its best checkpoint, once all are on disk."""
        self._checkpoints.wait()
        names = self._ratings(self._evaluation)
        return {name: self._checkpoints.best(name) for name in names}

    def outcome(self, bests: Mapping[str, int | None]) -> dict[str, Any]:
        """Return the stage's outcome, as JSON."""
        steps = list(bests.values())
        return {
            "steps": self.step,
            "best_step": steps[0] if steps else None,
            **({"best_steps": dict(bests)} if len(steps) > 1 else {}),
            "best": self._memory.best,
            "seconds": round(self._memory.seconds, 2),
            **self._tracker.verdict(),
        }

    def disk_full(self) -> DiskFullError:
        """Return the error of a full disk: what is saved, and what to do."""
        self._is_full = True
        saved = self._checkpoints.whole()
        there = (
            "nothing is saved yet"
            if saved is None
            else f"the checkpoint of step {saved} is saved"
        )
        return DiskFullError(
            f"{self._path.name}: no space left for {self._path} after step "
            f"{self.step}; {there}. Make room, and the same command goes on from there"
        )

    def close_bar(self) -> None:
        """Give the terminal back."""
        self._logger.close_bar()

    def close(self) -> None:
        """Close the bar and the files."""
        try:
            self._logger.close()
            self._checkpoints.close()
        except Exception as error:
            # Said already, if it is why the loop ends.
            if not (self._is_full and is_disk_full(error)):
                raise


class MetricsTracker:
    """Metrics of finished updates: averages, lines, warnings."""

    def __init__(
        self,
        logger: logs.Logger,
        memory: Memory,
        *,
        every: int,
        batch: int,
        total: int,
        is_collapsed: Callable[..., tuple[bool, str]],
        saved: Callable[[], int | None] = lambda: None,
    ):
        """Continue from the memory.

        Args:
            logger: gets the lines.
            memory: kept up to date.
            every: updates between lines.
            batch: examples per update.
            total: updates of the stage.
            is_collapsed: panel of an arm -> whether it shows collapse, and the reason.
            saved: returns the step of the last checkpoint, None without one.
        """
        self._logger, self._memory, self._saved = logger, memory, saved
        self._is_collapsed = is_collapsed
        self._every, self._batch, self._total = every, batch, total
        self._averages = logs.Averages(memory.averages)

    def take(self, step: int, values: Any) -> None:
        """Add the metrics of the chunk that ended at `step`: scalars, or [steps] each.

        Raises:
            NonFiniteLossError: naming the step.
        """
        fetched = {k: np.atleast_1d(v) for k, v in jax.device_get(values).items()}
        count = len(fetched["loss"])
        for i in range(count):
            at = step - count + 1 + i
            row = {name: float(column[i]) for name, column in fetched.items()}
            if not math.isfinite(row["loss"]):
                saved = self._saved()
                there = (
                    "no checkpoint was saved before"
                    if saved is None
                    else f"the checkpoint of step {saved} was saved before"
                )
                raise NonFiniteLossError(
                    f"the loss is {row['loss']} at step {at}; {there}. A lower "
                    "learning rate, a longer warm-up or clipping "
                    "(optimizer.groups.*.clip) are what helps most"
                )
            self._averages.add(row)
            if at % self._every == 0 or at == self._total:
                self._report(at)
        self._logger.advance(step, self._batch, float(fetched["loss"][-1]))
        self._memory.averages = self._averages.state()

    def _report(self, step: int) -> None:
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
        """Return the last panel and whether it shows a collapse; {} without one."""
        if not self._memory.panel:
            return {}
        reasons = self._reasons()
        return {
            "panel": self._memory.panel,
            "collapsed": bool(reasons),
            "why_collapsed": reasons,
        }
