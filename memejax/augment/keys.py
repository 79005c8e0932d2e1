"""Per-example randomness: keys `[b]` and draws from them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Folded into an example's key, one number per operation. Far from 0, 1, 2, ...: with
# jax's default generator `split(key)[i]` is `fold_in(key, i)`, so small numbers could
# collide with a caller's keys. Append new operations at the end: changing a number
# changes the views of old runs.
CROP, FLIP, JITTER, GRAYSCALE, NOISE, TOKENS = range(1_000_003, 1_000_009)
PERSPECTIVE, AFFINE, BLUR, SOLARIZE = range(1_000_009, 1_000_013)
# For whole recipes: the crops of `multi_crop`, the two rounds of `cass_view`.
CROPS, ROUNDS = range(1_000_013, 1_000_015)
SHIFT = 1_000_015


def example_keys(
    key: jax.Array, index: ArrayLike, draw: ArrayLike, stream: int
) -> jax.Array:
    """Derive one key per example from the run's key and the example's identity.

    `fold_in(fold_in(fold_in(key, stream), index), draw)`

    Args:
        key: a typed PRNG key (`jax.random.key(seed)`).
        index: the examples' indices in the source, int `[b]`, at least 0.
        draw: number of earlier draws of the example in the run, int `[b]`, at least 0.
        stream: number of an independent stream of keys, such as the views of one arm.

    Returns:
        Keys `[b]`.
    """
    key = jax.random.fold_in(key, stream)

    def example_key(index: jax.Array, draw: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, index), draw)

    return jax.vmap(example_key)(jnp.asarray(index), jnp.asarray(draw))


def fold(keys: jax.Array, number: ArrayLike) -> jax.Array:
    """Fold a number into keys `[b]`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def uniform(keys: jax.Array, count: int) -> jax.Array:
    """Draw `count` uniform numbers in [0, 1) per example, `[b, count]`."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def select(chosen: jax.Array, changed: jax.Array, images: jax.Array) -> jax.Array:
    """Return `changed` for the chosen examples (bool `[b]`), else `images`."""
    return jnp.where(chosen[:, None, None, None], changed, images)
