"""Profiles a step: counts it, compiles it, and traces it cold and warm.

Cold is the first call of the compiled step, compilation apart: memory is touched for
the first time and libraries choose their algorithms. What one call of an unready
program takes says little of a run; warm is what a run is made of.
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

# Side of the product that the peak is measured with: large enough to be at its
# fastest, and done in a fraction of a second.
_SIDE = {"cpu": 1024}
_LARGE_SIDE = 8192
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Window:
    """What a traced stretch shows; all figures of rows are a step's.

    Attributes:
        rows: every primitive of every module.
        steps: traced.
        seconds: by the host's clock, a step.
        idle: share of the window in which no operation ran on any thread or stream.
        others: seconds a step of other programs, as of an evaluation between two calls,
            summed as the rows' are; in no row.
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
        counted: of one call.
        steps: steps that one call does.
        trace_seconds: of tracing and lowering.
        compile_seconds: of compiling, without any cache.
        cold: the first call; None where it was not traced.
        warm: the steps traced after the warm-up.
        seconds: a warm step by the host's clock; without the profiler, if `wait` is not
            None.
        wait: part of it in which the host waited for data; None where it was not
            measured apart.
        between: seconds a step in which no call was under way, none of them in
            `seconds`: data waited for, evaluations, checkpoints; None where what lies
            between the calls is in `seconds`.
        peak: measured FLOP/s of a large product on all devices together.
        dtype: of that product's factors.
        devices: that the step runs on.
        local_devices: those of them of this process, which the traces are of.
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
    """Profiles `step(state, chunk) -> (state, metrics)`.

    Args:
        step: compiled by `jax.jit` and not called with these shapes before, so that its
            operations know their modules; or a function to compile.
        state: given up to a step that is compiled so.
        chunks: (steps in it, chunk), all of the same shapes; 1 + warmup + 2 * steps are
            taken.
        folder: gets the traces, `cold/plugins/...` and `warm/plugins/...`.
        steps: calls in the window.
        warmup: calls between the cold one and the window.
        dtype: of the product that the peak is measured with.

    Returns:
        Profile.

    Raises:
        ValueError: for a number of calls less than 1 (warmup: 0), or too few chunks.
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"got steps={steps}, warmup={warmup}, expected >= 1 and >= 0")
    folder, source = pathlib.Path(folder), iter(chunks)
    many, first = _next(source)
    prepared = prepare(step, state, first)
    devices = prepared.devices
    runner = _Runner(prepared, many, state, source)
    cold = runner.traced(folder / "cold", [first])
    runner.timed(warmup)
    seconds, wait = runner.timed(steps)
    warm = runner.traced(folder / "warm", None, calls=steps)
    return Profile(
        counted=prepared.counted,
        steps=many,
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
    """A step that is compiled, counted, and whose operations know their modules.

    Attributes:
        compiled: `(state, chunk) -> (state, metrics)`.
        counted: of one call.
        devices: that it runs on.
        trace_seconds: of tracing and lowering.
        compile_seconds: of compiling, without any cache.
        program: its name in the profiler.
        operations: of the compiled program.
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
        """What the last trace in a folder says of this step.

        Args:
            folder: as `trace.start` was given it.
            calls: of the step in it.
            steps: that one call does.
            seconds: a step, by the host's clock.
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
        """Name -> bytes: the step's on a device, and what was in use at most."""
        return machine.memory(self.compiled, self.devices)


def prepare(step: Callable[..., Any], state: Any, chunk: Any) -> Prepared:
    """Compiles a step, and counts it; `measure` says what may be a step.

    Args:
        step: compiled by `jax.jit` and not called with these shapes before.
        state: arrays as it will be called with; they are not used up.
        chunk: the same.
    """
    devices = machine.of(state)
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

    In the precision that `dtype` has by default (TF32 for float32 on some GPUs), with
    a float32 result, as the layers here multiply.

    Args:
        devices: of one kind; of those of other processes the rate is taken for equal.
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
    """Calls the compiled step, its state going from call to call."""

    def __init__(self, prepared, many, state, source):
        self._prepared, self._many = prepared, many
        self._state, self._source = state, source

    def timed(
        self, calls: int, given: Sequence[Any] | None = None
    ) -> tuple[float, float]:
        """Seconds a step, and those of them that the data took to come."""
        if not calls:
            return 0.0, 0.0
        wait, began = 0.0, time.perf_counter()
        for i in range(calls):
            asked = time.perf_counter()
            chunk = given[i] if given else _next(self._source, self._many)[1]
            wait += time.perf_counter() - asked
            with jax.profiler.StepTraceAnnotation("step", step_num=i):
                self._state, values = self._prepared.compiled(self._state, chunk)
        jax.block_until_ready((self._state, values))
        total = time.perf_counter() - began
        return total / (calls * self._many), wait / (calls * self._many)

    def traced(
        self, folder: pathlib.Path, given: Sequence[Any] | None, *, calls: int = 1
    ) -> Window:
        """The same in the profiler."""
        with trace.window(folder):
            seconds, _ = self.timed(calls, given)
        return self._prepared.window(
            folder, calls=calls, steps=self._many, seconds=seconds
        )


def _next(source: Iterator[tuple[int, Any]], many: int | None = None) -> tuple:
    """The next chunk, of as many steps as the first."""
    for count, chunk in source:
        if many is None or count == many:
            return count, chunk
    raise ValueError("too few chunks, expected 1 + warmup + 2 * steps of one shape")


def _compile(lowered: Any) -> Any:
    """Compiles anew: a kept program has the names of who compiled it."""
    before = jax.config.jax_compilation_cache_include_metadata_in_key
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    try:
        return lowered.compile()
    finally:
        jax.config.update("jax_compilation_cache_include_metadata_in_key", before)
