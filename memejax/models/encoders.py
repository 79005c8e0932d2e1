"""Base classes of encoders, so that no caller has to tell one kind from another.

An encoder of images takes `dtype`, `remat` and `axis_name`, one of captions `dtype` and
`remat`, whether or not it has a use for each. Everything that depends on the kind of an
encoder is a class attribute or a method here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax


class Encoder(nn.Module):
    """The base of all encoders.

    Attributes:
        family: name of the architecture, as of a checkpoint's.
        distinct_blocks: blocks of a stage until all that follow have parameters of
            the same shapes.
    """

    family: ClassVar[str]
    distinct_blocks: ClassVar[int] = 1

    @nn.nowrap
    def block_counts(self) -> Mapping[str, int]:
        """Blocks of each stage by what their names begin with, as `block` of block0."""
        return {}

    @nn.nowrap
    def with_blocks(self, at_most: int) -> Self:
        """The encoder with no more than so many blocks per stage."""
        del at_most
        return self

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes of the smallest inputs that it encodes."""
        raise NotImplementedError


class ImageEncoder(Encoder):
    """The base of encoders of images: `(images_bhwc, train=) -> [b, d]`.

    Attributes:
        explained_by: map of what it looks at: "attention", of the CLS token in the
            last block, or "grad_cam" of `feature_maps`.
    """

    explained_by: ClassVar[str]

    @nn.nowrap
    def for_images(self, size: int) -> Self:
        """The encoder of square images of so many pixels a side.

        Raises:
            ValueError: if it cannot encode images of that size.
        """
        del size
        return self

    @nn.nowrap
    def with_drop_path(self, rate: float) -> Self:
        """The encoder with stochastic depth, if it has any; else as it is."""
        del rate
        return self

    @nn.nowrap
    def without_dropout(self) -> Self:
        """The encoder that drops nothing while training, as a teacher."""
        return self
