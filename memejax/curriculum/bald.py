"""BALD and other scores of disagreement between several predictions of each example.

The passes come from dropout left on (`mc_dropout`), the members of an ensemble, or any
committee. Shape suffix: `_mnc` is `[M, n, C]`, M passes, n examples, C >= 2 classes;
there may be several axes of examples in place of n. As in `scores`, high = harder,
everything is float32, values are not checked, and a NaN in any pass of an example
makes only its own score NaN.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.curriculum.scores import checked, entropy


def bald(probs_mnc: ArrayLike, *, log: bool = False) -> jax.Array:
    """Bayesian active learning by disagreement (BALD) in nats, per example.

    `H(mean_m p_m) - mean_m H(p_m)`: the mutual information of the prediction and the
    parameters. It is 0 where all passes agree, however uncertain they are.

    Computed as `mean_m sum_c q_c phi(p_mc / q_c)` with `q = mean_m p_m` and
    `phi(r) = r ln r - r + 1`: equal, but a sum of non-negative terms. The difference of
    two entropies is rounding noise where the passes of a trained model hardly differ,
    and a sampler that targets a ratio of probabilities magnifies noise.

    With few passes it is biased low. Where passes differ little, its mean over draws of
    M passes is `1 - 1/M` of its limit; this common factor does not affect a sampler
    with a maximum ratio, but the variance of the estimate does.

    Args:
        probs_mnc: `[M, n, C]` of any float dtype, each row summing to 1.
        log: probs_mnc holds log-probabilities, -inf included.

    Returns:
        float32 `[n]` in [0, min(ln C, ln M)], high = harder; 0 where M is 1. Gradients
        are finite: 0 for a class without mass.

    Raises:
        ValueError: if the axis of passes is missing or empty, or C < 2.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.6). Houlsby et al., Bayesian Active Learning for
        Classification and Preference Learning, arXiv 1112.5745. Gal, Islam and
        Ghahramani, Deep Bayesian Active Learning with Image Data, arXiv 1703.02910.

    >>> same, opposite = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    >>> print(bald(jnp.swapaxes(jnp.array([same, opposite]), 0, 1)))
    [0.        0.6931472]
    """
    probs = checked(probs_mnc, "probs_mnc", passes=True)
    probs = jnp.exp(probs) if log else probs
    mean = jnp.mean(probs, axis=0, keepdims=True)
    divisor = jnp.where(mean == 0, 1.0, mean)
    ratio, excess = probs / divisor, (probs - mean) / divisor
    # log1p near 1, because phi is of second order in the excess there. Each branch gets
    # harmless arguments where it is not taken, so that gradients are finite.
    near = jnp.abs(excess) < 0.5
    close = jnp.log1p(jnp.where(near, excess, 0.0))
    far = jnp.log(jnp.where(near | (ratio == 0), 1.0, ratio))
    phi = ratio * jnp.where(near, close, far) - excess
    total = jnp.sum(jnp.mean(mean * phi, axis=0), axis=-1)
    return jnp.maximum(total, 0.0)


def vote_entropy(probs_mnc: ArrayLike) -> jax.Array:
    """Entropy of the votes of a committee, in nats, per example.

    `-sum_c v_c ln v_c` with v_c the share of the passes whose most probable class is
    c; tied classes share the vote of that pass.

    Args:
        probs_mnc: `[M, n, C]` of any float dtype: probabilities, log-probabilities or
            logits, as only the order within a row matters.

    Returns:
        float32 `[n]` in [0, ln C], high = harder; at most ln M without ties. Piecewise
        constant: its gradient is 0.

    Raises:
        ValueError: if the axis of passes is missing or empty, or C < 2.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (2.5).

    >>> votes = jnp.array([[[0.9, 0.1]], [[0.2, 0.8]]])  # two passes, one example
    >>> print(vote_entropy(votes))
    [0.6931472]
    """
    probs = checked(probs_mnc, "probs_mnc", passes=True)
    largest = jnp.max(probs, axis=-1, keepdims=True)
    top = (probs == largest).astype(jnp.float32)
    votes = top / jnp.sum(top, axis=-1, keepdims=True)
    # Nothing equals NaN, and XLA turns the division into a selection, 0 instead of 0/0.
    votes = jnp.where(jnp.isnan(largest), jnp.nan, votes)
    return entropy(jnp.mean(votes, axis=0))


def predictive_variance(probs_mnc: ArrayLike) -> jax.Array:
    """Variance of the predicted probabilities over the passes, per example.

    `sum_c mean_m (p_mc - q_c)^2` with `q = mean_m p_m`: the sum over classes of the
    biased variance (divided by M). It equals `G(q) - mean_m G(p_m)` for the Gini
    impurity `G(p) = 1 - sum_c p_c^2`, as `bald` does for the entropy.

    Args:
        probs_mnc: `[M, n, C]` of any float dtype, each row summing to 1.

    Returns:
        float32 `[n]` in [0, 1 - 1/min(M, C)], high = harder; 0 where M is 1.

    Raises:
        ValueError: if the axis of passes is missing or empty, or C < 2.

    References:
        Chang, Learned-Miller and McCallum, Active Bias, arXiv 1704.07433: the variance
        of one class's probability over training iterations.

    >>> print(predictive_variance(jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])))
    [0.5]
    """
    probs = checked(probs_mnc, "probs_mnc", passes=True)
    centred = probs - jnp.mean(probs, axis=0, keepdims=True)
    return jnp.sum(jnp.mean(centred**2, axis=0), axis=-1)
