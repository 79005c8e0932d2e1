"""A window of a run: some of its steps in the profiler, the others as ever.

The run computes what it would have computed. Its step is compiled anew, so that its
operations know their modules, and the window ends with a wait for the device.
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

from memejax.profile import files, runner, trace


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
          steps: in the window, at least 1; rounded up to whole chunks.
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
        self._began: float | None = None
        self._calls = self._many = 0
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
        if _shapes(chunk) != self._shapes:
            # A shorter stretch of the plan, as before an evaluation.
            return self._step(state, chunk)
        waits = self.window is None and self._began is None
        if waits and warm and step >= self._start:
            jax.block_until_ready(state)
            trace.start(self._folder)
            self._began = time.perf_counter()
        if self._began is not None:
            self._annotate(step)
        out = self._prepared.compiled(state, chunk)
        if self._began is not None:
            self._calls += 1
            if self._calls * self._many >= self._steps:
                self._end(self._prepared, self._began, out)
        return out

    def close(self) -> None:
        """Ends a window that is still open; nothing is written of it."""
        self._annotation.close()
        if self._began is not None:
            trace.stop()
            self._began = None

    def _annotate(self, step: int) -> None:
        """Says in the trace that a step begins, and that the one before ends.

        From call to call: a call itself returns before the device is done.
        """
        self._annotation.close()
        self._annotation.enter_context(
            jax.profiler.StepTraceAnnotation("step", step_num=step)
        )

    def _end(self, prepared: runner.Prepared, began: float, out: Any) -> None:
        jax.block_until_ready(out)
        seconds = (time.perf_counter() - began) / (self._calls * self._many)
        self.close()
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
            peak=runner.peak(prepared.devices, dtype=self._dtype),
            dtype=self._dtype,
            devices=len(prepared.devices),
            memory=prepared.memory(),
        )
        files.write(found, self._folder, title=self._title, facts={})


def _shapes(chunk: Any) -> Any:
    """What a compiled step asks of a chunk."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), chunk)
