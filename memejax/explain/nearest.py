"""The nearest of stored examples by cosine, exactly, on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def unit_rows(features_nd: ArrayLike) -> jax.Array:
    """Divide each row by its length; rows of zeros stay.

    Args:
        features_nd: float `[n, d]`.

    Returns:
        float32 `[n, d]`.
    """
    features = jnp.asarray(features_nd, jnp.float32)
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.where(length > 0, length, 1.0)


def nearest(
    features_bd: ArrayLike,
    store_nd: ArrayLike,
    *,
    k: int,
    where: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Find the k stored examples with the largest cosine, the largest first.

    All cosines are computed, as one product; equal ones keep the order of the store.

    Args:
        features_bd: float `[b, d]`.
        store_nd: float `[n, d]`.
        k: number of neighbours, at most n.
        where: mask of the examples that may be found, bool `[n]` or `[b, n]`, such as
            all but the example itself; all if None.

    Returns:
        indices: int32 `[b, k]`.
        cosines: float32 `[b, k]` in [-1, 1]; -inf where fewer than k may be found.

    Raises:
        ValueError: if the widths differ, or k is not in 1..n.

    >>> rows, cosines = nearest([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]], k=1)
    >>> print(rows, cosines)
    [[1]] [[1.]]
    """
    own, stored = unit_rows(features_bd), unit_rows(store_nd)
    if own.ndim != 2 or stored.ndim != 2 or own.shape[1] != stored.shape[1]:
        raise ValueError(
            f"got features {list(own.shape)} and a store {list(stored.shape)}, "
            "expected [b, d] and [n, d]"
        )
    if not 1 <= k <= len(stored):
        raise ValueError(f"got k {k}, expected 1 to {len(stored)}")
    cosines = jnp.matmul(own, stored.T, precision=jax.lax.Precision.HIGHEST)
    if where is not None:
        cosines = jnp.where(jnp.asarray(where) != 0, cosines, -jnp.inf)
    values, indices = jax.lax.top_k(cosines, k)
    return indices, values
