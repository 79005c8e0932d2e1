"""The feature pyramid."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import Dtype
from memejax.models.maskrcnn.layers import BiasedConv


class Pyramid(nn.Module):
    """Feature pyramid: maps of all strides with an equal number of channels.

    From the coarsest map down: inner_i(map_i) + the sum of the level above upsampled
    by 2, then out_i; the last level is every second value of the coarsest output.

    Parameters: `inner<i>` (1x1) and `out<i>` (3x3), each a `BiasedConv`.

    References:
        Lin et al. 2016, arXiv:1612.03144.
    """

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Map n maps `[b, h, w, ?]`, each half the size of the previous, to n + 1.

        The results are `[b, h, w, channels]` in `dtype`.
        """
        outs, above = [], None
        for i in reversed(range(len(maps))):
            inner = BiasedConv(self.channels, 1, self.dtype, name=f"inner{i}")(maps[i])
            if above is not None:
                inner = inner + jnp.repeat(jnp.repeat(above, 2, axis=1), 2, axis=2)
            outs.append(BiasedConv(self.channels, 3, self.dtype, name=f"out{i}")(inner))
            above = inner
        outs.reverse()
        return [*outs, outs[-1][:, ::2, ::2]]
