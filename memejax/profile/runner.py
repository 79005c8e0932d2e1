"""Profiling a step: count it, compile it, and trace it cold and warm.

Cold is the first call of the compiled step, without compilation: memory is touched for
the first time and libraries choose their algorithms. The first call is not typical of
a run, which consists of warm ones.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from memejax.profile import devices as machine
from memejax.profile import flops, hlo, scopes, table, trace

# Side of the matrices whose product measures the peak: large enough for the full rate,
# and done in a fraction of a second.
_SIDE = {"cpu": 1024}
_LARGE_SIDE = 8192
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Window:
    """A traced window; all figures of rows are per step.

    Attributes:
        rows: every primitive of every module.
        steps: number of traced steps.
        seconds: wall time per step.
        idle: share of the window in which no operation ran on any thread or stream.
        others: seconds per step of other programs, for example an evaluation between
            two calls, summed like the rows' times; in no row.
    """

    rows: Sequence[table.Row]
    steps: int
    seconds: float
    idle: float
    others: float


@dataclasses.dataclass(frozen=True)
class Profile:
    """A profiled step.

    Attributes:
        counted: counted operations of one call.
        steps: steps per call.
        trace_seconds: seconds of tracing and lowering.
        compile_seconds: seconds of compiling, without any cache.
        cold: the first call; None if it was not traced.
        warm: the steps traced after the warm-up.
        seconds: wall time of a warm step; without the profiler if `wait` is not None.
        wait: part of it in which the host waited for data; None if not measured.
        between: seconds per step in which no call was in progress, not included in
            `seconds`: waiting for data, evaluations, checkpoints; None if the time
            between calls is included in `seconds`.
        peak: measured FLOP/s of a large product on all devices together.
        dtype: dtype of that product's factors.
        devices: number of devices that the step runs on.
        local_devices: number of those in this process, the traced ones.
        memory: name -> bytes.
    """

    counted: flops.Counted
    steps: int
    trace_seconds: float
    compile_seconds: float
    cold: Window | None
    warm: Window
    seconds: float
    wait: float | None
    between: float | None
    peak: float
    dtype: str
    devices: int
    local_devices: int
    memory: dict[str, int]


def measure(
    step: Callable[..., Any],
    state: Any,
    *,
    chunks: Iterable[tuple[int, Any]],
    folder: str | os.PathLike[str],
    steps: int = 5,
    warmup: int = 2,
    dtype: str = "float32",
) -> Profile:
    """Profile `step(state, chunk) -> (state, metrics)`.

    Args:
        step: a function to compile, or one compiled by `jax.jit` and not called with
            these shapes before, so that its operations carry their modules' names.
        state: donated if the compiled step donates it.
        chunks: pairs (number of steps, chunk), all of the same shapes; 1 + warmup +
            2 * steps of them are used.
        folder: output folder of the traces, `cold/plugins/...` and `warm/plugins/...`.
        steps: number of calls in the window.
        warmup: number of calls between the cold one and the window.
        dtype: dtype of the product that measures the peak.

    Returns:
        The profile.

    Raises:
        ValueError: if steps is less than 1 or warmup less than 0, or if there are too
            few chunks.
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"got steps={steps}, warmup={warmup}, expected >= 1 and >= 0")
    folder, source = pathlib.Path(folder), iter(chunks)
    steps_per_call, first = _next(source)
    prepared = prepare(step, state, first)
    devices = prepared.devices
    runner = _Runner(prepared, steps_per_call, state, source)
    cold = runner.traced(folder / "cold", [first])
    runner.timed(warmup)
    seconds, wait = runner.timed(steps)
    warm = runner.traced(folder / "warm", None, calls=steps)
    return Profile(
        counted=prepared.counted,
        steps=steps_per_call,
        trace_seconds=prepared.trace_seconds,
        compile_seconds=prepared.compile_seconds,
        cold=cold,
        warm=warm,
        seconds=seconds,
        wait=wait,
        between=None,
        peak=peak(devices, dtype=dtype),
        dtype=dtype,
        devices=len(devices),
        local_devices=len(machine.local(devices)),
        memory=prepared.memory(),
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled and counted step, with the modules of its operations.

    Attributes:
        compiled: `(state, chunk) -> (state, metrics)`.
        counted: counted operations of one call.
        devices: devices that it runs on.
        trace_seconds: seconds of tracing and lowering.
        compile_seconds: seconds of compiling, without any cache.
        program: name in the profiler.
        operations: name -> source, of the operations of the compiled program.
    """

    compiled: Any
    counted: flops.Counted
    devices: Sequence[Any]
    trace_seconds: float
    compile_seconds: float
    program: str
    operations: Mapping[str, hlo.Source]

    def window(
        self,
        folder: str | os.PathLike[str],
        *,
        calls: int,
        steps: int,
        seconds: float,
    ) -> Window:
        """Read the last trace in a folder as a window of this step.

        Args:
            folder: the folder passed to `trace.start`.
            calls: number of calls of the step in the trace.
            steps: steps per call.
            seconds: wall time per step.
        """
        times = trace.read(trace.newest(folder))
        rows = table.join(
            self.counted,
            times,
            self.operations,
            program=self.program,
            calls=calls,
            steps=steps,
        )
        idle = times.idle / times.seconds if times.seconds else 1.0
        others = sum(
            busy.seconds
            for (owner, _), busy in times.operations.items()
            if owner not in ("", self.program)
        )
        done = calls * steps
        return Window(rows, done, seconds, idle, others / done)

    def memory(self) -> dict[str, int]:
        """Name -> bytes: memory of the step per device, and peak memory in use."""
        return machine.memory(self.compiled, self.devices)


def prepare(step: Callable[..., Any], state: Any, chunk: Any) -> Prepared:
    """Compile a step and count its operations.

    Args:
        step: as in `measure`.
        state: arrays of the shapes and shardings of later calls; not donated.
        chunk: likewise.
    """
    devices = machine.devices_of(state)
    began = time.perf_counter()
    with scopes.marked():
        traced = (step if hasattr(step, "trace") else jax.jit(step)).trace(state, chunk)
        lowered = traced.lower()
    ready = time.perf_counter()
    compiled = _compile(lowered)
    compiling = time.perf_counter() - ready
    text = compiled.as_text()
    return Prepared(
        compiled=compiled,
        counted=flops.count_jaxpr(traced.jaxpr, platform=machine.platform(devices[0])),
        devices=devices,
        trace_seconds=ready - began,
        compile_seconds=compiling,
        program=hlo.program_name(text),
        operations=hlo.sources(text),
    )


def peak(devices: Sequence[Any], *, dtype: str) -> float:
    """FLOP/s of a large matrix product, the best of five, on all devices at once.

    In the default precision of `dtype` (TF32 for float32 on some GPUs), with a float32
    result, like the products of the layers here.

    Args:
        devices: devices of one kind; those of other processes are assumed to be
            equally fast.
        dtype: "float32", "bfloat16", ...
    """
    side = _SIDE.get(devices[0].platform, _LARGE_SIDE)

    @jax.jit
    def product(x: jax.Array) -> jax.Array:
        return jnp.matmul(x, x, preferred_element_type=jnp.float32)

    factors = [
        jax.device_put(jnp.ones((side, side), dtype), d) for d in machine.local(devices)
    ]
    jax.block_until_ready([product(x) for x in factors])
    times = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        jax.block_until_ready([product(x) for x in factors])
        times.append(time.perf_counter() - began)
    return len(devices) * 2 * side**3 / min(times)


class _Runner:
    """A compiled step, with its state passed from call to call."""

    def __init__(self, prepared, steps_per_call, state, source):
        self._prepared, self._steps_per_call = prepared, steps_per_call
        self._state, self._source = state, source

    def timed(
        self, calls: int, given: Sequence[Any] | None = None
    ) -> tuple[float, float]:
        """Return seconds per step, and the part spent waiting for data."""
        if not calls:
            return 0.0, 0.0
        wait, began = 0.0, time.perf_counter()
        for i in range(calls):
            before = time.perf_counter()
            chunk = given[i] if given else _next(self._source, self._steps_per_call)[1]
            wait += time.perf_counter() - before
            with jax.profiler.StepTraceAnnotation("step", step_num=i):
                self._state, values = self._prepared.compiled(self._state, chunk)
        jax.block_until_ready((self._state, values))
        total, steps = time.perf_counter() - began, calls * self._steps_per_call
        return total / steps, wait / steps

    def traced(
        self, folder: pathlib.Path, given: Sequence[Any] | None, *, calls: int = 1
    ) -> Window:
        """Time calls in the profiler."""
        with trace.window(folder):
            seconds, _ = self.timed(calls, given)
        return self._prepared.window(
            folder, calls=calls, steps=self._steps_per_call, seconds=seconds
        )


def _next(source: Iterator[tuple[int, Any]], steps: int | None = None) -> tuple:
    """Return the next chunk, the next one with `steps` steps if given."""
    for count, chunk in source:
        if steps is None or count == steps:
            return count, chunk
    raise ValueError("too few chunks, expected 1 + warmup + 2 * steps of one shape")


def _compile(lowered: Any) -> Any:
    """Compile anew: a cached program has the names of whatever run compiled it."""
    before = jax.config.jax_compilation_cache_include_metadata_in_key
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    try:
        return lowered.compile()
    finally:
        jax.config.update("jax_compilation_cache_include_metadata_in_key", before)
