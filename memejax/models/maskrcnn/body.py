"""The detector's ResNet, with frozen BatchNorms and the maps of all stages.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import BatchNorm, Conv, Dtype
from memejax.models.resnet import max_pool


class ConvFrozen(nn.Module):
    """A convolution and a frozen BatchNorm (parameters `conv` and `norm`)."""

    features: int
    size: int
    stride: int
    eps: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', features]` float32."""
        x = Conv(
            self.features,
            size=self.size,
            stride=self.stride,
            padding=self.size // 2,
            dtype=self.dtype,
            name="conv",
        )(x_bhwc)
        return BatchNorm(eps=self.eps, name="norm")(x, train=False)


class FrozenBlock(nn.Module):
    """A bottleneck (1x1, 3x3 with the stride, 1x1) and its shortcut."""

    width: int
    stride: int
    eps: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', 4 * width]` in `dtype`."""
        out = 4 * self.width

        def unit(features: int, size: int, stride: int, name: str) -> ConvFrozen:
            return ConvFrozen(features, size, stride, self.eps, self.dtype, name=name)

        x = nn.relu(unit(self.width, 1, 1, "layer0")(x_bhwc)).astype(self.dtype)
        x = nn.relu(unit(self.width, 3, self.stride, "layer1")(x)).astype(self.dtype)
        x = unit(out, 1, 1, "layer2")(x)
        shortcut = x_bhwc.astype(jnp.float32)
        if self.stride != 1 or x_bhwc.shape[-1] != out:
            shortcut = unit(out, 1, self.stride, "shortcut")(x_bhwc)
        return nn.relu(x + shortcut).astype(self.dtype)


class Body(nn.Module):
    """The convolutional body, with the same variable tree as `models.ResNet`.

    Attributes:
        stage_sizes: blocks in each stage.
        width: channels of the stem, and of the first stage's 3x3 convolutions.
        eps: epsilon of every BatchNorm.
        dtype: dtype of products and of the activations kept between them.
    """

    stage_sizes: Sequence[int]
    width: int
    eps: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> list[jax.Array]:
        """Compute maps of strides 4, 8, ... of images `[b, h, w, 3]`, in `dtype`."""
        x = ConvFrozen(self.width, 7, 2, self.eps, self.dtype, name="stem")(images_bhwc)
        x = max_pool(nn.relu(x).astype(self.dtype))
        maps = []
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                x = FrozenBlock(
                    width=self.width * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    eps=self.eps,
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x)
            maps.append(x)
        return maps
