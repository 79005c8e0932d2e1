"""Residual networks (v1.5), the convolutional image encoder.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.encoders import ImageEncoder
from memejax.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    Dtype,
    apply_block,
    check_images,
    dropout,
)

RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": dict(stage_sizes=(2, 2, 2, 2), bottleneck=False, width=64),
    "resnet34": dict(stage_sizes=(3, 4, 6, 3), bottleneck=False, width=64),
    "resnet50": dict(stage_sizes=(3, 4, 6, 3), bottleneck=True, width=64),
    # For pictures of 48 pixels on a CPU.
    "resnet_demo": dict(
        stage_sizes=(1, 1, 1), bottleneck=False, width=32, stem="patch4"
    ),
}
# First convolutions, as described in `ResNet`.
STEMS: dict[str, dict[str, Any]] = {
    "imagenet": dict(size=7, stride=2, padding=3),
    "patch4": dict(size=4, stride=4),
    "cifar": dict(size=3, padding=1),
}


def max_pool(x_bhwc: jax.Array) -> jax.Array:
    """Take the maximum over 3 x 3 windows with stride 2 and padding 1.

    Computed from slices, first of rows and then of columns: on a CPU the gradient of
    `lax.reduce_window` takes five times as long. Tied pixels share the gradient.

    Args:
        x_bhwc: `[b, h, w, c]`.

    Returns:
        `[b, ceil(h / 2), ceil(w / 2), c]`.
    """
    lowest = jnp.asarray(-jnp.inf, x_bhwc.dtype)
    edge = (1, 1, 0)
    x = lax.pad(x_bhwc, lowest, ((0, 0, 0), edge, edge, (0, 0, 0)))
    rows = 2 * ((x_bhwc.shape[1] + 1) // 2) - 1
    columns = 2 * ((x_bhwc.shape[2] + 1) // 2) - 1
    top, middle, bottom = (x[:, i : i + rows : 2] for i in range(3))
    x = jnp.maximum(jnp.maximum(top, middle), bottom)
    left, middle, right = (x[:, :, i : i + columns : 2] for i in range(3))
    return jnp.maximum(jnp.maximum(left, middle), right)


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm (parameters `conv`, `norm`), float32 outputs."""

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    zero_init: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', features]` float32."""
        x = Conv(
            self.features,
            size=self.size,
            stride=self.stride,
            padding=self.padding,
            dtype=self.dtype,
            name="conv",
        )(x_bhwc)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        return BatchNorm(
            axis_name=self.axis_name,
            scale_init=zeros if self.zero_init else ones,
            name="norm",
        )(x, train=train)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 (bottleneck).

    The stride is on the (first) 3x3 convolution. The shortcut is a 1x1 convolution
    if the shape changes, else the identity.
    """

    width: int
    bottleneck: bool
    stride: int
    zero_init_residual: bool
    dtype: Dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', width (x 4)]`, in `dtype`."""
        common: dict[str, Any] = dict(dtype=self.dtype, axis_name=self.axis_name)
        three: dict[str, Any] = dict(size=3, padding=1, **common)
        out = self.width * (4 if self.bottleneck else 1)
        last = dict(zero_init=self.zero_init_residual)
        if self.bottleneck:
            units = [
                ConvNorm(self.width, size=1, name="layer0", **common),
                ConvNorm(self.width, stride=self.stride, name="layer1", **three),
                ConvNorm(out, size=1, name="layer2", **last, **common),
            ]
        else:
            units = [
                ConvNorm(out, stride=self.stride, name="layer0", **three),
                ConvNorm(out, name="layer1", **last, **three),
            ]
        x = x_bhwc
        for unit in units[:-1]:
            x = nn.relu(unit(x, train=train)).astype(self.dtype)
        x = units[-1](x, train=train)

        shortcut = x_bhwc
        if self.stride != 1 or x_bhwc.shape[-1] != out:
            unit = ConvNorm(out, 1, self.stride, name="shortcut", **common)
            shortcut = unit(x_bhwc, train=train)
        return nn.relu(x + shortcut).astype(self.dtype)


