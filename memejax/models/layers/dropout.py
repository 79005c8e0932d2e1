"""Dropout: a function that takes a key, and a module that takes Linen's rng."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def dropout(
    key: jax.Array, x: jax.Array, *, rate: float, shared: bool = False
) -> jax.Array:
    """Set each value to 0 with probability `rate`, else divide it by 1 - rate.

    Args:
        key: PRNG key.
        x: `[b, ...]`.
        rate: in [0, 1).
        shared: whether the batch shares one mask, so that an example's result does not
            depend on the rest of its batch.

    References:
        Srivastava et al., Dropout, JMLR 15 (2014).
    """
    shape = (1, *x.shape[1:]) if shared else x.shape
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return jnp.where(jnp.broadcast_to(kept, x.shape), x / (1.0 - rate), 0.0)


class Dropout(nn.Module):
    """Elementwise dropout from 16 random bits per value.

    `nn.Dropout` draws 32 random bits per value; with half of that a GraphSAGE on a CPU
    takes 0.8 of the time. `rate` is exact to 1 / 65536.

    References:
        Srivastava et al., Dropout, JMLR 15 (2014).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Set each value to 0 with probability `rate`, else divide it by 1 - rate.

        Args:
            x: `[..., d]`.
            deterministic: whether to return x unchanged; else the rng "dropout" is
                used.

        Raises:
            ValueError: if the rate is not in [0, 1).
        """
        kept = self.kept(x.shape, deterministic=deterministic)
        return x if kept is None else jnp.where(kept, x / (1.0 - self.rate), 0.0)

    @nn.nowrap
    def kept(self, shape: tuple[int, ...], *, deterministic: bool) -> jax.Array | None:
        """Draw which values are kept, bool of this shape; None if all are.

        Args:
            shape: `[..., d]`.
            deterministic: whether all are.

        Raises:
            ValueError: if the rate is not in [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"got dropout rate {self.rate}, expected it in [0, 1)")
        if deterministic or self.rate == 0:
            return None
        # Along the last axis, so that an array sharded over devices stays sharded.
        words = (*shape[:-1], -(-shape[-1] // 2))
        bits = jax.random.bits(self.make_rng("dropout"), words, jnp.uint32)
        halves = lax.bitcast_convert_type(bits, jnp.uint16)
        halves = halves.reshape(*words[:-1], -1)[..., : shape[-1]]
        return halves >= round(self.rate * 2**16)
