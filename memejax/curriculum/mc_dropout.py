"""Passes with dropout left on, whose disagreement `bald` measures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memejax.curriculum.scores import checked

Tree = Any


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
