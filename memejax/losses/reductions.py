"""Helpers of the losses: masks, sums over a mapped axis, checks of scalars."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike


def as_mask(where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """Return a mask as a bool array, all True for None.

    Args:
        where: a mask of any dtype, or None.
        shape: its expected shape.

    Raises:
        ValueError: if where has another shape.
    """
    mask = jnp.ones(shape, bool) if where is None else jnp.asarray(where, bool)
    if mask.shape != shape:
        raise ValueError(f"got where of shape {mask.shape}, expected {shape}")
    return mask


def sum_over_axis(value: Any, axis_name: str | None) -> Any:
    """Sum a tree of arrays over the mapped axis; return the tree itself for None."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def check_scalar(
    name: str,
    value: float | jax.Array,
    *,
    expected: str,
    holds: Callable[[float], bool],
) -> None:
    """Check a hyperparameter that may be traced.

    Args:
        name: name in the error message.
        value: a number, or a scalar array; its range is checked only if it is not
            traced.
        expected: the range in the error message.
        holds: whether a number is in the range.

    Raises:
        ValueError: if value is not a scalar or is out of range.
    """
    if jnp.shape(value) != ():
        raise ValueError(f"got {name} of shape {jnp.shape(value)}, expected a scalar")
    # A traced value, such as a schedule's, has no value before the program runs.
    if not isinstance(value, Tracer) and not holds(float(value)):
        raise ValueError(f"got {name} {value}, expected {expected}")
