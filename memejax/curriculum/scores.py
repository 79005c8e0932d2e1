"""Active scores from one prediction of each example.

Every score is an uncertainty as printed in the thesis: high = harder. Whether a
curriculum favours easy or hard examples is decided where scores are used, not here.

`[..., C]`: any leading axes, then C >= 2 classes. Scores are computed in float32 and
return float32 `[...]`. Values are not checked, because a compiled function cannot: a
NaN in an example's prediction makes only its own score NaN. Saturated softmax outputs,
and AADT by its form, give exact ties, to be broken when scores are ranked.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def aadt(
    probs: ArrayLike, *, squared: bool = False, bound: float | None = None
) -> jax.Array:
    """Inverse average absolute deviation from the threshold 1/C, per example.

    `min(C / sum_c |p_c - 1/C|, bound)`, or `min(C / sum_c (p_c - 1/C)^2, bound)`.

    It is `C^2 / (2 (C - 1))` for a one-hot prediction (`C^2 / (C - 1)` squared) and
    infinite for the uniform one, hence the bound. If k classes have all the mass and
    each at least 1/C, the score is `C^2 / (2 (C - k))` however they share it: with 10
    classes (.85, .15, 0, ...) and (.5, .5, 0, ...) tie at 6.25.

    Args:
        probs: `[..., C]` of any float dtype, each row summing to 1.
        squared: sum squares in place of absolute values.
        bound: the largest score. By default the largest score of a prediction at
            distance `sum_c |p_c - 1/C| = 0.001`, which is `1000 C`, and `10^6 C^2` if
            squared. One score far above all others flattens their sampling
            probabilities; a lower bound prevents that.

    Returns:
        float32 `[...]`, high = harder. The gradient is 0 where the bound is active.

    Raises:
        ValueError: if C < 2, or if bound is not above the score of a one-hot
            prediction.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.2).

    >>> print(aadt(jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])))
    [2.6666667 4.       ]
    """
    probs = checked(probs, "probs")
    classes = probs.shape[-1]
    least = classes**2 / (classes - 1) / (1 if squared else 2)
    largest = (1000.0 * classes) ** (2 if squared else 1) if bound is None else bound
    if not largest > least:
        raise ValueError(
            f"got bound {bound}, expected more than {least:g}, the score of a one-hot "
            f"prediction of {classes} classes"
        )
    deviation = probs - 1.0 / classes
    terms = deviation**2 if squared else jnp.abs(deviation)
    # A floor on the sum, not a ceiling on the ratio: no 0 * inf in the gradient.
    return classes / jnp.maximum(jnp.sum(terms, axis=-1), classes / largest)


def entropy(probs: ArrayLike, *, log: bool = False) -> jax.Array:
    """Shannon entropy of a prediction in nats, per example.

    `-sum_c p_c ln p_c`, where `0 ln 0 = 0`.

    Args:
        probs: `[..., C]` of any float dtype, each row summing to 1.
        log: probs holds log-probabilities (a log-softmax), -inf included; more exact
            if one class has almost all the mass.

    Returns:
        float32 `[...]` in [0, ln C] up to rounding, high = harder. The gradient of a
        class without mass is 0; with respect to its probability the limit is +inf.

    Raises:
        ValueError: if C < 2.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.4).

    >>> print(entropy(jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])))
    [0.6931472 0.       ]
    """
    values = checked(probs, "probs")
    # Replaced before the logarithm or the product, so that the gradient is finite too.
    if log:
        empty = values == -jnp.inf
        logs = jnp.where(empty, 0.0, values)
        terms = jnp.where(empty, 0.0, jnp.exp(logs)) * logs
    else:
        terms = values * jnp.log(jnp.where(values == 0, 1.0, values))
    return jnp.sum(-terms, axis=-1)


def least_confidence(probs: ArrayLike) -> jax.Array:
    """Least confidence, per example: one minus the largest probability.

    `1 - max_c p_c`.

    Args:
        probs: `[..., C]` of any float dtype, each row summing to 1.

    Returns:
        float32 `[...]` in [0, 1 - 1/C], high = harder.

    Raises:
        ValueError: if C < 2.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (2.1).

    >>> print(least_confidence(jnp.array([[0.25, 0.75], [1.0, 0.0]])))
    [0.25 0.  ]
    """
    return 1.0 - jnp.max(checked(probs, "probs"), axis=-1)


def margin(probs: ArrayLike) -> jax.Array:
    """One minus the margin between the two most probable classes, per example.

    `1 - (p_(1) - p_(2))`, with p_(1) and p_(2) the largest and the second.

    Args:
        probs: `[..., C]` of any float dtype, each row summing to 1.

    Returns:
        float32 `[...]` in [0, 1], high = harder: 1 where the two are equal. (The margin
        itself, `p_(1) - p_(2)`, is high where a prediction is certain.)

    Raises:
        ValueError: if C < 2.

    References:
        Settles, Active Learning Literature Survey, 2009, section 3.1.

    >>> print(margin(jnp.array([[0.25, 0.5, 0.25], [0.0, 0.5, 0.5]])))
    [0.75 1.  ]
    """
    largest, _ = jax.lax.top_k(checked(probs, "probs"), 2)
    return 1.0 - (largest[..., 0] - largest[..., 1])


def cross_entropy(log_probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Cross-entropy of the true class as a score, per example.

    `-ln p_label`. The only score here that needs labels, so that a wrong label makes an
    example hard.

    Args:
        log_probs: `[..., C]` of any float dtype: log-probabilities (a log-softmax).
        labels: int `[...]` in [0, C). The score of any other label (-1: unknown) is
            NaN.

    Returns:
        float32 `[...]`, at least 0, high = harder; +inf if the log-probability of the
        label is -inf.

    Raises:
        ValueError: if C < 2, or if labels are not integers of the leading shape.

    >>> log_probs = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> print(cross_entropy(log_probs, jnp.array([0, 0])))
    [0.6931472 1.3862944]
    """
    log_probs, labels = checked(log_probs, "log_probs"), jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"got labels of dtype {labels.dtype}, expected integers")
    if labels.shape != log_probs.shape[:-1]:
        raise ValueError(
            f"got log_probs of shape {log_probs.shape} and labels of shape "
            f"{labels.shape}, expected labels of shape {log_probs.shape[:-1]}"
        )
    known = (labels >= 0) & (labels < log_probs.shape[-1])
    index = jnp.where(known, labels, 0)[..., None]
    loss = -jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
    return jnp.where(known, loss, jnp.nan)


def checked(values: ArrayLike, name: str, *, passes: bool = False) -> jax.Array:
    """Return predictions as float32 after checking their shape.

    Args:
        values: `[..., C]`, or `[M, ..., n, C]` with passes.
        name: their name in an error.
        passes: whether an axis of passes and one of examples are required.

    Returns:
        float32, in the same shape.

    Raises:
        ValueError: if an axis is missing or empty, or if C < 2.
    """
    values = jnp.asarray(values, jnp.float32)
    if passes and (values.ndim < 3 or values.shape[0] < 1):
        raise ValueError(
            f"got {name} of shape {values.shape}, expected [passes, examples, classes] "
            "with at least one pass"
        )
    if values.ndim < 1 or values.shape[-1] < 2:
        raise ValueError(
            f"got {name} of shape {values.shape}, expected [..., classes] with at "
            "least two classes (a single logit x is the two logits 0 and x)"
        )
    return values
