"""Layers of the pyramid and of the heads: convolutions with a bias."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import Conv, Dtype, add_leading_axes, contract


class BiasedConv(nn.Module):
    """Convolution with a bias and stride 1 that keeps height and width.

    Parameters: `conv/kernel` `[size, size, in, out]` (PyTorch's `weight` `[out, in,
    size, size]`, transposed), `bias` `[out]`.
    """

    features: int
    size: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bhwd: jax.Array) -> jax.Array:
        """Map `[b, h, w, in]` to `[b, h, w, features]` in `dtype`."""
        conv = Conv(
            self.features,
            size=self.size,
            padding=self.size // 2,
            dtype=self.dtype,
            name="conv",
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        out = conv(x_bhwd).astype(jnp.float32) + add_leading_axes(bias, 4)
        return out.astype(self.dtype)


class Doubling(nn.Module):
    """Transposed 2 x 2 convolution with stride 2, as one matrix product.

    Parameters: `kernel` `[in, 2, 2, out]` (PyTorch's `weight` `[in, out, 2, 2]`,
    transposed; not flipped), `bias` `[out]`.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_bhwd: jax.Array) -> jax.Array:
        """Map `[b, h, w, in]` to `[b, 2 h, 2 w, features]` float32."""
        b, h, w, d = x_bhwd.shape
        kernel = self.param(
            "kernel",
            nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=0),
            (d, 2, 2, self.features),
            jnp.float32,
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        rows = x_bhwd.reshape(-1, d)
        out = contract("ri,io->ro", rows, b=kernel.reshape(d, -1), dtype=self.dtype)
        out = out.reshape(b, h, w, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return out.reshape(b, 2 * h, 2 * w, self.features) + add_leading_axes(bias, 4)
