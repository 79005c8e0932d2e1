"""A window of a run: some of its steps in the profiler, the others as ever.

The run computes what it would have computed. Its step is compiled anew, so that its
operations know their modules, and the window ends with a wait for the device.

The time of a step is that in which a call was under way. What a run does between two
calls, when the device is done (it waits for data, evaluates, saves), is told apart.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memejax import logs
from memejax.profile import devices, files, runner, trace
from memejax.profile.stopwatch import Stopwatch


class Recorder:
    """Calls a step, and traces the calls of a window.

    Attributes:
        window: what it showed, None before its end.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        folder: str | os.PathLike[str],
        *,
        start: int,
        steps: int,
        dtype: str,
        title: str,
    ):
        """Takes what `measure` takes.

        Args:
            step: `(state, chunk) -> (state, metrics)`, not called before.
            folder: gets the trace, `plugins/profile/...`, and profile.md, .csv, .json.
            start: steps done before the window, at least 1: the first call's time is
                not that of a run.
            steps: in the window, at least 1; rounded up to whole chunks. Fewer if a
                chunk of another shape than the first one's comes: it ends the window.
            dtype: of the step's products.
            title: of the tables.

        Raises:
            ValueError: for a number out of its range.
        """
        if start < 1 or steps < 1:
            raise ValueError(
                f"got profile.start={start} and profile.steps={steps}, expected at "
                "least 1 each"
            )
        self._step, self._folder = step, pathlib.Path(folder)
        self._start, self._steps = start, steps
        self._dtype, self._title = dtype, title
        self._prepared: runner.Prepared | None = None
        self._shapes: Any = None
        self._stopwatch: Stopwatch | None = None
        self._calls = self._many = 0
        # Steps before the last call, and after it.
        self._last = self._done = 0
        self._annotation = contextlib.ExitStack()
        self.window: runner.Window | None = None

    def of(self, step: int, count: int) -> Callable[..., Any]:
        """The step, for the call after `step` steps, which does `count` of them."""
        return functools.partial(self._call, step=step, count=count)

    def _call(self, state: Any, chunk: Any, *, step: int, count: int) -> Any:
        # Of a run that was resumed past its window, the first call is cold too.
        warm = self._prepared is not None
        if self._prepared is None:
            self._prepared = runner.prepare(self._step, state, chunk)
            self._shapes, self._many = _shapes(chunk), count
        self._last, self._done = step, step + count
        if _shapes(chunk) != self._shapes:
            # A shorter stretch of the plan, as before an evaluation. Its program may
            # have the name of the window's, and in the trace pass for it.
            if self._stopwatch is not None:
                self._say(f"ends before a chunk of another shape, {self._progress()}")
                self._end(self._prepared, self._stopwatch, state)
            return self._step(state, chunk)
        waits = self.window is None and self._stopwatch is None
        if waits and warm and step >= self._start:
            jax.block_until_ready(state)
            trace.start(self._folder)
            self._stopwatch = Stopwatch()
        if self._stopwatch is None:
            return self._prepared.compiled(state, chunk)
        self._annotate(step)
        out = self._timed(self._prepared, self._stopwatch, state, chunk)
        if self._calls * self._many >= self._steps:
            self._end(self._prepared, self._stopwatch, out)
        return out

    def close(self) -> None:
        """Ends a window that is still open; says so if nothing was written."""
        if self._stopwatch is not None:
            self._stop(self._stopwatch, wait=False)
            self._say(
                f"is still open after {self._done} steps, {self._progress()}: no table "
                "is written of it"
            )
        elif self.window is None:
            why = (
                f"the last call began after step {self._last}"
                if self._last < self._start
                else "none so late, but for the first call, had its chunk's shape"
            )
            self._say(f"was never opened: there were {self._done} steps, and {why}")

    def _say(self, what: str) -> None:
        logs.say(f"{self._title}: the window of profile.start={self._start} {what}")

    def _progress(self) -> str:
        traced = self._calls * self._many
        return f"{traced} of profile.steps={self._steps} traced"

    def _timed(
        self, prepared: runner.Prepared, stopwatch: Stopwatch, state: Any, chunk: Any
    ) -> Any:
        """A call in the window."""
        began = time.perf_counter()
        state, metrics = prepared.compiled(state, chunk)
        if not jax.tree.leaves(metrics):
            # The next call may write over the state: later nothing tells its end.
            jax.block_until_ready(state)
        stopwatch.add(began, metrics)
        self._calls += 1
        return state, metrics

    def _annotate(self, step: int) -> None:
        """Says in the trace that a step begins, and that the one before ends.

        From call to call: a call itself returns before the device is done.
        """
        self._annotation.close()
        self._annotation.enter_context(
            jax.profiler.StepTraceAnnotation("step", step_num=step)
        )

    def _stop(self, stopwatch: Stopwatch, *, wait: bool) -> None:
        """Ends the trace and the watch."""
        self._annotation.close()
        trace.stop()
        stopwatch.stop(wait=wait)
        self._stopwatch = None

    def _end(self, prepared: runner.Prepared, stopwatch: Stopwatch, out: Any) -> None:
        """Ends the window after the call that made `out`, and writes its tables."""
        jax.block_until_ready(out)
        self._stop(stopwatch, wait=True)
        done = self._calls * self._many
        seconds = stopwatch.under_way / done
        self.window = prepared.window(
            self._folder, calls=self._calls, steps=self._many, seconds=seconds
        )
        found = runner.Profile(
            counted=prepared.counted,
            steps=self._many,
            trace_seconds=prepared.trace_seconds,
            compile_seconds=prepared.compile_seconds,
            cold=None,
            warm=self.window,
            seconds=seconds,
            wait=None,
            between=stopwatch.between / done,
            peak=runner.peak(prepared.devices, dtype=self._dtype),
            dtype=self._dtype,
            devices=len(prepared.devices),
            local_devices=len(devices.local(prepared.devices)),
            memory=prepared.memory(),
        )
        files.write(found, self._folder, title=self._title, facts={})


def _shapes(chunk: Any) -> Any:
    """What a compiled step asks of a chunk."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), chunk)