class ResNet(ImageEncoder):
    """Residual network without a classifier.

    Parameters, beside their names in Hugging Face's `ResNetModel` (numbers are
    the same, from 0):

    | here | there |
    |---|---|
    | `stem/{conv,norm}` | `embedder.embedder.{convolution,normalization}` |
    | `stage<i>_block<j>/layer<k>/conv` | `encoder.stages.i.layers.j.layer.k.convolution` |
    | `stage<i>_block<j>/layer<k>/norm` | `encoder.stages.i.layers.j.layer.k.normalization` |
    | `stage<i>_block<j>/shortcut/{conv,norm}` | `encoder.stages.i.layers.j.shortcut.*` |

    Attributes:
        stage_sizes: blocks in each stage.
        bottleneck: whether blocks are 1x1, 3x3, 1x1 with four times the width as
            output, or two 3x3.
        width: channels of the stem and of the first stage; doubles with each stage.
        stem: "imagenet": 7x7 convolution of stride 2 and a 3x3 maximum of stride 2;
            "patch4": 4x4 convolution of stride 4, for small pictures; "cifar": 3x3
            convolution of stride 1, for 32 x 32 pixels.
        zero_init_residual: whether every block starts as its shortcut, with the scale
            of its last BatchNorm at zero.
        dtype: dtype of products and of the activations kept between them.
        axis_name: mapped axis over which the batch is split, for BatchNorm.
        remat: whether the backward pass recomputes blocks, see `apply_block`.

    References:
        He et al. 2015, arXiv:1512.03385. Kernels start as in He et al. 2015,
        arXiv:1502.01852 (normal, fan-out); `zero_init_residual` is Goyal et al.
        2017, arXiv:1706.02677, section 5.1.
    """  # noqa: E501

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    bottleneck: bool = True
    width: int = 64
    stem: str = "imagenet"
    zero_init_residual: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    family: ClassVar[str] = "resnet"
    explained_by: ClassVar[str] = "grad_cam"
    # The first block of a stage may have a shortcut.
    distinct_blocks: ClassVar[int] = 2

    @nn.nowrap
    def block_counts(self) -> Mapping[str, int]:
        """Return the number of blocks per stage."""
        return {f"stage{i}_block": n for i, n in enumerate(self.stage_sizes)}

    @nn.nowrap
    def with_blocks(self, at_most: int) -> Self:
        """Return the encoder with at most `at_most` blocks per stage."""
        return self.clone(stage_sizes=tuple(min(n, at_most) for n in self.stage_sizes))

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shape of one image that four stages can halve."""
        return (jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),)

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Encode images as the mean of the last stage's map.

        Args:
            images_bhwc: `[b, h, w, c]` float, normalised.
            train: whether BatchNorm uses the batch's statistics and updates the
                running ones (collection "batch_stats", then mutable).

        Returns:
            `[b, d]` float32.

        Raises:
            ValueError: for images that are not `[b, h, w, c]` of a float dtype, an
                unknown stem, or sides that "patch4" does not divide.
        """
        return jnp.mean(self.feature_maps(images_bhwc, train=train)[-1], axis=(1, 2))

    @nn.compact
    def feature_maps(self, images_bhwc: jax.Array, *, train: bool) -> list[jax.Array]:
        """Return all stages' maps, each half the previous, `[b, h, w, d]` float32.

        Args and errors are those of `__call__`.
        """
        check_images(images_bhwc)
        x = self._stem(images_bhwc, train=train)
        maps = []
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                block = Block(
                    width=self.width * 2**i,
                    bottleneck=self.bottleneck,
                    stride=2 if i > 0 and j == 0 else 1,
                    zero_init_residual=self.zero_init_residual,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"stage{i}_block{j}",
                )
                x = apply_block(block, x, train=train, remat=self.remat)
            maps.append(x.astype(jnp.float32))
        return maps

    def _stem(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        if self.stem not in STEMS:
            raise ValueError(f"got stem {self.stem!r}, expected one of {list(STEMS)}")
        conv = dict(dtype=self.dtype, axis_name=self.axis_name, **STEMS[self.stem])
        unit = ConvNorm(self.width, name="stem", **conv)
        x = nn.relu(unit(images_bhwc, train=train)).astype(self.dtype)
        return max_pool(x) if self.stem == "imagenet" else x


class DropoutResNet(nn.Module):
    """A ResNet for pictures of 32 x 32 pixels, dropout on its features, an affine map.

    `trunk` is the part before the dropout and `head` the rest. Rng: "dropout".

    Parameters: `encoder`, a `ResNet`; `out`, a `Dense`.

    Attributes:
        classes: width of the output.
        stage_sizes: blocks in each stage of the encoder; (2, 2, 2, 2) is ResNet-18.
        width: channels of the encoder's first stage.
        dropout: rate, in [0, 1).
        dtype: dtype of products.
    """

    classes: int
    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Create the layers."""
        self.encoder = ResNet(
            stage_sizes=self.stage_sizes,
            bottleneck=False,
            width=self.width,
            stem="cifar",
            dtype=self.dtype,
        )
        self.out = Dense(self.classes, dtype=self.dtype)

    def trunk(self, images_bhwc: jax.Array, *, train: bool = False) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, d]`, without dropout."""
        return self.encoder(images_bhwc, train=train)

    def head(
        self, features_bd: jax.Array, *, train: bool, shared_mask: bool = False
    ) -> jax.Array:
        """Map `[b, d]` to logits `[b, k]`, as `Perceptron.head` does."""
        x = features_bd
        if train and self.dropout:
            key = self.make_rng("dropout")
            x = dropout(key, x, rate=self.dropout, shared=shared_mask)
        return self.out(x)

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` float to logits `[b, k]` float32."""
        return self.head(self.trunk(images_bhwc, train=train), train=train)
