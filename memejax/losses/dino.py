"""DINO's loss, by which the student predicts the teacher on other views; its panel.

Shapes: v student views, u teacher views, b examples, k prototypes. Teacher view i and
student view i show the same crop, so the first u student views are the global ones.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.center import update_center
from memejax.losses.dino_terms import (
    log_probabilities,
    mean_cross_entropy,
    prepare_logits,
)
from memejax.losses.reductions import check_scalar, sum_over_axis

# Mutual information of prototype and example, as a share of ln K. Runs reported as
# stuck at a loss of ln K stay within 2e-4 nats of it, 2e-5 of ln K. An untrained head
# has 0.001 if the 256-d inputs of its last layer have a mean cosine of 0.99
# (temperature 0.04, centred), 0.01 if it is 0.9.
MIN_INFORMATION = 0.001
# In nats: 1.1 prototypes in use. Runs that collapsed to one prototype have a loss,
# which is at least the entropy, of about 0.05.
MIN_MEAN_ENTROPY = 0.1
# Share of ln K above which an output without information is called uniform.
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
    """Compute DINO's cross-entropy per example, and the next centre.

    With P_u = softmax((t_u - c) / tau_t), fixed, and S_v = softmax(s_v / tau_s):

        loss  = -1 / (U (V - 1)) sum_u sum_{v != u} sum_k P_uk log S_vk
        new c = m c + (1 - m) mean_{u, b} t

    The loss uses the old centre. Its minimum is the teacher's entropy, not 0; for
    uniform outputs it is ln K: see `memejax.losses.dino_panel`.

    Args:
        student_logits_vbk: `[V, batch, K]` of any float dtype, V >= 2, K >= 2; computed
            in float32.
        teacher_logits_ubk: `[U, batch, K]`, of the first U of the student's views,
            1 <= U <= V (DINO: the 2 global ones); receives no gradient.
        center_k: the centre, `[K]`, zeros at the start; receives no gradient.
        student_temperature: tau_s, a scalar above 0.
        teacher_temperature: tau_t, a scalar above 0 (may be traced, as all three).
        center_momentum: m in [0, 1].
        where: bool `[batch]`, the examples to include. The others' loss and gradient
            are 0 and the centre ignores them; without any the centre stays.
        axis_name: the mapped axis (pmap, shard_map, vmap) that splits the batch, or
            None; with it every device gets the centre of the global batch.

    Returns:
        `(loss, new_center)`, float32 `[batch]` and `[K]`.

    Raises:
        ValueError: if shapes do not match, there is no pair of views, K < 2, or a
            concrete scalar is out of range.

    References:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
        arXiv 2104.14294, eq. 1 to 4.

    >>> student, teacher = jnp.zeros((3, 1, 4)), jnp.ones((2, 1, 4))
    >>> loss, center = dino(student, teacher, center_k=jnp.zeros(4))
    >>> print(loss, center)  # ln 4
    [1.3862944] [0.1 0.1 0.1 0.1]
    """
    check_scalar(
        "center_momentum",
        center_momentum,
        expected="0 to 1",
        holds=lambda m: 0 <= m <= 1,
    )
    temperatures = student_temperature, teacher_temperature
    student, teacher, center, mask = prepare_logits(
        student_logits_vbk,
        teacher_logits_ubk,
        center_k=center_k,
        temperatures=temperatures,
        where=where,
    )
    log_teacher, log_student = log_probabilities(
        student, teacher, center_k=center, temperatures=temperatures
    )
    loss = mean_cross_entropy(jnp.exp(log_teacher), log_student)
    new_center = update_center(
        center, teacher, momentum=center_momentum, where=mask, axis_name=axis_name
    )
    return jnp.where(mask, loss, 0.0), new_center


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
    """Decompose DINO's loss into five scalars.

    With P_ub the teacher's distributions, h the entropy and n examples:

        cross_entropy   = mean_b loss_b = teacher_entropy + kl
        teacher_entropy = mean_{u, b} h(P_ub)
        kl              = mean_{u, v != u, b} KL(P_ub | S_vb)
        mean_entropy    = h(mean_{u, b} P_ub)
        log_k           = ln K

    exp(mean_entropy) is the number of prototypes that the batch uses. mean_entropy -
    teacher_entropy, at least 0 and at most ln(U n), is the mutual information of
    prototype and example: 0 if all outputs are equal.

    Args:
        student_logits_vbk: as in `dino`.
        teacher_logits_ubk: as in `dino`.
        center_k: the centre used by the loss, `[K]`.
        student_temperature: as in `dino`.
        teacher_temperature: as in `dino`.
        where: bool `[batch]`, the examples to include; the others have no effect.
        axis_name: the mapped axis that splits the batch, or None.

    Returns:
        `{"cross_entropy", "teacher_entropy", "kl", "mean_entropy", "log_k"}`, float32
        scalars in nats. With no example all but log_k are NaN; with one, mean_entropy
        is NaN (one example cannot show whether examples differ).

    Raises:
        ValueError: as in `dino`.

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
    sums = sum_dino(
        student_logits_vbk,
        teacher_logits_ubk,
        center_k=center_k,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        where=where,
    )
    return dino_panel_from_sums(sums, axis_name=axis_name)


