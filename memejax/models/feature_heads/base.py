"""Parts of the heads on stored features, and their result.

Shape suffixes: `b` batch, `d` features.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import Dropout, unit_rows


class HeadOutput(NamedTuple):
    """Result of a head.

    Attributes:
        logits: log odds of "hateful", float32 `[b]`.
        embedding: features before the classifier, float32 `[b, d]`, not normalised. If
            the head has an MLP: the output of its last linear layer, before ReLU and
            dropout.
    """

    logits: jax.Array
    embedding: jax.Array


class FeatureHead(nn.Module):
    """Base class of the heads on stored features."""

    def __call__(
        self, image_bd: jax.Array, text_bd: jax.Array, *, train: bool
    ) -> HeadOutput:
        """Classify memes by their features.

        Args:
            image_bd: features of the pictures, float `[b, d]`.
            text_bd: features of the captions, float `[b, e]`.
            train: whether dropout is active (rng "dropout").

        Raises:
            ValueError: if the features are not float `[b, d]` and `[b, e]`.
        """
        raise NotImplementedError


class MappedFeatures(nn.Module):
    """Linear map to `width`, dropout, and division by the L2 norm.

    Parameters: `linear`.
    """

    width: int
    dropout: float

    @nn.compact
    def __call__(self, features_bd: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, d]` to `[b, width]` of unit length (or zero)."""
        inputs = features_bd.shape[-1]
        mapped = linear(self.width, inputs=inputs, name="linear")(features_bd)
        return unit_rows(Dropout(self.dropout)(mapped, deterministic=not train))


class PreOutput(nn.Module):
    """Dropout, then n times (Linear, ReLU, dropout).

    Parameters: `linear<i>`.
    """

    width: int
    layers: int
    input_dropout: float
    dropout: float

    @nn.compact
    def __call__(
        self, fused_bd: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Map `[b, d]` to the last linear layer's output and the MLP's, `[b, width]`.

        Raises:
            ValueError: if there is no layer.
        """
        if self.layers < 1:
            raise ValueError(f"got {self.layers} layers, expected at least 1")
        embedding = fused_bd
        hidden = Dropout(self.input_dropout)(fused_bd, deterministic=not train)
        for i in range(self.layers):
            inputs = hidden.shape[-1]
            embedding = linear(self.width, inputs=inputs, name=f"linear{i}")(hidden)
            hidden = nn.relu(embedding)
            hidden = Dropout(self.dropout)(hidden, deterministic=not train)
        return embedding, hidden


def linear(features: int, *, inputs: int, name: str, use_bias: bool = True) -> nn.Dense:
    """Return a linear layer that starts as PyTorch's, as the published heads do.

    Kernel and bias are uniform in +-1 / sqrt(inputs). The bias matters: the product of
    two unit vectors of width 1024 has a length of about 1/32, so that at the start it
    is smaller than the biases of the layer behind it.

    Args:
        features: width of the output.
        inputs: width of the input.
        name: name of the layer's parameters in the calling module.
        use_bias: whether the layer has a bias.
    """
    bound = inputs**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return nn.Dense(
        features, use_bias=use_bias, kernel_init=uniform, bias_init=uniform, name=name
    )


def as_features(image_bd: jax.Array, text_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both features as float32.

    Raises:
        ValueError: if they are not float `[b, d]` and `[b, e]` of the same b.
    """
    image_bd, text_bd = jnp.asarray(image_bd), jnp.asarray(text_bd)
    # Not len: the program of an export has a batch of symbolic size.
    rows = image_bd.ndim == text_bd.ndim == 2 and image_bd.shape[0] == text_bd.shape[0]
    if not rows or not all(
        jnp.issubdtype(x.dtype, jnp.floating) for x in (image_bd, text_bd)
    ):
        raise ValueError(
            f"got image features {image_bd.dtype}{list(image_bd.shape)} and text "
            f"features {text_bd.dtype}{list(text_bd.shape)}, expected float [b, d] and "
            "[b, e]"
        )
    return image_bd.astype(jnp.float32), text_bd.astype(jnp.float32)
