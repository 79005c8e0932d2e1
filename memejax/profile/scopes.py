"""The module of an operation, from the name stack that tracing leaves.

Flax puts the name of a module (`conv`) into the name stack of its operations, but not
its class. Traced under `marked()`, the class follows the name:

    jit(step)/transpose(jvp(ResNet))/<ResNet>/stem/<ConvNorm>/conv/<Conv>/dot_general

The same string is an operation's name in a jaxpr and in a compiled program, forward
and backward. Operations outside of modules can be named too, in lower case:
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
    """Modules around an operation.

    Attributes:
        path: names of the modules and scopes, joined by "/"; "" outside of all. The
            outermost module is named by its class.
        module: class of the innermost module; "" outside of all.
    """

    path: str
    module: str


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Add the classes of modules to the names of operations traced in this context.

    `jax.jit` traces a function once for its shapes: the names of a function that was
    called before stay as they were.
    """
    with nn.intercept_methods(_mark):
        yield


def _mark(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    # Not "@": XLA truncates names there.
    with jax.named_scope(f"<{type(context.module).__name__}>"):
        return method(*args, **kwargs)


def place(stack: str) -> Place:
    """Parse a name stack.

    Args:
        stack: as above, with or without the operation's own name at its end.
    """
    found: list[tuple[str, str]] = []
    before = ""
    for token in re.split(r"[/()]+", stack):
        match = _CLASS.fullmatch(token)
        if match is not None:
            # The name of a method other than __call__ follows the module's.
            name = match.group(1)
            here = (name if name.islower() else before.split(".")[0], name)
            # A module's methods may call each other.
            if not found or found[-1] != here:
                found.append(here)
        before = token
    if not found:
        return Place("", "")
    return Place("/".join(name for name, _ in found), found[-1][1])
