"""DINO's centre: the running mean of the teacher's logits.

Shapes: v teacher views, b examples, k prototypes.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.reductions import as_mask, check_scalar, sum_over_axis


def update_center(
    center_k: ArrayLike,
    teacher_logits_vbk: ArrayLike,
    *,
    momentum: float | jax.Array = 0.9,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the next centre from the teacher's logits of a batch.

    `new c = m c + (1 - m) mean_{v, b} t`

    Args:
        center_k: the centre, `[k]`, zeros at the start; computed in float32.
        teacher_logits_vbk: `[v, b, k]` of any float dtype; computed in float32.
        momentum: m in [0, 1], a scalar that may be traced.
        where: bool `[b]`, the examples to include; without any the centre stays.
        axis_name: the mapped axis (pmap, shard_map, vmap) that splits the batch, or
            None; with it every device gets the centre of the global batch.

    Returns:
        float32 `[k]`. No gradient flows through it.

    Raises:
        ValueError: if the shapes do not match, or a concrete momentum is out of range.

    References:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
        arXiv 2104.14294, eq. 4.

    >>> logits = jnp.array([[[2.0, 0.0], [4.0, 0.0]]])  # one view, two examples
    >>> print(update_center(jnp.array([1.0, 1.0]), logits, momentum=0.5))
    [2.  0.5]
    """
    sums = sum_teacher(teacher_logits_vbk, where=where)
    return update_center_from_sums(
        center_k, sums, momentum=momentum, axis_name=axis_name
    )


def sum_teacher(
    teacher_logits_vbk: ArrayLike, *, where: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Compute the sums for a centre update, of a batch or a part of one.

    `total = sum_{v, b} t`, `count = sum_{v, b} 1`, over the included examples. The
    sums of a batch's parts add up to those of the batch.

    Args:
        teacher_logits_vbk: as in `update_center`.
        where: bool `[b]`, the examples to include.

    Returns:
        `(total, count)`, float32 `[k]` and `[]`. No gradient flows through them.

    Raises:
        ValueError: if the shapes do not match.

    >>> total, count = sum_teacher(jnp.array([[[2.0, 0.0], [4.0, 0.0]]]))
    >>> print(total, count)
    [6. 0.] 2.0
    """
    teacher = jax.lax.stop_gradient(jnp.asarray(teacher_logits_vbk, jnp.float32))
    if teacher.ndim != 3:
        raise ValueError(
            f"got teacher logits of shape {teacher.shape}, expected [v, batch, k]"
        )
    mask = as_mask(where, teacher.shape[1:2])
    # Masked before the sum: a padded row may hold anything, even NaN.
    total = jnp.sum(jnp.where(mask[None, :, None], teacher, 0.0), axis=(0, 1))
    return total, teacher.shape[0] * jnp.sum(mask, dtype=jnp.float32)


def update_center_from_sums(
    center_k: ArrayLike,
    sums: tuple[jax.Array, jax.Array],
    *,
    momentum: float | jax.Array = 0.9,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the next centre from the sums of `sum_teacher`.

    Args:
        center_k: as in `update_center`.
        sums: sums of the batch, or of this device's part of it.
        momentum: as in `update_center`.
        axis_name: as in `update_center`.

    Returns:
        float32 `[k]`.

    Raises:
        ValueError: as in `update_center`.

    >>> sums = jnp.array([6.0, 0.0]), jnp.array(2.0)
    >>> print(update_center_from_sums(jnp.array([1.0, 1.0]), sums, momentum=0.5))
    [2.  0.5]
    """
    check_scalar("momentum", momentum, expected="0 to 1", holds=lambda m: 0 <= m <= 1)
    center = jax.lax.stop_gradient(jnp.asarray(center_k, jnp.float32))
    if center.shape != sums[0].shape:
        raise ValueError(
            f"got center_k of shape {center.shape}, expected {sums[0].shape}"
        )
    total, count = sum_over_axis(sums, axis_name)
    mean = total / jnp.maximum(count, 1.0)
    moved = momentum * center + (1 - momentum) * mean
    return jnp.where(count > 0, moved, center)
