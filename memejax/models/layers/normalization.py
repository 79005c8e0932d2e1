"""Batch and layer normalisation, in float32."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.layers.kinds import Initializer
from memejax.models.layers.shapes import add_leading_axes


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as one multiply-add.

    y = x * scale / sqrt(var + eps) + (bias - mean * scale / sqrt(var + eps))

    Training normalises with the biased variance of the (global) batch and updates
    the running variance with the unbiased one, n / (n - 1) times as large, as
    PyTorch does. `momentum` is the share that the running statistics keep (0.9 here is
    0.1 in PyTorch).

    Parameters: `scale`, `bias` `[d]` (PyTorch's `weight`, `bias`); collection
    "batch_stats": `mean`, `var` `[d]` (`running_mean`, `running_var`).

    References:
        Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    axis_name: str | None = None
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `[..., d]` of any float dtype into float32."""
        d = x.shape[-1]
        scale = self.param("scale", self.scale_init, (d,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (d,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (d,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (d,))

        x = x.astype(jnp.float32)
        if not train:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var, n = self._batch_statistics(x)
            if not self.is_initializing():
                keep, new = self.momentum, 1.0 - self.momentum
                unbiased = var * (n / (n - 1))
                running_mean.value = keep * running_mean.value + new * mean
                running_var.value = keep * running_var.value + new * unbiased

        multiplier = scale * lax.rsqrt(var + self.eps)
        shift = bias - mean * multiplier
        return x * add_leading_axes(multiplier, x.ndim) + add_leading_axes(
            shift, x.ndim
        )

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        axes = tuple(range(x.ndim - 1))
        n = math.prod(x.shape[:-1])
        # Both moments in one pass over x, and one collective for the two.
        moments = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(moments, self.axis_name)
            n = n * lax.axis_size(self.axis_name)
        if n < 2 and not self.is_initializing():
            raise ValueError(
                "got one value per channel, expected at least 2 to normalise a batch"
            )
        mean, mean_of_squares = moments
        # Rounding can take the difference below zero for a constant channel.
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
        return mean, var, n


class LayerNorm(nn.Module):
    """Layer normalisation of the last axis, in float32.

    Parameters: `scale`, `bias` `[d]` (PyTorch's `weight`, `bias`).

    References:
        Ba et al. 2016, arXiv:1607.06450.
    """

    eps: float = 1e-12

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise `[..., d]` into float32."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        # Two passes: the residual stream of a ViT has features whose mean is many
        # times their deviation, where E[x^2] - E[x]^2 loses digits.
        centred = x - jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(centred), -1, keepdims=True)
        out = centred * lax.rsqrt(var + self.eps) * add_leading_axes(scale, x.ndim)
        return out + add_leading_axes(bias, x.ndim)


def unit_rows(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Divide by the L2 norm of the last axis.

    Args:
        x: float32 `[..., d]`.
        eps: norm up to which a vector counts as zero: it stays 0 and receives no
            gradient. A picture or caption that is missing has features of exactly 0.
    """
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    directed = squared > eps**2
    return jnp.where(directed, x * lax.rsqrt(jnp.where(directed, squared, 1.0)), 0.0)
