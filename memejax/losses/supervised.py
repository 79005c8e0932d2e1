"""Binary classification losses, and the weighted mean."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.reductions import as_mask, sum_over_axis


def binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    positive_weight: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute the sigmoid cross-entropy, per example.

    `w y softplus(-x) + (1 - y) softplus(x)`, w the positive weight; torch's
    `binary_cross_entropy_with_logits(pos_weight=w)`, unreduced.

    Args:
        logits: `[batch]` of any float dtype; computed in float32.
        labels: int or bool `[batch]`, 0 or 1. Unknown labels (-1) must be masked by
            where: the loss of any other label is NaN, so that a forgotten mask stops a
            run.
        positive_weight: factor of the loss of label 1; the ratio of negatives to
            positives balances the classes.
        where: bool `[batch]`; a masked example's loss and gradient are 0.

    Returns:
        float32 `[batch]`, at least 0.

    Raises:
        ValueError: if the shapes differ or the labels are not integers.

    >>> print(binary_cross_entropy(jnp.zeros(2), jnp.array([0, 1]), positive_weight=2))
    [0.6931472 1.3862944]
    """
    logits, labels, where = _check(logits, labels, where)
    positive = positive_weight * jax.nn.softplus(-logits)
    loss = jnp.where(labels == 1, positive, jax.nn.softplus(logits))
    return _mask(loss, labels, where)


def sigmoid_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    positive_weight: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute the sigmoid focal loss, per example.

    `-w_t (1 - p_t)^gamma log p_t` with p_t the probability of the true label and
    w_t the positive weight for the label 1, else 1; gamma 0 is
    `binary_cross_entropy`.

    Args:
        logits: `[batch]` of any float dtype; computed in float32.
        labels: int or bool `[batch]`, 0 or 1; -1 as in `binary_cross_entropy`.
        gamma: focusing exponent that down-weights easy examples, at least 0.
        positive_weight: factor of the loss of label 1.
        where: bool `[batch]`; a masked example's loss and gradient are 0.

    Returns:
        float32 `[batch]`, at least 0.

    Raises:
        ValueError: if the shapes differ, the labels are not integers or gamma < 0.

    References:
        Lin et al., Focal Loss for Dense Object Detection, arXiv 1708.02002, eq. 5.

    >>> print(sigmoid_focal(jnp.zeros(2), jnp.array([0, 1]), gamma=1.0))
    [0.3465736 0.3465736]
    """
    if gamma < 0:
        raise ValueError(f"got gamma {gamma}, expected at least 0")
    logits, labels, where = _check(logits, labels, where)
    margin = jnp.where(labels == 1, logits, -logits)
    # (1 - p_t)^gamma in log space: the gradient of 0^gamma is not finite.
    focus = jnp.exp(-gamma * jax.nn.softplus(margin))
    weight = jnp.where(labels == 1, positive_weight, 1.0)
    return _mask(weight * focus * jax.nn.softplus(-margin), labels, where)


def weighted_mean(
    values: ArrayLike, weight: ArrayLike, *, axis_name: str | None = None
) -> jax.Array:
    """Compute the weighted mean of values, a scalar.

    `sum_i w_i v_i / sum_i w_i`, 0 if all weights are 0. A value of weight 0, even NaN,
    affects neither the mean nor the gradient.

    Args:
        values: `[batch]` of any float dtype; computed in float32.
        weight: `[batch]`, at least 0; 0 masks an example.
        axis_name: the mapped axis (pmap, vmap) that splits the batch, or None.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: if the shapes differ.

    >>> print(weighted_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 3.0, 0.0])))
    1.75
    """
    values, weight = jnp.asarray(values, jnp.float32), jnp.asarray(weight, jnp.float32)
    if values.shape != weight.shape:
        raise ValueError(
            f"got values of shape {values.shape} and weight of shape {weight.shape}, "
            "expected one shape"
        )
    total = jnp.sum(jnp.where(weight > 0, values, 0.0) * weight)
    total, mass = sum_over_axis((total, jnp.sum(weight)), axis_name)
    return total / jnp.where(mass > 0, mass, 1.0)


def _check(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the three as arrays of one shape; masked logits and labels are 0."""
    logits, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    if jnp.issubdtype(labels.dtype, jnp.inexact):
        raise ValueError(f"got labels of dtype {labels.dtype}, expected integers")
    labels = labels.astype(jnp.int32)
    if logits.shape != labels.shape:
        raise ValueError(
            f"got logits of shape {logits.shape} and labels of shape {labels.shape}, "
            "expected one shape [batch]"
        )
    mask = as_mask(where, logits.shape)
    # Before the loss, so that masked values cannot reach the gradient.
    return jnp.where(mask, logits, 0.0), jnp.where(mask, labels, 0), mask


def _mask(loss: jax.Array, labels: jax.Array, where: jax.Array) -> jax.Array:
    """Set the loss to 0 where masked, to NaN for unmasked labels other than 0 and 1."""
    known = (labels == 0) | (labels == 1)
    return jnp.where(where, jnp.where(known, loss, jnp.nan), 0.0)
