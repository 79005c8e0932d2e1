"""DINO: the student predicts what the teacher says of other views, and its panel.

Shapes: v student views, u teacher views, b examples, k prototypes. Teacher view i and
student view i show the same crop, so the first u student views are the global ones.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

# Share of ln K that the prototype tells of the example. Runs reported as stuck at a
# loss of ln K stay within 2e-4 nats of it, 2e-5 of ln K. A head that was not trained
# yet gives 0.001 where the 256-d inputs of its last layer have a mean cosine of 0.99
# (temperature 0.04, centred), 0.01 where it is 0.9.
MIN_INFORMATION = 0.001
# In nats: 1.1 prototypes in use. Runs that fell to one prototype show a loss, which
# is at least the entropy, of about 0.05.
MIN_MEAN_ENTROPY = 0.1
# Share of ln K from which an output without information is called uniform.
UNIFORM_ENTROPY = 0.99


def dino(
    student_logits_vbk: ArrayLike,
    teacher_logits_ubk: ArrayLike,
    *,
    center_k: ArrayLike,
    student_temperature: float | jax.Array = 0.1,
    teacher_temperature: float | jax.Array = 0.04,
    center_momentum: float | jax.Array = 0.9,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """DINO's cross-entropy per example, and the next centre.

    With P_u = softmax((t_u - c) / tau_t), fixed, and S_v = softmax(s_v / tau_s):

        loss  = -1 / (U (V - 1)) sum_u sum_{v != u} sum_k P_uk log S_vk
        new c = m c + (1 - m) mean_{u, b} t

    The loss is that of the old centre. Its floor is the teacher's entropy, not 0;
    ln K is its value for uniform outputs: see `memejax.losses.dino_panel`.

    Args:
      student_logits_vbk: `[V, batch, K]` of any float dtype, V >= 2, K >= 2; computed
        in float32.
      teacher_logits_ubk: `[U, batch, K]`, of the first U of the student's views,
        1 <= U <= V (DINO: the 2 global ones); gets no gradient.
      center_k: the centre, `[K]`, zeros at the start; gets no gradient.
      student_temperature: tau_s, a scalar above 0.
      teacher_temperature: tau_t, a scalar above 0 (may be traced, as all three).
      center_momentum: m in [0, 1].
      where: bool `[batch]`: the examples that count. The others' loss and gradient
        are 0 and the centre does not see them; if none counts the centre stays.
      axis_name: the mapped axis (pmap, shard_map, vmap) that splits the batch, or
        None; the centre then is that of the global batch on every device.

    Returns:
      `(loss, new_center)`, float32 `[batch]` and `[K]`.

    Raises:
      ValueError: if shapes do not fit, there is no pair of views, K < 2, or a scalar
        known before tracing is out of its range.

    References:
      Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
      arXiv 2104.14294, eq. 1 to 4.

    >>> student, teacher = jnp.zeros((3, 1, 4)), jnp.ones((2, 1, 4))
    >>> loss, center = dino(student, teacher, center_k=jnp.zeros(4))
    >>> print(loss, center)  # ln 4
    [1.3862944] [0.1 0.1 0.1 0.1]
    """
    _check_scalar("center_momentum", center_momentum, "0 to 1", lambda m: 0 <= m <= 1)
    temperatures = student_temperature, teacher_temperature
    student, teacher, center, counted = _prepare(
        student_logits_vbk, teacher_logits_ubk, center_k, where, temperatures
    )
    log_teacher, log_student = _logs(student, teacher, center, temperatures)
    loss = _cross_entropy(jnp.exp(log_teacher), log_student)
    total = jnp.sum(teacher, axis=(0, 1))
    count = teacher.shape[0] * jnp.sum(counted, dtype=jnp.float32)
    total, count = _sum_over((total, count), axis_name)
    mean = total / jnp.maximum(count, 1.0)
    moved = center_momentum * center + (1 - center_momentum) * mean
    return jnp.where(counted, loss, 0.0), jnp.where(count > 0, moved, center)


def dino_panel(
    student_logits_vbk: ArrayLike,
    teacher_logits_ubk: ArrayLike,
    *,
    center_k: ArrayLike,
    student_temperature: float | jax.Array,
    teacher_temperature: float | jax.Array,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """The parts of DINO's loss, five scalars.

    With P_ub the teacher's distributions, h the entropy and n examples:

        cross_entropy   = mean_b loss_b = teacher_entropy + kl
        teacher_entropy = mean_{u, b} h(P_ub)
        kl              = mean_{u, v != u, b} KL(P_ub | S_vb)
        mean_entropy    = h(mean_{u, b} P_ub)
        log_k           = ln K

    exp(mean_entropy) is how many prototypes the batch uses. mean_entropy -
    teacher_entropy, at least 0 and at most ln(U n), is what the prototype tells of
    the example (their mutual information): 0 when all outputs are equal.

    Args:
      student_logits_vbk: as in `dino`.
      teacher_logits_ubk: as in `dino`.
      center_k: the centre that the loss used, `[K]`.
      student_temperature: as in `dino`.
      teacher_temperature: as in `dino`.
      where: bool `[batch]`: the examples that count; the others leave no trace.
      axis_name: the mapped axis that splits the batch, or None.

    Returns:
      `{"cross_entropy", "teacher_entropy", "kl", "mean_entropy", "log_k"}`, float32
      scalars in nats. With no example all but log_k are NaN; with one, mean_entropy
      is (one example cannot show whether examples differ).

    Raises:
      ValueError: as `dino`.

    References:
      Caron et al., arXiv 2104.14294, section 5.3 (the decomposition).

    >>> teacher = jnp.array([[[9.0, 0.0], [0.0, 9.0]]])  # one view, two examples
    >>> panel = dino_panel(
    ...     jnp.zeros((2, 2, 2)),
    ...     teacher,
    ...     center_k=jnp.zeros(2),
    ...     student_temperature=0.1,
    ...     teacher_temperature=0.04,
    ... )
    >>> print({name: round(float(value), 3) for name, value in panel.items()})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'cross_entropy': 0.693, 'teacher_entropy': 0.0, 'kl': 0.693,
     'mean_entropy': 0.693, 'log_k': 0.693}
    """
    temperatures = student_temperature, teacher_temperature
    student, teacher, center, counted = _prepare(
        student_logits_vbk, teacher_logits_ubk, center_k, where, temperatures
    )
    log_teacher, log_student = _logs(student, teacher, center, temperatures)
    teacher = jnp.exp(log_teacher)
    loss = _cross_entropy(teacher, log_student)
    entropy = jnp.mean(-jnp.sum(teacher * log_teacher, axis=-1), axis=0)
    shares = jnp.mean(teacher, axis=0)

    sums = (
        jnp.sum(jnp.where(counted, loss, 0.0)),
        jnp.sum(jnp.where(counted, entropy, 0.0)),
        jnp.sum(jnp.where(counted[:, None], shares, 0.0), axis=0),
        jnp.sum(counted, dtype=jnp.float32),
    )
    loss, entropy, shares, count = _sum_over(sums, axis_name)
    loss, entropy, shares = (
        value / jnp.maximum(count, 1.0) for value in (loss, entropy, shares)
    )
    # 0 log 0 is 0: a prototype that nobody uses.
    mean_entropy = jnp.sum(jax.scipy.special.entr(shares))
    return {
        "cross_entropy": jnp.where(count > 0, loss, jnp.nan),
        "teacher_entropy": jnp.where(count > 0, entropy, jnp.nan),
        "kl": jnp.where(count > 0, loss - entropy, jnp.nan),
        "mean_entropy": jnp.where(count > 1, mean_entropy, jnp.nan),
        "log_k": jnp.asarray(math.log(shares.shape[0]), jnp.float32),
    }


def is_dino_collapsed(panel: Mapping[str, ArrayLike]) -> tuple[bool, str]:
    """Whether a panel shows collapse, and of which kind; on the host.

    Collapsed when mean_entropy - teacher_entropy < `MIN_INFORMATION` ln K (the
    output does not depend on the example) or mean_entropy < `MIN_MEAN_ENTROPY` (one
    prototype takes all). kl is no criterion: with two temperatures it can be large
    for a constant output, and how small it gets in a good run depends on the data.

    A constant output turns uniform once the centre has caught up with it. The first
    updates from random weights are like that in a run that goes well later, whose
    outputs start nearly constant: heed the rule after the warm-up. In a batch of a
    handful of examples that rightly share a prototype "one prototype" says too much.

    Args:
      panel: what `dino_panel` returns, its values concrete.

    Returns:
      `(True, reason)`, where the reason begins with "one prototype", "uniform" or
      "constant", or `(False, "")`. A measure that is NaN shows nothing.

    Raises:
      ValueError: if a measure is missing.

    >>> panel = {"teacher_entropy": 8.317, "mean_entropy": 8.317, "log_k": 8.318}
    >>> print(*is_dino_collapsed(panel))
    True uniform teacher: entropy 8.317 of ln K = 8.318, the same for every example
    """
    names = ("teacher_entropy", "mean_entropy", "log_k")
    missing = set(names) - set(panel)
    if missing:
        raise ValueError(
            f"got a panel without {sorted(missing)}, expected {list(names)}"
        )
    entropy, mean_entropy, log_k = (float(jnp.asarray(panel[name])) for name in names)
    information = mean_entropy - entropy
    if mean_entropy < MIN_MEAN_ENTROPY:
        return True, (
            f"one prototype takes all: mean entropy {mean_entropy:.3f} is below "
            f"{MIN_MEAN_ENTROPY}"
        )
    # No alarm with NaN: each comparison is then false.
    if information < MIN_INFORMATION * log_k:
        if entropy > UNIFORM_ENTROPY * log_k:
            return True, (
                f"uniform teacher: entropy {entropy:.3f} of ln K = {log_k:.3f}, the "
                "same for every example"
            )
        return True, (
            f"constant output: it tells {information:.4f} nats of the example, below "
            f"{MIN_INFORMATION} ln K = {MIN_INFORMATION * log_k:.4f}"
        )
    return False, ""


def _logs(
    student: jax.Array,
    teacher: jax.Array,
    center: jax.Array,
    temperatures: tuple[float | jax.Array, float | jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Logarithms of the teacher's centred and of the student's distributions."""
    teacher = (teacher - center[None, None]) / temperatures[1]
    student = student / temperatures[0]
    return jax.nn.log_softmax(teacher, axis=-1), jax.nn.log_softmax(student, axis=-1)


