"""Terms shared by DINO's loss and panel: logits, distributions, cross-entropy.

Shapes: v student views, u teacher views, b examples, k prototypes; see
`memejax.losses.dino`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.reductions import as_mask, check_scalar

# Of the student's and of the teacher's softmax.
Temperatures = tuple[float | jax.Array, float | jax.Array]


def prepare_logits(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    center_k: ArrayLike,
    temperatures: Temperatures,
    where: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Check and return student, teacher and centre, 0 where masked, and the mask.

    Raises:
        ValueError: as in `memejax.losses.dino`.
    """
    for name, value in zip(("student", "teacher"), temperatures, strict=True):
        check_scalar(
            f"{name}_temperature", value, expected="above 0", holds=lambda t: t > 0
        )
    student, teacher, center = (
        jnp.asarray(value, jnp.float32) for value in (student, teacher, center_k)
    )
    if student.ndim != 3 or teacher.ndim != 3 or student.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            f"got student logits of shape {student.shape} and teacher logits of shape "
            f"{teacher.shape}, expected [V, batch, K] and [U, batch, K]"
        )
    views, batch, k = student.shape
    if views < 2 or not 1 <= teacher.shape[0] <= views:
        raise ValueError(
            f"got {views} student views and {teacher.shape[0]} teacher views, expected "
            "at least 2 student views and from 1 to as many teacher views"
        )
    if k < 2:
        raise ValueError(f"got {k} prototypes, expected at least 2")
    if center.shape != (k,):
        raise ValueError(f"got center_k of shape {center.shape}, expected {(k,)}")
    mask = as_mask(where, (batch,))
    # Masked before anything else: a padded row may hold anything, even NaN.
    rows = mask[None, :, None]
    teacher, center = jax.lax.stop_gradient((teacher, center))
    return jnp.where(rows, student, 0.0), jnp.where(rows, teacher, 0.0), center, mask


def log_probabilities(
    student_vbk: jax.Array,
    teacher_ubk: jax.Array,
    *,
    center_k: jax.Array,
    temperatures: Temperatures,
) -> tuple[jax.Array, jax.Array]:
    """Compute log-probabilities of the (centred) teacher and of the student."""
    teacher_ubk = (teacher_ubk - center_k[None, None]) / temperatures[1]
    student_vbk = student_vbk / temperatures[0]
    return (
        jax.nn.log_softmax(teacher_ubk, axis=-1),
        jax.nn.log_softmax(student_vbk, axis=-1),
    )


def mean_cross_entropy(teacher_ubk: jax.Array, log_student_vbk: jax.Array) -> jax.Array:
    """Average -sum_k P_uk log S_vk over the pairs u != v, `[batch]`."""
    # Each student view is multiplied by the sum of the teacher's other views: nothing
    # of [U, V, batch, K] is formed, and without a subtraction nothing cancels.
    views, teachers = log_student_vbk.shape[0], teacher_ubk.shape[0]
    local_bk = jnp.sum(log_student_vbk[teachers:], axis=0)
    total = jnp.sum(jnp.sum(teacher_ubk, axis=0) * local_bk, axis=-1)
    for own in range(teachers):
        others_bk = jnp.sum(teacher_ubk[:own], axis=0)
        others_bk += jnp.sum(teacher_ubk[own + 1 :], axis=0)
        total += jnp.sum(others_bk * log_student_vbk[own], axis=-1)
    return -total / (teachers * (views - 1))
