"""EfficientNet-Lite, a small convolutional image encoder pretrained on ImageNet.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import ImageEncoder
from memejax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dtype,
    apply_block,
    check_images,
    dropout,
    pad_same,
)


class Stage(NamedTuple):
    """Settings shared by the blocks of a stage, whatever the network's size.

    Attributes:
        size: side of the depthwise kernels.
        stride: of the stage's first block.
        expansion: channels inside a block for each of its input.
    """

    size: int
    stride: int
    expansion: int


STAGES = (
    Stage(3, 1, 1),
    Stage(3, 2, 6),
    Stage(5, 2, 6),
    Stage(3, 2, 6),
    Stage(5, 1, 6),
    Stage(5, 2, 6),
    Stage(3, 1, 6),
)

_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
# Width and depth of Lite0 times 1.0 and 1.1, 1.1 and 1.2, 1.2 and 1.4, 1.4 and 1.8;
# neither stem nor head, nor the depth of the first and the last stage, are scaled.
EFFICIENTNETS: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": dict(stage_sizes=(1, 2, 2, 3, 3, 4, 1), widths=_WIDTHS),
    "efficientnet_lite1": dict(stage_sizes=(1, 3, 3, 4, 4, 5, 1), widths=_WIDTHS),
    "efficientnet_lite2": dict(
        stage_sizes=(1, 3, 3, 4, 4, 5, 1), widths=(16, 24, 48, 88, 120, 208, 352)
    ),
    "efficientnet_lite3": dict(
        stage_sizes=(1, 3, 3, 5, 5, 6, 1), widths=(24, 32, 48, 96, 136, 232, 384)
    ),
    "efficientnet_lite4": dict(
        stage_sizes=(1, 4, 4, 6, 6, 8, 1), widths=(24, 32, 56, 112, 160, 272, 448)
    ),
}
# Side of the square pictures that each was trained on.
IMAGE_SIZES = {
    "efficientnet_lite0": 224,
    "efficientnet_lite1": 240,
    "efficientnet_lite2": 260,
    "efficientnet_lite3": 280,
    "efficientnet_lite4": 300,
}


class ConvNorm(nn.Module):
    """A convolution, its BatchNorm (parameters `conv`, `norm`) and ReLU6.

    Attributes:
        features: output channels; those of the input if `depthwise`.
        size: side of the kernel; padding is "same".
        stride: stride in both directions.
        depthwise: whether every channel is convolved by itself.
        linear: whether ReLU6 is left out; outputs are float32 then, else in `dtype`.
        dtype: dtype of products.
        axis_name: as in `EfficientNetLite`.
    """

    features: int
    size: int = 1
    stride: int = 1
    depthwise: bool = False
    linear: bool = False
    dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, ceil(h / stride), ceil(w / stride), features]`."""
        options: dict[str, Any] = dict(
            size=self.size, stride=self.stride, dtype=self.dtype, name="conv"
        )
        if self.depthwise:
            x = DepthwiseConv(**options)(x_bhwc)
        else:
            padded = pad_same(x_bhwc, size=self.size, stride=self.stride)
            x = Conv(self.features, **options)(padded)
        # 0.99 and 1e-3 are TensorFlow's defaults, with which the networks were trained.
        norm = BatchNorm(momentum=0.99, eps=1e-3, axis_name=self.axis_name, name="norm")
        x = norm(x, train=train)
        return x if self.linear else jnp.clip(x, 0.0, 6.0).astype(self.dtype)


