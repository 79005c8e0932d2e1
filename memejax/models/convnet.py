"""Small convolutional networks with dropout, for MNIST and CIFAR-10.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features,
`k` classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import (
    Conv,
    Dense,
    Dtype,
    add_leading_axes,
    check_images,
    dropout,
)

CONVNETS: dict[str, dict[str, Any]] = {
    # 1,199,882 parameters with 10 classes on 28 x 28 x 1; 99.25 % on MNIST.
    "convnet_mnist": dict(stages=((32, 64),), padding=(0, 0), dense=128),
    # 1,250,858 parameters with 10 classes on 32 x 32 x 3; 79 % on CIFAR-10.
    "convnet_cifar10": dict(stages=((32, 32), (64, 64)), padding=(1, 0), dense=512),
}


class ConvNet(nn.Module):
    """Stages of 3x3 convolutions with max pooling, then two dense layers.

    Dropout follows every stage and the first dense layer. `trunk` is the first stage,
    up to the first dropout, and `head` is the rest. Rng: "dropout".

    Parameters: `convolutions_<i>_<j>/{conv/kernel,bias}`, `hidden`, `out`.

    Attributes:
        classes: width of the output.
        stages: channels of each stage's convolutions.
        padding: zeros around the first convolution of a stage, and of the others.
        dense: width of the first dense layer.
        dropout: rates after a stage and after the dense layer, in [0, 1).
        dtype: dtype of products.

    References:
        The networks that Gal et al., Deep Bayesian active learning with image data,
        1703.02910, score with by dropout; sizes of the Keras examples mnist_cnn and
        cifar10_cnn.
    """

    classes: int
    stages: Sequence[Sequence[int]] = ((32, 64),)
    padding: Sequence[int] = (0, 0)
    dense: int = 128
    dropout: Sequence[float] = (0.25, 0.5)
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Create the layers."""
        first, other = self.padding
        self.convolutions = [
            [
                BiasedConv(width, padding=other if j else first, dtype=self.dtype)
                for j, width in enumerate(widths)
            ]
            for widths in self.stages
        ]
        init = nn.initializers.he_normal()
        self.hidden = Dense(self.dense, dtype=self.dtype, kernel_init=init)
        self.out = Dense(self.classes, dtype=self.dtype)

    def trunk(self, images_bhwc: jax.Array, *, train: bool = False) -> jax.Array:
        """Map `[b, h, w, c]` to the first stage's `[b, h', w', d]`, without dropout."""
        del train  # Training and evaluation do the same.
        check_images(images_bhwc)
        return self._stage(images_bhwc, 0)

    def head(
        self, features_bhwd: jax.Array, *, train: bool, shared_mask: bool = False
    ) -> jax.Array:
        """Map the output of `trunk` to logits `[b, k]`.

        Args:
            features_bhwd: `[b, h', w', d]`.
            train: whether dropout is active.
            shared_mask: whether the batch shares its masks, for Monte Carlo dropout.
        """

        def drop(x: jax.Array, rate: float) -> jax.Array:
            if not (train and rate):
                return x
            key = self.make_rng("dropout")
            return dropout(key, x, rate=rate, shared=shared_mask)

        after_stage, after_dense = self.dropout
        x = drop(features_bhwd, after_stage)
        for number in range(1, len(self.stages)):
            x = drop(self._stage(x, number), after_stage)
        x = nn.relu(self.hidden(x.reshape(len(x), -1)))
        return self.out(drop(x, after_dense))

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` float to logits `[b, k]` float32."""
        return self.head(self.trunk(images_bhwc, train=train), train=train)

    def _stage(self, x_bhwc: jax.Array, number: int) -> jax.Array:
        for conv in self.convolutions[number]:
            x_bhwc = nn.relu(conv(x_bhwc))
        return halve(x_bhwc)


class BiasedConv(nn.Module):
    """A 3x3 convolution with a bias, initialised with he_normal."""

    features: int
    padding: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', features]` in `dtype`."""
        x = Conv(
            self.features,
            size=3,
            padding=self.padding,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x_bhwc)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x + add_leading_axes(bias, x.ndim).astype(x.dtype)


def halve(x_bhwc: jax.Array) -> jax.Array:
    """Take the maximum over 2 x 2 windows; an odd last row or column is dropped.

    Args:
        x_bhwc: `[b, h, w, c]`.

    Returns:
        `[b, h // 2, w // 2, c]`.
    """
    b, h, w, c = x_bhwc.shape
    x = x_bhwc[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
