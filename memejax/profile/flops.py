"""FLOPs and bytes of a function, counted without computing it.

`count` walks the jaxpr: the program as written, minus what no result needs, and before
XLA fuses the rest. So FLOPs depend on the method and not on a compiler, and bytes are
an upper bound: every operation reads and writes memory. rules.py defines the cost of
each operation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from memejax.profile import rules, scopes

# Primitives that are not entered: their jaxprs describe one block or one iteration of a
# program of their own.
_OPAQUE = frozenset(
    {"pallas_call", "custom_linear_solve", "custom_root", "io_callback"}
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """All calls of one primitive in one module.

    Attributes:
        primitive: name in the jaxpr.
        module: path of the module, "" outside of all modules.
        kind: class, one of CLASSES.
        calls: number of calls.
        flops: FLOPs of all calls.
        bytes_in: bytes of the operands of all calls.
        bytes_out: bytes of the results of all calls.
    """

    primitive: str
    module: str
    kind: str
    calls: int = 0
    flops: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over several operations; attributes as in `Operation`."""

    calls: int
    flops: int
    bytes_in: int
    bytes_out: int


@dataclasses.dataclass(frozen=True)
class Counted:
    """Counted operations of a function.

    Attributes:
        operations: sorted by FLOPs, the most first.
        loops: modules of while loops, whose bodies are counted once, because the number
            of iterations is unknown. A `scan` is counted as often as it runs.
        uncounted: primitive -> calls, of primitives without a FLOP rule (the linear
            algebra of LAPACK, kernels); they add 0.
    """

    operations: tuple[Operation, ...]
    loops: tuple[str, ...]
    uncounted: Mapping[str, int]

    @property
    def flops(self) -> int:
        """FLOPs of all operations."""
        return sum(o.flops for o in self.operations)

    def by_class(self) -> dict[str, Totals]:
        """Class -> sums, for those of CLASSES that occur."""
        found = self._by(lambda o: o.kind)
        return {kind: found[kind] for kind in rules.CLASSES if kind in found}

    def by_primitive(self) -> dict[str, Totals]:
        """Primitive -> sums, the most FLOPs first."""
        return self._by(lambda o: o.primitive)

    def by_module(self, depth: int | None = None) -> dict[str, Totals]:
        """Module -> sums, the most FLOPs first; every operation is in one module.

        Args:
            depth: number of leading names of a path to group by; all if None.
        """
        return self._by(lambda o: "/".join(o.module.split("/")[:depth]))

    def _by(self, name: Callable[[Operation], str]) -> dict[str, Totals]:
        groups: dict[str, list[Operation]] = {}
        for operation in self.operations:
            groups.setdefault(name(operation), []).append(operation)
        totals = {group: _total(operations) for group, operations in groups.items()}
        return dict(sorted(totals.items(), key=lambda item: -item[1].flops))


def count(fn: Callable[..., Any], *args: Any, platform: str | None = None) -> Counted:
    """Count FLOPs and bytes of `fn(*args)` without computing it.

    Paths and classes of modules are those of Flax Linen modules that `fn` calls. They
    are missing if `fn` is compiled and was called with these shapes before; then
    convolutions written as products count as products.

    Args:
        fn: function that jax can trace.
        args: trees of arrays, or of `jax.ShapeDtypeStruct`.
        platform: "cpu", "cuda", ...: the branch of `lax.platform_dependent` to count.
            The default backend if None.

    Returns:
        The counted operations.

    Example:
        >>> x = jax.ShapeDtypeStruct((8, 8), "float32")
        >>> count(lambda x: x @ x, x).flops
        1024
    """
    with scopes.marked():
        jaxpr = jax.make_jaxpr(fn)(*args)
    return count_jaxpr(jaxpr, platform=platform)


def count_jaxpr(jaxpr: ClosedJaxpr, *, platform: str | None = None) -> Counted:
    """Count FLOPs and bytes of a jaxpr, as in `count`.

    Args:
        jaxpr: from `jax.make_jaxpr`, or `jax.jit(fn).trace(...)`; traced under
            `scopes.marked()`, it contains the classes of modules.
        platform: as in `count`.
    """
    tally = _Tally(platform or jax.default_backend())
    tally.add_jaxpr(jaxpr.jaxpr, stack="", times=1)
    operations = (
        Operation(*key, *(int(n) for n in sums)) for key, sums in tally.sums.items()
    )
    return Counted(
        tuple(sorted(operations, key=lambda o: (-o.flops, o.module, o.primitive))),
        tuple(dict.fromkeys(tally.loops)),
        tally.uncounted,
    )


