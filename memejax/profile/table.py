"""Times of a compiled program joined with the counts of the program as written.

FLOPs and calls are counted in the traced program, times measured in the compiled one.
In both an operation is identified by primitive, module and class, and joined by these.
The time of a kernel that fuses several operations is attributed to one of them
(hlo.py), while their FLOPs stay with each: a row without a time ran inside other rows'
kernels, or was eliminated by the compiler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from memejax.profile import rules
from memejax.profile.flops import Counted
from memejax.profile.hlo import Source
from memejax.profile.trace import Times

# Time that belongs to no operation of the program, such as transfers.
NOT_ATTRIBUTED = "not attributed"
OUTSIDE = "(no module)"


@dataclasses.dataclass(frozen=True)
class Row:
    """One operation in one module, or the sum of several; all figures per step.

    Attributes:
        primitive: name in the traced program.
        module: path of the module, "" outside of all modules.
        kind: class, one of `rules.CLASSES`, or NOT_ATTRIBUTED.
        calls: calls in the program as written.
        kernels: events of the compiled program.
        seconds: time summed over threads, streams and this process's devices.
        flops: FLOPs in the program as written.
        bytes_in: bytes read, likewise.
        bytes_out: bytes written, likewise.
    """

    primitive: str
    module: str
    kind: str
    calls: float = 0.0
    kernels: float = 0.0
    seconds: float = 0.0
    flops: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


_FIGURES = ("calls", "kernels", "seconds", "flops", "bytes_in", "bytes_out")


def join(
    counted: Counted,
    times: Times,
    sources: Mapping[str, Source],
    *,
    program: str,
    calls: int,
    steps: int,
) -> list[Row]:
    """Return a row for every primitive of every module, the longest first.

    Args:
        counted: counted operations of one call of the program.
        times: times of a window; those of other programs are ignored.
        sources: sources of the operations of the compiled program.
        program: name of the program in the profiler.
        calls: calls of the program in the window.
        steps: steps per call.

    Raises:
        ValueError: if calls or steps is less than 1.
    """
    if calls < 1 or steps < 1:
        raise ValueError(f"got {calls} calls of {steps} steps, expected at least 1")
    rows = [
        Row(
            o.primitive,
            o.module,
            o.kind,
            calls=o.calls / steps,
            flops=o.flops / steps,
            bytes_in=o.bytes_in / steps,
            bytes_out=o.bytes_out / steps,
        )
        for o in counted.operations
    ]
    for (owner, name), busy in times.operations.items():
        if owner not in ("", program):
            continue
        source = sources.get(name) if owner else None
        if source is None:
            source = Source(NOT_ATTRIBUTED, "", NOT_ATTRIBUTED)
        each = 1 / (calls * steps)
        rows.append(
            Row(
                source.primitive,
                source.module,
                source.kind,
                kernels=busy.calls * each,
                seconds=busy.seconds * each,
            )
        )
    return group(rows, lambda row: (row.primitive, row.module, row.kind))


def group(rows: Iterable[Row], key: Callable[[Row], tuple[str, str, str]]) -> list[Row]:
    """Sum rows with the same key (primitive, module, class), the longest first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    summed = [
        Row(*name, **{f: sum(getattr(row, f) for row in same) for f in _FIGURES})
        for name, same in groups.items()
    ]
    return sorted(summed, key=lambda row: (-row.seconds, -row.flops, row.module))


def by_class(rows: Sequence[Row]) -> list[Row]:
    """One row per class, in the order of `rules.CLASSES`, NOT_ATTRIBUTED last."""
    order = (*rules.CLASSES, NOT_ATTRIBUTED)
    found = group(rows, lambda row: ("", "", row.kind))
    return sorted(found, key=lambda row: order.index(row.kind))


def by_operation(rows: Sequence[Row]) -> list[Row]:
    """One row per primitive and class, over all modules."""
    return group(rows, lambda row: (row.primitive, "", row.kind))


def by_module(rows: Sequence[Row], *, most: int = 40) -> list[Row]:
    """One row per module, as deep into the modules as `most` rows allow."""
    deepest = max((row.module.count("/") + 1 for row in rows), default=1)
    found: list[Row] = []
    for depth in range(1, deepest + 1):
        deeper = group(rows, lambda row, depth=depth: ("", _cut(row, depth), ""))
        if depth > 1 and len(deeper) > most:
            break
        found = deeper
    return found


def _cut(row: Row, depth: int) -> str:
    if row.kind == NOT_ATTRIBUTED:
        return NOT_ATTRIBUTED
    return "/".join(row.module.split("/")[:depth]) or OUTSIDE
