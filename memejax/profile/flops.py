"""FLOPs and bytes of a function, counted without computing anything.

`count` walks the jaxpr: the program as it is written, less what no result needs, and
before XLA fuses the rest. So FLOPs are of the method and not of a compiler, and bytes
are an upper bound: every operation reads and writes memory. rules.py says what an
operation costs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from memejax.profile import rules, scopes

# Their jaxprs are one block's or one step's of a program of their own.
_CLOSED_BOXES = frozenset(
    {"pallas_call", "custom_linear_solve", "custom_root", "io_callback"}
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """All that one module does with one primitive.

    Attributes:
        primitive: name in the jaxpr.
        module: path of the module, "" outside of all.
        kind: class, one of CLASSES.
        calls: how often.
        flops: of all calls.
        bytes_in: of the operands of all calls.
        bytes_out: of the results.
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
    """Sums over some operations; attributes as those of an Operation."""

    calls: int
    flops: int
    bytes_in: int
    bytes_out: int


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a function does.

    Attributes:
        operations: sorted by FLOPs, the most first.
        loops: places of while loops, whose bodies are counted once; how often they run
            is not known before they do. A `scan` is counted as often as it runs.
        uncounted: primitive -> calls, of those whose FLOPs no rule says (the linear
            algebra of LAPACK, kernels); they add 0.
    """

    operations: tuple[Operation, ...]
    loops: tuple[str, ...]
    uncounted: Mapping[str, int]

    @property
    def flops(self) -> int:
        """FLOPs of everything."""
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
            depth: so many names of a path count; None takes all of them.
        """
        return self._by(lambda o: "/".join(o.module.split("/")[:depth]))

    def _by(self, name: Callable[[Operation], str]) -> dict[str, Totals]:
        groups: dict[str, list[Operation]] = {}
        for operation in self.operations:
            groups.setdefault(name(operation), []).append(operation)
        totals = {group: _total(operations) for group, operations in groups.items()}
        return dict(sorted(totals.items(), key=lambda item: -item[1].flops))


def count(fn: Callable[..., Any], *args: Any, platform: str | None = None) -> Counted:
    """FLOPs and bytes of `fn(*args)`; nothing is computed.

    Paths and classes of modules are those of Flax Linen modules that `fn` calls. If
    `fn` is compiled and was called with these shapes before, they are missing, and
    convolutions that are written as products count as products.

    Args:
        fn: function that jax can trace.
        args: trees of arrays, or of `jax.ShapeDtypeStruct`.
        platform: "cpu", "cuda", ...; whose branch of `lax.platform_dependent` counts.
            The default backend if None.

    Returns:
        Counted.

    Example:
        >>> x = jax.ShapeDtypeStruct((8, 8), "float32")
        >>> count(lambda x: x @ x, x).flops
        1024
    """
    with scopes.marked():
        jaxpr = jax.make_jaxpr(fn)(*args)
    return count_jaxpr(jaxpr, platform=platform)


def count_jaxpr(jaxpr: ClosedJaxpr, *, platform: str | None = None) -> Counted:
    """FLOPs and bytes of a jaxpr, as `count` counts them.

    Args:
        jaxpr: of `jax.make_jaxpr`, or of `jax.jit(fn).trace(...)`; traced under
            `scopes.marked()`, it carries the classes of modules.
        platform: as of `count`.
    """
    tally = _Tally(platform or jax.default_backend())
    tally.follow(jaxpr.jaxpr, stack="", times=1)
    operations = (
        Operation(*key, *(int(n) for n in sums)) for key, sums in tally.sums.items()
    )
    return Counted(
        tuple(sorted(operations, key=lambda o: (-o.flops, o.module, o.primitive))),
        tuple(dict.fromkeys(tally.loops)),
        tally.uncounted,
    )


class _Tally:
    """Adds up the equations of a jaxpr and of those inside it."""

    def __init__(self, platform: str):
        self._platform = platform
        self.sums: dict[tuple[str, str, str], list[int]] = {}
        self.loops: list[str] = []
        self.uncounted: dict[str, int] = {}

    def follow(
        self,
        jaxpr: Jaxpr,
        *,
        stack: str,
        times: int,
        used: Sequence[bool] | None = None,
    ) -> None:
        """Adds a jaxpr that stands at `stack` and runs so many times.

        Of its results only those `used` are needed; all if None.
        """
        for eqn, read in _needed(jaxpr, used):
            here = f"{stack}/{eqn.source_info.name_stack}"
            name = eqn.primitive.name
            inner = [] if name in _CLOSED_BOXES else list(_jaxprs(eqn.params))
            if name == "cond":
                self._largest(eqn, here, times)
            elif rules.kind(name, module="") != "other" or not inner:
                self._add(eqn, here, times)
            else:
                if name == "while":
                    self.loops.append(scopes.place(here).path or "(no module)")
                # A loop's results are also what its next turn starts from.
                one = len(inner) == 1 and name != "scan"
                for body in inner:
                    self.follow(
                        body,
                        stack=here,
                        times=times * _repeats(eqn),
                        used=read if one else None,
                    )

    def _largest(self, eqn: Any, stack: str, times: int) -> None:
        """Adds the branch of the platform, or the one with the most FLOPs."""
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
            tally.follow(branch.jaxpr, stack=stack, times=times)
        self._merge(max(tallies, key=_Tally.weight))

    def weight(self) -> tuple[int, int]:
        """FLOPs, and bytes of what has none."""
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
        name, where = eqn.primitive.name, scopes.place(stack)
        flops = rules.flops(eqn)
        if flops is None:
            self.uncounted[name] = self.uncounted.get(name, 0) + times
        key = (name, where.path, rules.kind(name, module=where.module))
        sums = self.sums.setdefault(key, [0, 0, 0, 0])
        more = (1, flops or 0, *rules.moved(eqn))
        sums[:] = [a + times * b for a, b in zip(sums, more, strict=True)]


def _needed(jaxpr: Jaxpr, used: Sequence[bool] | None) -> list[tuple[Any, list[bool]]]:
    """The equations that a result needs, and which of their own results are read.

    A gradient rule gives the gradients of all its arguments, read or not.
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
    """The jaxprs among an equation's parameters, in order."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _repeats(eqn: Any) -> int:
    """How often the jaxprs of an equation run."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        # The shapes inside are one device's.
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
