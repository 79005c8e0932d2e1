"""Heads on top of an arm's features: small multilayer perceptrons.

Shape suffixes: none; every array here is `[batch, features]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from memejax.models.layers import BatchNorm, unit_rows


class Predictor(nn.Module):
    """SimSiam's predictor: Linear, ReLU, Linear back to the input's width.

    References:
        Chen and He, Exploring simple Siamese representation learning, 2011.10566, 3.
    """

    hidden: int = 256

    @nn.compact
    def __call__(self, outputs: jax.Array) -> jax.Array:
        """Map `[b, d]` to `[b, d]`."""
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(outputs))
        return nn.Dense(outputs.shape[-1], name="out")(hidden)


class Classifier(nn.Module):
    """Dropout and a linear layer to one logit, the log odds of "hateful"."""

    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, features: jax.Array, *, train: bool, shared_mask: bool = False
    ) -> jax.Array:
        """Map `[b, d]` to `[b]`.

        Args:
            features: `[b, d]`.
            train: whether dropout is on.
            shared_mask: whether all examples share one mask.
        """
        dropout = nn.Dropout(self.dropout, broadcast_dims=(0,) if shared_mask else ())
        features = dropout(features, deterministic=not train)
        return nn.Dense(1, name="logit")(features)[:, 0]


class DinoHead(nn.Module):
    """DINO's head: a multilayer perceptron, an L2 norm, and unit-length prototypes.

    Linear, GELU, ..., Linear to the bottleneck, u = x / |x|, logits u . w_k / |w_k|
    (times one gain per prototype, learnt unless `norm_last_layer`).

    Attributes:
        out: k, the number of prototypes, at least 2.
        hidden: width of the hidden layers.
        bottleneck: width of the prototypes.
        layers: linear layers before the norm, at least 1.
        batch_norm: whether BatchNorm follows each hidden layer. Not in the published
            ViT recipe; with few examples and updates it keeps the outputs apart.
        norm_last_layer: whether every gain stays at 1 (more stable, published for
            ViT-B).
        axis_name: mapped axis over which the batch is split, for BatchNorm.

    References:
        Caron et al., Emerging properties in self-supervised vision transformers,
        2104.14294, appendix C.
    """

    out: int
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3
    batch_norm: bool = False
    norm_last_layer: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Map `[b, d]` to logits `[b, k]` float32; `train` is passed to BatchNorm."""
        if self.out < 2 or self.layers < 1:
            raise ValueError(
                f"got {self.out} prototypes and {self.layers} layers, expected at "
                "least 2 and 1"
            )
        # PyTorch's trunc_normal_(std=0.02) truncates at -2 and 2: practically a normal.
        init = nn.initializers.normal(0.02)
        x = features
        for i in range(self.layers - 1):
            x = nn.Dense(self.hidden, kernel_init=init, name=f"layer{i}")(x)
            if self.batch_norm:
                norm = BatchNorm(axis_name=self.axis_name, name=f"norm{i}")
                x = norm(x, train=train)
            x = nn.gelu(x, approximate=False)
        x = nn.Dense(self.bottleneck, kernel_init=init, name="bottleneck")(x)
        # A blank crop may have features of exactly 0: no direction, no gradient.
        x = unit_rows(x)
        kernel = self.param(
            "prototypes", nn.initializers.lecun_uniform(), (self.bottleneck, self.out)
        )
        logits = x @ (kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True))
        if self.norm_last_layer:
            return logits
        gain = self.param("gain", nn.initializers.ones, (self.out,))
        return logits * gain[None]
