"""Base classes of encoders, so that callers need not distinguish architectures.

An image encoder takes `dtype`, `remat` and `axis_name`, a caption encoder `dtype` and
`remat`, whether or not it uses them. Everything that depends on the architecture is a
class attribute or a method here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax


class Encoder(nn.Module):
    """The base class of all encoders.

    Attributes:
        family: name of the architecture, as in checkpoints.
        distinct_blocks: number of leading blocks of a stage that have all of its
            parameter shapes; later blocks repeat the last of them.
    """

    family: ClassVar[str]
    distinct_blocks: ClassVar[int] = 1

    @nn.nowrap
    def block_counts(self) -> Mapping[str, int]:
        """Return the number of blocks per stage, by name prefix (`block` of block0)."""
        return {}

    @nn.nowrap
    def with_blocks(self, at_most: int) -> Self:
        """Return the encoder with at most `at_most` blocks per stage."""
        del at_most
        return self

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes of the smallest inputs that it encodes."""
        raise NotImplementedError


class ImageEncoder(Encoder):
    """The base class of image encoders: `(images_bhwc, train=) -> [b, d]`.

    Attributes:
        explained_by: kind of its saliency maps: "attention", of the CLS token in the
            last block, or "grad_cam", of `feature_maps`.
    """

    explained_by: ClassVar[str]

    @nn.nowrap
    def for_images(self, size: int) -> Self:
        """Return the encoder for square images of `size` x `size` pixels.

        Raises:
            ValueError: if it cannot encode images of that size.
        """
        del size
        return self

    @nn.nowrap
    def with_drop_path(self, rate: float) -> Self:
        """Return the encoder with stochastic depth, unchanged if it has none."""
        del rate
        return self

    @nn.nowrap
    def without_dropout(self) -> Self:
        """Return the encoder without dropout, for a teacher."""
        return self
