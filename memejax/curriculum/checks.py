"""Checks of the arguments of sampling functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def vector(name: str, values: ArrayLike) -> jax.Array:
    """Return values as float32 `[n]`, or raise ValueError."""
    vector = jnp.asarray(values, jnp.float32)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"got {name} of shape {vector.shape}, expected [n], n >= 1")
    return vector


def mask(where: ArrayLike | None, values: ArrayLike) -> jax.Array:
    """Return the mask as bool in the shape of values, or raise ValueError."""
    shape = np.shape(values)
    counted = jnp.ones(shape, bool) if where is None else jnp.asarray(where, bool)
    if counted.shape != shape:
        raise ValueError(f"got where of shape {counted.shape}, expected {shape}")
    return counted


def extent(values: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Smallest and largest of the counted values."""
    low = jnp.min(values, where=counted, initial=jnp.inf)
    return low, jnp.max(values, where=counted, initial=-jnp.inf)