class _Tally:
    """Sum of the equations of a jaxpr and its inner jaxprs."""

    def __init__(self, platform: str):
        self._platform = platform
        self.sums: dict[tuple[str, str, str], list[int]] = {}
        self.loops: list[str] = []
        self.uncounted: dict[str, int] = {}

    def add_jaxpr(
        self,
        jaxpr: Jaxpr,
        *,
        stack: str,
        times: int,
        used: Sequence[bool] | None = None,
    ) -> None:
        """Add a jaxpr under the name stack `stack` that runs `times` times.

        `used` marks the results that are needed; all if None.
        """
        for eqn, read in _needed(jaxpr, used):
            here = f"{stack}/{eqn.source_info.name_stack}"
            name = eqn.primitive.name
            inner = [] if name in _OPAQUE else list(_jaxprs(eqn.params))
            if name == "cond":
                self._add_largest(eqn, here, times)
            elif rules.kind(name, module="") != "other" or not inner:
                self._add(eqn, here, times)
            else:
                if name == "while":
                    self.loops.append(scopes.place(here).path or "(no module)")
                # A loop's next iteration reads all results of its body.
                prune = len(inner) == 1 and name != "scan"
                for body in inner:
                    self.add_jaxpr(
                        body,
                        stack=here,
                        times=times * _repeats(eqn),
                        used=read if prune else None,
                    )

    def _add_largest(self, eqn: Any, stack: str, times: int) -> None:
        """Add the branch of the platform, or the one with the most FLOPs."""
        branches = eqn.params["branches"]
        platforms = eqn.params.get("branches_platforms")
        if platforms is not None:
            branches = [
                branch
                for branch, names in zip(branches, platforms, strict=True)
                if names is None or self._platform in names
            ][:1]
        tallies = [_Tally(self._platform) for _ in branches]
        for branch, tally in zip(branches, tallies, strict=True):
            tally.add_jaxpr(branch.jaxpr, stack=stack, times=times)
        self._merge(max(tallies, key=_Tally.weight))

    def weight(self) -> tuple[int, int]:
        """FLOPs, then bytes, to compare branches."""
        rows = self.sums.values()
        return sum(r[1] for r in rows), sum(r[2] + r[3] for r in rows)

    def _merge(self, other: _Tally) -> None:
        for key, sums in other.sums.items():
            mine = self.sums.setdefault(key, [0, 0, 0, 0])
            mine[:] = [a + b for a, b in zip(mine, sums, strict=True)]
        self.loops += other.loops
        for name, calls in other.uncounted.items():
            self.uncounted[name] = self.uncounted.get(name, 0) + calls

    def _add(self, eqn: Any, stack: str, times: int) -> None:
        name, place = eqn.primitive.name, scopes.place(stack)
        flops = rules.flops(eqn)
        if flops is None:
            self.uncounted[name] = self.uncounted.get(name, 0) + times
        key = (name, place.path, rules.kind(name, module=place.module))
        sums = self.sums.setdefault(key, [0, 0, 0, 0])
        more = (1, flops or 0, *rules.moved(eqn))
        sums[:] = [a + times * b for a, b in zip(sums, more, strict=True)]


def _needed(jaxpr: Jaxpr, used: Sequence[bool] | None) -> list[tuple[Any, list[bool]]]:
    """Return the equations that the used results need, and which results are read.

    A gradient rule returns the gradients of all its arguments, read or not.
    """
    if used is None or len(used) != len(jaxpr.outvars):
        used = [True] * len(jaxpr.outvars)
    results = zip(jaxpr.outvars, used, strict=True)
    live = {v for v, use in results if use and not isinstance(v, Literal)}
    needed = []
    for eqn in reversed(jaxpr.eqns):
        read = [v in live for v in eqn.outvars]
        if any(read) or eqn.effects:
            needed.append((eqn, read))
            live.update(v for v in eqn.invars if not isinstance(v, Literal))
    return needed[::-1]


def _jaxprs(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """Yield the jaxprs among an equation's parameters, in order."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _repeats(eqn: Any) -> int:
    """Number of times that the jaxprs of an equation run."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        # The shapes inside are per device.
        sizes = eqn.params["mesh"].shape
        return math.prod(sizes[axis] for axis in eqn.params["newly_manual_axes"])
    return 1


def _total(operations: Sequence[Operation]) -> Totals:
    return Totals(
        sum(o.calls for o in operations),
        sum(o.flops for o in operations),
        sum(o.bytes_in for o in operations),
        sum(o.bytes_out for o in operations),
    )
