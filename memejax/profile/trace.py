"""Tracing a window of a run, and reading the time of every operation in it.

    with profile.window(folder):
        ...steps...

writes `folder/plugins/profile/<time>/<host>.xplane.pb`, which TensorBoard shows with
the plugin of `pip install memejax[profile]`. `read` reads the operations' times from
the same file without the plugin.

An operation's time is that of its events on a thread (on a GPU: a stream), minus the
events inside them. On a CPU operations run in parallel on several threads, so a share
is one of the threads' summed time. An operation that helper threads work on has the
time of the thread that called them; time in which no operation has an event (helper
threads still running, a waiting host) is `idle`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

# Lines of a device that repeat, by module or by step, the events of its streams.
_SUMMARIES = frozenset(
    {
        "Steps",
        "XLA Modules",
        "XLA Ops",
        "XLA TraceMe",
        "Framework Ops",
        "Framework Name Scope",
        "Source code",
    }
)


@dataclasses.dataclass(frozen=True)
class Busy:
    """Calls and time of an operation in a window.

    Attributes:
        calls: number of events.
        seconds: their time, without that of the events inside them.
    """

    calls: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Times:
    """Times of the operations in a window.

    Attributes:
        operations: (program, operation) -> calls and time; names as in the compiled
            program, ("", name) for a kernel without an operation of a program.
        seconds: from the start of the first event to the end of the last.
        idle: part of it in which no operation of any thread or stream has an event.
    """

    operations: Mapping[tuple[str, str], Busy]
    seconds: float
    idle: float


def start(folder: str | os.PathLike[str]) -> None:
    """Start a window. Only one at a time: jax has a single profiler.

    Raises:
        RuntimeError: if a window is open already.
    """
    options = jax.profiler.ProfileOptions()
    # Without events of Python calls: they are many, and none is an operation's.
    options.python_tracer_level = 0
    jax.profiler.start_trace(os.fspath(folder), profiler_options=options)


def stop() -> None:
    """End the window and write its file.

    Unfinished computations are cut off: wait for the last result before
    (`jax.block_until_ready`).
    """
    jax.profiler.stop_trace()


@contextlib.contextmanager
def window(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Trace the computations in this context, with `start` and `stop`."""
    start(folder)
    try:
        yield
    finally:
        stop()


def newest(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Return the file of the last window in a folder.

    Raises:
        ValueError: if there is none.
    """
    files = sorted(pathlib.Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise ValueError(f"no trace under {folder}, expected a file of window()")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def read(file: str | os.PathLike[str]) -> Times:
    """Read the operations' times from a window's file.

    Args:
        file: the file, for example `newest(folder)`.

    Returns:
        The times; empty if no operation ran in the window.
    """
    planes = list(jax.profiler.ProfileData.from_file(os.fspath(file)).planes)
    lines = [
        list(_operations(line.events, everything=True))
        for plane in planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name not in _SUMMARIES
    ]
    if not any(lines):
        # If there is a device, the host's events only launch its kernels.
        lines = [
            list(_operations(line.events, everything=False))
            for plane in planes
            if plane.name == "/host:CPU"
            for line in plane.lines
        ]
    calls: dict[tuple[str, str], int] = {}
    seconds: dict[tuple[str, str], float] = {}
    for name, own in (pair for events in lines for pair in _self_times(events)):
        calls[name] = calls.get(name, 0) + 1
        seconds[name] = seconds.get(name, 0.0) + own * 1e-9
    spans = [(begin, end) for events in lines for _, begin, end in events]
    first = min((begin for begin, _ in spans), default=0.0)
    last = max((end for _, end in spans), default=0.0)
    covered = _covered(spans)
    return Times(
        {name: Busy(calls[name], seconds[name]) for name in calls},
        (last - first) * 1e-9,
        (last - first - covered) * 1e-9,
    )


def _operations(
    events: Iterable[Any], *, everything: bool
) -> Iterator[tuple[tuple[str, str], float, float]]:
    """Yield ((program, operation), start, end) in nanoseconds, in order."""
    found = []
    for event in events:
        stats = _stats(event)
        if "hlo_op" in stats:
            name = (str(stats.get("hlo_module", "")), str(stats["hlo_op"]))
        elif everything:
            name = ("", event.name)
        else:
            continue
        found.append((name, event.start_ns, event.start_ns + event.duration_ns))
    # If two start together, the longer one encloses the other.
    yield from sorted(found, key=lambda event: (event[1], -event[2]))


def _stats(event: Any) -> dict[str, Any]:
    """Statistics of an event by name."""
    with warnings.catch_warnings():
        # jaxlib 0.12 on Python 3.13: "builtin type event_stats has no __module__
        # attribute". As an error it would be raised inside the extension, where it
        # aborts the process.
        warnings.simplefilter("ignore", DeprecationWarning)
        return dict(event.stats)


def _self_times(
    events: Iterable[tuple[tuple[str, str], float, float]],
) -> list[tuple[tuple[str, str], float]]:
    """Time of each event without that of the events inside it, on one line."""
    times: list[list[Any]] = []
    around: list[tuple[int, float]] = []
    for i, (name, begin, end) in enumerate(events):
        times.append([name, end - begin])
        while around and around[-1][1] <= begin:
            around.pop()
        if around:
            # Clocks are coarse: an inner event may end slightly after the outer one.
            times[around[-1][0]][1] -= min(end, around[-1][1]) - begin
        around.append((i, end))
    return [(name, max(own, 0.0)) for name, own in times]


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total
