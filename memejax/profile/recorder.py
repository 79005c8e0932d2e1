"""Recording a window of a run: some of its steps run in the profiler.

The run's results do not change. Its step is compiled anew, so that its operations
carry the names of their modules, and the window ends with a wait for the device.

The time of a step is the time in which a call was in progress. The time between two
calls, when the device is idle (the run waits for data, evaluates, saves), is separate.
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
    """A step whose calls in a window are traced.

    Attributes:
        window: the measured window, None before its end.
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
        """Set up the recorder.

        Args:
            step: `(state, chunk) -> (state, metrics)`, not called before.
            folder: output folder of the trace, `plugins/profile/...`, and profile.md,
                .csv and .json.
            start: number of steps before the window, at least 1: the first call is not
                typical of a run.
            steps: number of steps in the window, at least 1; rounded up to whole
                chunks. A chunk whose shape differs from the first ends the window.
            dtype: dtype of the step's products.
            title: title of the tables.

        Raises:
            ValueError: if start or steps is less than 1.
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
        self._calls = self._steps_per_call = 0
        # Steps before the last call, and after it.
        self._last = self._done = 0
        self._annotation = contextlib.ExitStack()
        self.window: runner.Window | None = None

    def of(self, step: int, count: int) -> Callable[..., Any]:
        """Return the step to call after `step` steps, which takes `count` steps."""
        return functools.partial(self._call, step=step, count=count)

    def _call(self, state: Any, chunk: Any, *, step: int, count: int) -> Any:
        # In a run that was resumed past the start, the first call is cold too.
        warm = self._prepared is not None
        if self._prepared is None:
            self._prepared = runner.prepare(self._step, state, chunk)
            self._shapes, self._steps_per_call = _shapes(chunk), count
        self._last, self._done = step, step + count
        if _shapes(chunk) != self._shapes:
            # A shorter part of the plan, as before an evaluation. Its program may have
            # the name of the window's, and be mistaken for it in the trace.
            if self._stopwatch is not None:
                self._say(f"ends before a chunk of another shape, {self._progress()}")
                self._end(self._prepared, self._stopwatch, state)
            return self._step(state, chunk)
        pending = self.window is None and self._stopwatch is None
        if pending and warm and step >= self._start:
            jax.block_until_ready(state)
            trace.start(self._folder)
            self._stopwatch = Stopwatch()
        if self._stopwatch is None:
            return self._prepared.compiled(state, chunk)
        self._annotate(step)
        out = self._timed(self._prepared, self._stopwatch, state, chunk)
        if self._calls * self._steps_per_call >= self._steps:
            self._end(self._prepared, self._stopwatch, out)
        return out

    def close(self) -> None:
        """End a window that is still open; log if no table was written."""
        if self._stopwatch is not None:
            self._stop(self._stopwatch, wait=False)
            self._say(
                f"is still open after {self._done} steps, {self._progress()}: no table "
                "is written"
            )
        elif self.window is None:
            why = (
                f"the last call began after step {self._last}"
                if self._last < self._start
                else "no later call had the chunk shape of the first"
            )
            self._say(f"was never opened: there were {self._done} steps, and {why}")

    def _say(self, message: str) -> None:
        logs.say(f"{self._title}: the window of profile.start={self._start} {message}")

    def _progress(self) -> str:
        traced = self._calls * self._steps_per_call
        return f"{traced} of profile.steps={self._steps} traced"

    def _timed(
        self, prepared: runner.Prepared, stopwatch: Stopwatch, state: Any, chunk: Any
    ) -> Any:
        """Call the step in the window."""
        began = time.perf_counter()
        state, metrics = prepared.compiled(state, chunk)
        if not jax.tree.leaves(metrics):
            # The next call may donate the state, which then cannot be waited for.
            jax.block_until_ready(state)
        stopwatch.add(began, metrics)
        self._calls += 1
        return state, metrics

    def _annotate(self, step: int) -> None:
        """Mark in the trace the start of a step and the end of the one before.

        A step lasts until the next call: a call returns before the device is done.
        """
        self._annotation.close()
        self._annotation.enter_context(
            jax.profiler.StepTraceAnnotation("step", step_num=step)
        )

    def _stop(self, stopwatch: Stopwatch, *, wait: bool) -> None:
        """End the trace and the stopwatch."""
        self._annotation.close()
        trace.stop()
        stopwatch.stop(wait=wait)
        self._stopwatch = None

    def _end(self, prepared: runner.Prepared, stopwatch: Stopwatch, out: Any) -> None:
        """End the window after the call that returned `out`, and write its tables."""
        jax.block_until_ready(out)
        self._stop(stopwatch, wait=True)
        done = self._calls * self._steps_per_call
        seconds = stopwatch.busy / done
        self.window = prepared.window(
            self._folder,
            calls=self._calls,
            steps=self._steps_per_call,
            seconds=seconds,
        )
        found = runner.Profile(
            counted=prepared.counted,
            steps=self._steps_per_call,
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
    """Shapes and dtypes of a chunk, which must match the compiled step's."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), chunk)
