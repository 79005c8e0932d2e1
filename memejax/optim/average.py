"""Averages of parameters over updates: exponential, and stochastic weight averaging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Tree = Any


def ema(old: Tree, new: Tree, *, momentum: ArrayLike) -> Tree:
    """Update an exponential moving average of a tree.

    `momentum old + (1 - momentum) new`, leaf by leaf, computed in float32. Each leaf
    keeps its dtype in `old`: an average in bfloat16 stops changing at a momentum near
    1, so start it from float32 copies. Leaves other than floats (counts, keys) are
    taken from `new`.

    Args:
        old: the average so far; any float leaves.
        new: a tree of the same structure and shapes.
        momentum: scalar in [0, 1]; may be traced.

    Returns:
        A tree like `old`.

    Raises:
        ValueError: for a concrete momentum outside [0, 1], or trees that differ in
            structure or shapes.

    References:
        Tarvainen and Valpola, Mean teachers, 1703.01780, equation 2.

    >>> print(ema({"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}, momentum=0.75)["w"])
    [1.5]
    """
    if not isinstance(momentum, jax.core.Tracer):
        known = float(np.asarray(momentum))
        if not 0 <= known <= 1:
            raise ValueError(f"got momentum {known}, expected one in [0, 1]")
    # The complement of a Python float is exact; that of a float32 0.99996 is not.
    rest = 1 - momentum  # pyright: ignore[reportOperatorIssue]
    return _average(old, new, lambda a, b: momentum * a + rest * b)


def swa(old: Tree, new: Tree, *, count: ArrayLike) -> Tree:
    """Update the running mean of a tree, for stochastic weight averaging.

    `old + (new - old) / (count + 1)`, leaf by leaf, computed in float32; dtypes as in
    `ema`. The caller has to recompute BatchNorm statistics for the averaged weights.

    Args:
        old: the mean of `count` trees; any finite values if count is 0.
        new: the next tree, of the same structure and shapes.
        count: scalar number of trees averaged in `old`, 0 or more; may be traced.

    Returns:
        A tree like `old`.

    Raises:
        ValueError: for a concrete count below 0, or trees that differ in structure or
            shapes.

    References:
        Izmailov et al., Averaging weights leads to wider optima, 1803.05407,
        algorithm 1.

    >>> print(swa({"w": jnp.array([2.0])}, {"w": jnp.array([5.0])}, count=2)["w"])
    [3.]
    """
    if not isinstance(count, jax.core.Tracer) and float(np.asarray(count)) < 0:
        raise ValueError(f"got count {count}, expected 0 or more")
    share = 1 / (count + 1)  # pyright: ignore[reportOperatorIssue]
    return _average(old, new, lambda a, b: a + (b - a) * share)


def _average(old: Tree, new: Tree, mean: Callable[[jax.Array, jax.Array], Any]) -> Tree:
    """Apply `mean` to all float leaves in float32; take other leaves from `new`."""

    def leaf(path: Any, a: Any, b: Any) -> Any:
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"{jax.tree_util.keystr(path, simple=True, separator='/')}: got "
                f"{list(jnp.shape(b))}, expected {list(jnp.shape(a))}"
            )
        a, b = jnp.asarray(a), jnp.asarray(b)
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            return b
        wide = jnp.promote_types(a.dtype, jnp.float32)
        return mean(a.astype(wide), b.astype(wide)).astype(a.dtype)

    return jax.tree_util.tree_map_with_path(leaf, old, new)