def _cross_entropy(teacher_ubk: jax.Array, log_student_vbk: jax.Array) -> jax.Array:
    """The mean over pairs u != v of -sum_k P_uk log S_vk, `[batch]`."""
    # A student view meets the sum of the teacher's other views, so that nothing of
    # [U, V, batch, K] is formed; and none is subtracted again, so nothing cancels.
    views, teachers = log_student_vbk.shape[0], teacher_ubk.shape[0]
    local_bk = jnp.sum(log_student_vbk[teachers:], axis=0)
    total = jnp.sum(jnp.sum(teacher_ubk, axis=0) * local_bk, axis=-1)
    for own in range(teachers):
        others_bk = jnp.sum(teacher_ubk[:own], axis=0)
        others_bk += jnp.sum(teacher_ubk[own + 1 :], axis=0)
        total += jnp.sum(others_bk * log_student_vbk[own], axis=-1)
    return -total / (teachers * (views - 1))


def _prepare(
    student: ArrayLike,
    teacher: ArrayLike,
    center: ArrayLike,
    where: ArrayLike | None,
    temperatures: tuple[float | jax.Array, float | jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Student, teacher and centre in float32, 0 where masked, and the mask."""
    for name, value in zip(("student", "teacher"), temperatures, strict=True):
        _check_scalar(f"{name}_temperature", value, "above 0", lambda t: t > 0)
    student, teacher, center = (
        jnp.asarray(value, jnp.float32) for value in (student, teacher, center)
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
            "at least 2 and from 1 to as many as the student's"
        )
    if k < 2:
        raise ValueError(f"got {k} prototypes, expected at least 2")
    if center.shape != (k,):
        raise ValueError(f"got center_k of shape {center.shape}, expected {(k,)}")
    counted = jnp.ones(batch, bool) if where is None else jnp.asarray(where, bool)
    if counted.shape != (batch,):
        raise ValueError(f"got where of shape {counted.shape}, expected {(batch,)}")
    # Masked before anything else: a padded row may hold anything, NaN too.
    mask = counted[None, :, None]
    teacher, center = jax.lax.stop_gradient((teacher, center))
    return jnp.where(mask, student, 0.0), jnp.where(mask, teacher, 0.0), center, counted


def _check_scalar(
    name: str,
    value: float | jax.Array,
    expected: str,
    holds: Callable[[float], bool],
) -> None:
    """Raises ValueError for a value that is none, as far as it is known by now."""
    if jnp.shape(value) != ():
        raise ValueError(f"got {name} of shape {jnp.shape(value)}, expected a scalar")
    # A traced value, such as a schedule's, is known only when the program runs.
    if not isinstance(value, Tracer) and not holds(float(value)):
        raise ValueError(f"got {name} {value}, expected {expected}")


def _sum_over(value: Any, axis_name: str | None) -> Any:
    """The sum over the mapped axis, if there is one."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)
