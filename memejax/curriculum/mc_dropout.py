"""Active scores from several stochastic predictions of each example.

The passes come from dropout left on (`mc_dropout`), the members of an ensemble, or any
committee. Shape suffix: `_mnc` is `[M, n, C]`, M passes, n examples, C >= 2 classes;
there may be several axes of examples in place of n. As in `scores`, high = harder,
everything is float32, values are not checked, and a NaN in any pass of an example
makes only its own score NaN.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.curriculum.scores import checked, entropy

Tree = Any


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


def mc_dropout(
    trunk_fn: Callable[[Tree], Tree],
    head_fn: Callable[[Tree, jax.Array], jax.Array],
    inputs: Tree,
    *,
    key: jax.Array,
    passes: int,
    at_once: int = 1,
) -> jax.Array:
    """Log-probabilities of several passes with dropout left on.

    `log softmax head(trunk(x), key_m)` with `key_m = fold_in(key, m)`. Everything
    before the first dropout is the same in all passes and is computed once.

    The keys depend only on (key, m). An example's score does not depend on the rest of
    the batch if head_fn draws one mask per pass, shared by all examples, as Flax's
    `nn.Dropout(rate, broadcast_dims=(0,))` does. With one mask per example, scores
    change with the order and size of the chunks, and compare examples under different
    networks.

    Args:
        trunk_fn: inputs -> features, without randomness (BatchNorm in evaluation mode).
        head_fn: (features, key) -> logits `[n, C]` of any float dtype.
        inputs: input of trunk_fn.
        key: a `jax.random` key, for all passes.
        passes: M, at least 1. The first passes do not depend on how many follow.
        at_once: number of passes computed in parallel; the memory for the head's
            activations grows with it, and 1 runs them one after another.

    Returns:
        float32 `[M, n, C]`, for `bald(..., log=True)`.

    Raises:
        ValueError: if passes or at_once is less than 1, or if head_fn does not return
            `[n, C]` with C >= 2.

    References:
        Gal and Ghahramani, Dropout as a Bayesian Approximation, arXiv 1506.02142.

    >>> def head(features, key):
    ...     keep = jax.random.bernoulli(key, 0.5, (1, 4))  # one mask for all examples
    ...     return jnp.where(keep, features, 0.0) @ jnp.ones((4, 3))
    >>> log_probs = mc_dropout(
    ...     jnp.tanh, head, jnp.ones((2, 4)), key=jax.random.key(0), passes=5
    ... )
    >>> print(log_probs.shape)
    (5, 2, 3)
    """
    if passes < 1 or at_once < 1:
        raise ValueError(
            f"got passes {passes} and at_once {at_once}, expected at least 1 of each"
        )
    features = trunk_fn(inputs)

    def one_pass(m: jax.Array) -> jax.Array:
        logits = head_fn(features, jax.random.fold_in(key, m))
        if logits.ndim != 2:
            raise ValueError(
                f"got logits of shape {logits.shape} from head_fn, expected "
                "[examples, classes]"
            )
        return jax.nn.log_softmax(checked(logits, "logits of head_fn"))

    batch_size = None if at_once == 1 else min(at_once, passes)
    return jax.lax.map(one_pass, jnp.arange(passes), batch_size=batch_size)