def sum_dino(
    student_logits_vbk: ArrayLike,
    teacher_logits_ubk: ArrayLike,
    *,
    center_k: ArrayLike,
    student_temperature: float | jax.Array,
    teacher_temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """Compute the sums for `dino_panel`, of a batch or a part of one.

    The sums of a batch's parts add up to those of the batch.

    Args:
        student_logits_vbk: as in `dino`.
        teacher_logits_ubk: as in `dino`.
        center_k: the centre used by the loss, `[K]`.
        student_temperature: as in `dino`.
        teacher_temperature: as in `dino`.
        where: bool `[batch]`, the examples to include.

    Returns:
        `{"loss", "entropy", "shares", "count"}`: over the included examples, sums of
        the losses, of the teacher's entropies and of its distributions (both means over
        views), and their number; float32, `shares` `[K]`, the others scalars.

    Raises:
        ValueError: as in `dino`.
    """
    temperatures = student_temperature, teacher_temperature
    student, teacher, center, mask = prepare_logits(
        student_logits_vbk,
        teacher_logits_ubk,
        center_k=center_k,
        temperatures=temperatures,
        where=where,
    )
    log_teacher, log_student = log_probabilities(
        student, teacher, center_k=center, temperatures=temperatures
    )
    teacher = jnp.exp(log_teacher)
    loss = mean_cross_entropy(teacher, log_student)
    entropy = jnp.mean(-jnp.sum(teacher * log_teacher, axis=-1), axis=0)
    shares = jnp.mean(teacher, axis=0)
    return {
        "loss": jnp.sum(jnp.where(mask, loss, 0.0)),
        "entropy": jnp.sum(jnp.where(mask, entropy, 0.0)),
        "shares": jnp.sum(jnp.where(mask[:, None], shares, 0.0), axis=0),
        "count": jnp.sum(mask, dtype=jnp.float32),
    }


def dino_panel_from_sums(
    sums: Mapping[str, jax.Array], *, axis_name: str | None = None
) -> dict[str, jax.Array]:
    """Compute the five scalars of `dino_panel` from the sums of `sum_dino`.

    Args:
        sums: sums of the batch, or of this device's part of it.
        axis_name: as in `dino_panel`.

    Returns:
        As in `dino_panel`.

    >>> sums = sum_dino(
    ...     jnp.zeros((2, 3, 4)),
    ...     jnp.zeros((1, 3, 4)),
    ...     center_k=jnp.zeros(4),
    ...     student_temperature=0.1,
    ...     teacher_temperature=0.04,
    ... )
    >>> print(dino_panel_from_sums(sums)["cross_entropy"])  # ln 4
    1.3862944
    """
    sums = sum_over_axis(dict(sums), axis_name)
    count = sums["count"]
    loss, entropy, shares = (
        sums[name] / jnp.maximum(count, 1.0) for name in ("loss", "entropy", "shares")
    )
    # 0 log 0 is 0 for an unused prototype.
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

    Collapsed if mean_entropy - teacher_entropy < `MIN_INFORMATION` ln K (the
    output does not depend on the example) or mean_entropy < `MIN_MEAN_ENTROPY` (one
    prototype takes all). kl is not a criterion: with two temperatures it can be large
    for a constant output, and its size in a good run depends on the data.

    A constant output becomes uniform once the centre has caught up with it. In the
    first updates from random weights outputs are nearly constant even in good runs:
    apply the rule after the warm-up. In a batch of a few examples that rightly share a
    prototype, "one prototype" is a false alarm.

    Args:
        panel: result of `dino_panel`, with concrete values.

    Returns:
        `(True, reason)`, where the reason begins with "one prototype", "uniform" or
        "constant", or `(False, "")`. NaN is never a sign of collapse.

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
    # No alarm for NaN: each comparison is then false.
    if information < MIN_INFORMATION * log_k:
        if entropy > UNIFORM_ENTROPY * log_k:
            return True, (
                f"uniform teacher: entropy {entropy:.3f} of ln K = {log_k:.3f}, the "
                "same for every example"
            )
        return True, (
            f"constant output: {information:.4f} nats of information on the example, "
            f"below {MIN_INFORMATION} ln K = {MIN_INFORMATION * log_k:.4f}"
        )
    return False, ""
