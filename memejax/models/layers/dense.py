"""Affine maps of the last axis, and the MLP of two with an activation between them.

Shape suffixes: `b` batch, `t` tokens, `d` features.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.layers.kinds import Dtype, Initializer
from memejax.models.layers.products import pointwise
from memejax.models.layers.shapes import add_leading_axes


class Dense(nn.Module):
    """Affine map of the last axis: x W + b, with float32 outputs.

    Parameters: `kernel` `[in, out]` (PyTorch's `weight`, transposed), `bias` `[out]`.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    # If no weights are loaded: the references' normal(0.02) suits a width of 768 and is
    # too small for a narrow network.
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[..., in]` to `[..., features]` float32."""
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32
        )
        out = pointwise(x, kernel, dtype=self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            out = out + add_leading_axes(bias, out.ndim)
        return out


class Mlp(nn.Module):
    """Two affine maps with an activation between them.

    Parameters: `up` `[d, width]`, `down` `[width, d]`, each a `Dense`.

    Attributes:
        width: features between the maps.
        dtype: dtype of products.
        activation: one of ACTIVATIONS.
    """

    width: int
    dtype: Dtype = jnp.float32
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Map `[b, t, d]` to `[b, t, d]` float32."""
        hidden = Dense(self.width, dtype=self.dtype, name="up")(x_btd)
        hidden = ACTIVATIONS[self.activation](hidden)
        return Dense(x_btd.shape[-1], dtype=self.dtype, name="down")(hidden)


def gelu(x: jax.Array) -> jax.Array:
    """Compute the exact gelu: x / 2 * (1 + erf(x / sqrt(2))).

    On a CPU the erf takes a third of the time of the erfc in `jax.nn.gelu`.
    """
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


def quick_gelu(x: jax.Array) -> jax.Array:
    """Compute OpenAI's approximation of the gelu: x sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


# By their names in Hugging Face's `hidden_act`.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "quick_gelu": quick_gelu,
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
}