class Block(nn.Module):
    """An inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection.

    The input is added if the block keeps its shape. In training, `drop_path` is the
    rate at which the rest of such a block is dropped for a whole example.
    """

    features: int
    size: int
    stride: int
    expansion: int
    drop_path: float
    dtype: Dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h', w', features]`, in `dtype`."""
        common: dict[str, Any] = dict(dtype=self.dtype, axis_name=self.axis_name)
        c = x_bhwc.shape[-1]
        inner = c * self.expansion
        x = x_bhwc
        if self.expansion != 1:
            x = ConvNorm(inner, name="expand", **common)(x, train=train)
        x = ConvNorm(
            inner, self.size, self.stride, depthwise=True, name="depthwise", **common
        )(x, train=train)
        x = ConvNorm(self.features, linear=True, name="project", **common)(
            x, train=train
        )
        if self.stride == 1 and c == self.features:
            drop_path = nn.Dropout(
                self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train
            )
            x = x_bhwc + drop_path(x)
        return x.astype(self.dtype)


class EfficientNetLite(ImageEncoder):
    """EfficientNet-Lite without its classifier.

    An EfficientNet without squeeze-and-excitation and with ReLU6, for devices that
    compute with integers. Padding is TensorFlow's "same", by the size of the pictures
    that are given.

    Parameters, beside their names in the PyTorch package `efficientnet_lite_pytorch`,
    which numbers all blocks from 0, n:

    | here | there |
    |---|---|
    | `stem/conv`, `stem/norm` | `_conv_stem`, `_bn0` |
    | `stage<i>_block<j>/expand/{conv,norm}` | `_blocks.n._expand_conv`, `_blocks.n._bn0` |
    | `stage<i>_block<j>/depthwise/{conv,norm}` | `_blocks.n._depthwise_conv`, `_blocks.n._bn1` |
    | `stage<i>_block<j>/project/{conv,norm}` | `_blocks.n._project_conv`, `_blocks.n._bn2` |
    | `head/conv`, `head/norm` | `_conv_head`, `_bn1` |

    Attributes:
        stage_sizes: blocks in each of the seven stages (STAGES).
        widths: output channels of each stage.
        stem_width: channels of the first convolution.
        features: channels of the last convolution, the width of the output.
        dropout: rate on the pooled features (0.2 to 0.3 where they were trained).
        drop_path: rate at which the residual branches of block n of N are dropped is
            drop_path * n / N (0.2 where they were trained).
        dtype: dtype of products and of the activations kept between them.
        axis_name: mapped axis over which the batch is split, for BatchNorm.
        remat: whether the backward pass recomputes blocks, see `apply_block`.

    References:
        Tan and Le 2019, arXiv:1905.11946, tables 1 and 2 (stages, scaling); the Lite
        variant, github.com/tensorflow/tpu, models/official/efficientnet/lite; inverted
        residuals, Sandler et al. 2018, arXiv:1801.04381.
    """  # noqa: E501

    stage_sizes: Sequence[int] = (1, 2, 2, 3, 3, 4, 1)
    widths: Sequence[int] = _WIDTHS
    stem_width: int = 32
    features: int = 1280
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    family: ClassVar[str] = "efficientnet_lite"
    explained_by: ClassVar[str] = "grad_cam"
    # The first block of a stage has another input than the others.
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
    def with_drop_path(self, rate: float) -> Self:
        """Return the encoder with another `drop_path`."""
        return self.clone(drop_path=rate)

    @nn.nowrap
    def without_dropout(self) -> Self:
        """Return the encoder with neither dropout nor drop path."""
        return self.clone(dropout=0.0, drop_path=0.0)

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shape of one image that its strides can halve."""
        return (jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),)

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Encode images as the mean of the head's map.

        Args:
            images_bhwc: `[b, h, w, c]` float, normalised.
            train: whether BatchNorm uses the batch's statistics and updates the
                running ones (collection "batch_stats", then mutable), and dropout and
                drop path are active (rng "dropout").

        Returns:
            `[b, features]` float32.

        Raises:
            ValueError: for images that are not `[b, h, w, c]` of a float dtype, or
                another number of stages than seven.
        """
        head = self.feature_maps(images_bhwc, train=train)[-1]
        pooled = jnp.mean(head, axis=(1, 2))
        if train and self.dropout:
            pooled = dropout(self.make_rng("dropout"), pooled, rate=self.dropout)
        return pooled

    @nn.compact
    def feature_maps(self, images_bhwc: jax.Array, *, train: bool) -> list[jax.Array]:
        """Return the maps of all stages and, last, of the head, `[b, h, w, d]` float32.

        Args and errors are those of `__call__`.
        """
        check_images(images_bhwc)
        if not len(self.stage_sizes) == len(self.widths) == len(STAGES):
            raise ValueError(
                f"got stage_sizes {list(self.stage_sizes)} and widths "
                f"{list(self.widths)}, expected {len(STAGES)} stages"
            )
        common: dict[str, Any] = dict(dtype=self.dtype, axis_name=self.axis_name)
        stem = ConvNorm(self.stem_width, size=3, stride=2, name="stem", **common)
        x = stem(images_bhwc, train=train)
        maps, before, blocks = [], 0, sum(self.stage_sizes)
        for i, stage in enumerate(STAGES):
            for j in range(self.stage_sizes[i]):
                block = Block(
                    features=self.widths[i],
                    size=stage.size,
                    stride=stage.stride if j == 0 else 1,
                    expansion=stage.expansion,
                    drop_path=self.drop_path * before / blocks,
                    name=f"stage{i}_block{j}",
                    **common,
                )
                x = apply_block(block, x, train=train, remat=self.remat)
                before += 1
            maps.append(x.astype(jnp.float32))
        x = ConvNorm(self.features, name="head", **common)(x, train=train)
        return [*maps, x.astype(jnp.float32)]
