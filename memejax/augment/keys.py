"""Random numbers an example: keys `[b]`, and what is drawn from them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Folded into an example's key, one number an operation. Far from 0, 1, 2, ...: with
# jax's default generator `split(key)[i]` is `fold_in(key, i)`, so that small ones
# could be a caller's own. New operations go to the end: the numbers are what makes
# an old run's views come out again.
CROP, FLIP, JITTER, GRAYSCALE, NOISE, TOKENS = range(1_000_003, 1_000_009)
PERSPECTIVE, AFFINE, BLUR, SOLARIZE = range(1_000_009, 1_000_013)
# Of a whole recipe: the crops of `multi_crop`, the two rounds of `cass_view`.
CROPS, ROUNDS = range(1_000_013, 1_000_015)


def example_keys(
    key: jax.Array, index: ArrayLike, draw: ArrayLike, stream: int
) -> jax.Array:
    """One key an example, from the run's key and what the example is.

    `fold_in(fold_in(fold_in(key, stream), index), draw)`

    Args:
        key: a typed PRNG key (`jax.random.key(seed)`).
        index: the examples' places in the source, int `[b]`, at least 0.
        draw: which draw of the example in the run this is, int `[b]`, at least 0.
        stream: what the keys are for; two streams (the views of two arms) share
            nothing.

    Returns:
        Keys `[b]`.
    """
    key = jax.random.fold_in(key, stream)

    def one(index: jax.Array, draw: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, index), draw)

    return jax.vmap(one)(jnp.asarray(index), jnp.asarray(draw))


def fold(keys: jax.Array, number: ArrayLike) -> jax.Array:
    """Other keys `[b]` from keys `[b]`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def uniform(keys: jax.Array, count: int) -> jax.Array:
    """`count` numbers in [0, 1) an example, `[b, count]`."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def select(chosen: jax.Array, changed: jax.Array, images: jax.Array) -> jax.Array:
    """`changed` for the examples chosen (bool `[b]`), else `images`."""
    return jnp.where(chosen[:, None, None, None], changed, images)
