"""How hard an example is, from several stochastic predictions of it.

The passes are those of dropout left on (`mc_dropout`), of the members of an ensemble,
or of any committee. Shape suffix: `_mnc` is `[M, n, C]`, M passes, n examples, C >= 2
classes; more axes of examples may stand in place of n. As in `scores`, high = harder,
all is float32, values are not checked, and a NaN in any pass of an example makes its
score NaN, and no other's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.curriculum.scores import checked, entropy

Tree = Any


def bald(probs_mnc: ArrayLike, *, log: bool = False) -> jax.Array:
    """What the passes disagree about, in nats, per example.

    `H(mean_m p_m) - mean_m H(p_m)`: the mutual information of the prediction and the
    parameters. It is 0 where all passes say the same, however uncertain they are.

    Computed as `mean_m sum_c q_c phi(p_mc / q_c)` with `q = mean_m p_m` and
    `phi(r) = r ln r - r + 1`: equal, but of terms that are all at least 0. The
    difference of two entropies is rounding noise where a trained model hardly
    disagrees, and a sampler that targets a ratio of probabilities magnifies noise.

    With few passes it is biased low. Where passes differ little, its mean over draws of
    M passes is `1 - 1/M` of its limit; a common factor is of no consequence to a
    sampler with a maximum ratio, the spread of the estimate is.

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
    # log1p near 1, for phi is of second order in the excess there. Each branch gets
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
    c; classes that tie share the vote of that pass.

    Args:
        probs_mnc: `[M, n, C]` of any float dtype: probabilities, their logarithms, or
            logits, as only the order within a row counts.

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
    # Nothing equals NaN, and XLA makes a selection of the division, 0 where 0 / 0 was.
    votes = jnp.where(jnp.isnan(largest), jnp.nan, votes)
    return entropy(jnp.mean(votes, axis=0))


def predictive_variance(probs_mnc: ArrayLike) -> jax.Array:
    """Variance of the predicted probabilities over the passes, per example.

    `sum_c mean_m (p_mc - q_c)^2` with `q = mean_m p_m`: the sum over classes of the
    biased variance (divided by M). It is `G(q) - mean_m G(p_m)` for the Gini impurity
    `G(p) = 1 - sum_c p_c^2`, as `bald` is for the entropy.

    Args:
        probs_mnc: `[M, n, C]` of any float dtype, each row summing to 1.

    Returns:
        float32 `[n]` in [0, 1 - 1/min(M, C)], high = harder; 0 where M is 1.

    Raises:
        ValueError: if the axis of passes is missing or empty, or C < 2.

    References:
        Chang, Learned-Miller and McCallum, Active Bias, arXiv 1704.07433: the variance
        of one class's probability over the iterations of training.

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

    `log softmax head(trunk(x), key_m)` with `key_m = fold_in(key, m)`. What comes
    before the first dropout is the same in all passes and is computed once.

    The keys depend on nothing but (key, m). An example's score is its own, whatever
    else is in the batch, if head_fn draws its masks without regard to the batch: one
    mask a pass, shared by all examples, as `nn.Dropout(rate, broadcast_dims=(0,))` of
    Flax does. With a mask an example, scores change with the order and the size of the
    chunks, and compare examples under different networks.

    Args:
        trunk_fn: inputs -> features, without randomness (BatchNorm in evaluation mode).
        head_fn: (features, key) -> logits `[n, C]` of any float dtype.
        inputs: what trunk_fn takes.
        key: of all passes: a key of `jax.random`.
        passes: M, at least 1. The first passes do not depend on how many follow.
        at_once: how many passes run side by side; the memory for the head's activations
            grows with it, and 1 runs them one after another.

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

    side_by_side = None if at_once == 1 else min(at_once, passes)
    return jax.lax.map(one_pass, jnp.arange(passes), batch_size=side_by_side)
