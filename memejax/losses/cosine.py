"""Vectors of unit length, and checks of what is compared by its cosine."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def unit_rows(x: ArrayLike, *, eps: float = 1e-12) -> jax.Array:
    """Divide by the L2 norm of the last axis.

    Args:
        x: `[..., dim]` of any float dtype; computed in float32.
        eps: norm up to which a vector counts as zero: it stays 0 and receives no
            gradient.

    Returns:
        float32, the shape of x.

    >>> print(unit_rows(jnp.array([[0.0, 5.0], [0.0, 0.0]])))
    [[0. 1.]
     [0. 0.]]
    """
    x = jnp.asarray(x, jnp.float32)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    directed = squared > eps**2
    # Both branches are finite, so that no NaN reaches the gradient at a zero vector.
    return jnp.where(directed, x / jnp.sqrt(jnp.where(directed, squared, 1.0)), 0.0)


def as_rows(name: str, x: ArrayLike, *, dim: int | None = None) -> jax.Array:
    """Return embeddings as float32 `[n, dim]`.

    Args:
        name: name in the error message.
        x: `[n, dim]`, n and dim at least 1.
        dim: the expected dim; None for any.

    Raises:
        ValueError: if x has another shape.
    """
    rows = jnp.asarray(x, jnp.float32)
    if rows.ndim != 2 or not rows.size or dim not in (None, rows.shape[1]):
        expected = "dim" if dim is None else dim
        raise ValueError(
            f"got {name} of shape {rows.shape}, expected [n, {expected}], n >= 1"
        )
    return rows


def as_integers(name: str, values: ArrayLike, *, length: int) -> jax.Array:
    """Return labels or indices as int32 `[length]`.

    Raises:
        ValueError: if values has another shape or is not of integers.
    """
    array = jnp.asarray(values)
    if array.shape != (length,) or not (
        jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool
    ):
        raise ValueError(
            f"got {name} {array.dtype}{list(array.shape)}, expected integers [{length}]"
        )
    return array.astype(jnp.int32)
