"""Which module an operation belongs to, from the names that tracing leaves.

Flax puts the name of a module (`conv`) into the name stack of what it computes, and
not its class. Traced under `marked()`, the class follows the name:

    jit(step)/transpose(jvp(ResNet))/<ResNet>/stem/<ConvNorm>/conv/<Conv>/dot_general

The same string is an operation's name in a jaxpr and in a compiled program, forward
and backward. What is in no module can be given a name of its own, in small letters:
`jax.named_scope("<optimizer>")`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax

_CLASS = re.compile(r"<(\w+)>")


class Place(NamedTuple):
    """Where an operation stands.

    Attributes:
        path: names of the modules and scopes around it, joined by "/"; "" outside of
            all. The outermost module has its class for a name.
        module: class of the innermost; "" outside of all.
    """

    path: str
    module: str


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """What is traced inside carries the classes of its modules.

    `jax.jit` traces a function once for its shapes: of one that was called before, the
    names stay as they were.
    """
    with nn.intercept_methods(_mark):
        yield


def _mark(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    # Not "@": XLA cuts a name there.
    with jax.named_scope(f"<{type(context.module).__name__}>"):
        return method(*args, **kwargs)


def place(stack: str) -> Place:
    """Reads a name stack.

    Args:
        stack: as above, with or without the operation's own name at its end.
    """
    found: list[tuple[str, str]] = []
    before = ""
    for token in re.split(r"[/()]+", stack):
        match = _CLASS.fullmatch(token)
        if match is not None:
            # A method other than __call__ has its name after the module's.
            name = match.group(1)
            here = (name if name.islower() else before.split(".")[0], name)
            # A module's methods call each other.
            if not found or found[-1] != here:
                found.append(here)
        before = token
    if not found:
        return Place("", "")
    return Place("/".join(name for name, _ in found), found[-1][1])
