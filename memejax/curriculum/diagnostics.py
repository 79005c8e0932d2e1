"""Diagnostics of a distribution over examples and of draws from it.

Shape suffix: n examples.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from memejax.curriculum.checks import extent, mask, vector


def effective_sample_size(
    probs: ArrayLike, *, share: bool = False, where: ArrayLike | None = None
) -> jax.Array:
    """Kish's effective number of equally likely examples, a scalar.

        (sum p)^2 / sum p^2

    Args:
        probs: float `[n]`, at least 0, with a positive sum.
        share: divide by the number of counted examples.
        where: bool `[n]`, True for examples that count.

    Returns:
        float32 scalar in [1, n], or in [1 / n, 1] as a share.

    Raises:
        ValueError: if probs is not `[n]` or where has another shape.

    >>> print(effective_sample_size(jnp.array([0.5, 0.5, 0.0, 0.0])))
    2.0
    """
    counted = mask(where, probs)
    values = jnp.where(counted, vector("probs", probs), 0.0)
    # Squares of probabilities near 1e-20 would vanish.
    values = values / jnp.max(values)
    size = jnp.sum(values) ** 2 / jnp.sum(values**2)
    return size / jnp.sum(counted, dtype=jnp.float32) if share else size


def achieved_ratio(probs: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Ratio of the largest to the smallest probability, a scalar.

    Args:
        probs: float `[n]`, at least 0.
        where: bool `[n]`, True for examples that count; by default those with a
            probability above 0.

    Returns:
        float32 scalar, at least 1; inf if an example in `where` has probability 0.

    Raises:
        ValueError: if probs is not `[n]` or where has another shape.

    >>> print(achieved_ratio(jnp.array([0.75, 0.25, 0.0])))
    3.0
    """
    values = vector("probs", probs)
    low, high = extent(values, values > 0 if where is None else mask(where, probs))
    return high / low


def unique_fraction(index: ArrayLike, n: int) -> float:
    """Share of n examples that were drawn at least once; on the host.

    Args:
        index: int array of any shape, in [0, n).
        n: number of examples, at least 1.

    Returns:
        The number of distinct indices divided by n.

    Raises:
        ValueError: if n is below 1 or an index is not in [0, n).

    >>> unique_fraction(np.array([[0, 3], [3, 3]]), 4)
    0.5
    """
    drawn = np.asarray(index)
    if n < 1 or (drawn.size and not 0 <= drawn.min() <= drawn.max() < n):
        raise ValueError(f"got an index out of range for n {n}, expected [0, n)")
    return int(np.count_nonzero(np.bincount(drawn.ravel(), minlength=n))) / n


def class_shares(probs: ArrayLike, labels: ArrayLike, *, n_classes: int) -> jax.Array:
    """Probability of drawing each class: the sum over its examples.

    Args:
        probs: float `[n]`, summing to 1.
        labels: int `[n]` in [0, n_classes), or -1: unknown, counted in no class.
        n_classes: number of classes.

    Returns:
        float32 `[n_classes]`.

    Raises:
        ValueError: if a shape or a concrete label is not as above.

    >>> print(class_shares(jnp.array([0.5, 0.25, 0.25]), [1, 0, 1], n_classes=3))
    [0.25 0.75 0.  ]
    """
    values = vector("probs", probs)
    if np.shape(labels) != values.shape:
        raise ValueError(f"got labels {np.shape(labels)}, expected {values.shape}")
    if not isinstance(labels, Tracer):
        low, high = np.min(np.asarray(labels)), np.max(np.asarray(labels))
        if not -1 <= low <= high < n_classes:
            raise ValueError(
                f"got labels from {low} to {high}, expected them in [-1, {n_classes})"
            )
    # One sum per class: a scatter adds values one at a time, which loses float32
    # precision at 1e6 examples.
    classes, among = jnp.arange(n_classes), jnp.asarray(labels)
    return jax.vmap(lambda c: jnp.sum(jnp.where(among == c, values, 0.0)))(classes)
