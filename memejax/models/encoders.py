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
import jax.numpy as jnp


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
            last block, "probe_attention", of the query that pools the patches, or
            "grad_cam", of `feature_maps`.
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


class Layered(Encoder):
    """An encoder with the attribute `layers`, blocks that are all alike."""

    @nn.nowrap
    def block_counts(self) -> Mapping[str, int]:
        """Return the number of transformer blocks, as one stage."""
        return {"block": self.layers}

    @nn.nowrap
    def with_blocks(self, at_most: int) -> Self:
        """Return the encoder with at most `at_most` layers."""
        return self.clone(layers=min(self.layers, at_most))


class PatchEncoder(Layered, ImageEncoder):
    """A transformer of patches, with `patch`, `grid`, `dropout` and `drop_path`.

    Attributes:
        class_tokens: tokens before the patches, and rows of the position table.
    """

    explained_by: ClassVar[str] = "attention"
    class_tokens: ClassVar[int] = 1

    @nn.nowrap
    def for_images(self, size: int) -> Self:
        """Return the encoder with a position table for images of `size` x `size`."""
        if size % self.patch:
            raise ValueError(
                f"images of {size} pixels do not divide into patches of {self.patch}"
            )
        return self.clone(grid=size // self.patch)

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
        """Return the shape of one image of one patch."""
        shape = (1, self.patch, self.patch, 3)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),)


class TextEncoder(Encoder):
    """The base class of text encoders: `(ids_bt, mask_bt, train=) -> tokens_btd`.

    Attributes:
        fixed_length: whether captions have to be padded to `max_length`.
    """

    fixed_length: ClassVar[bool] = False

    @nn.nowrap
    def gains_by_shortening(self) -> bool:
        """Whether captions with less padding have the same features, sooner."""
        return bool(self.block_counts()) and not self.fixed_length

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes of one caption of one token: ids and attention mask."""
        token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        return token, token

    @nn.nowrap
    def pool(
        self, tokens_btd: jax.Array, attention_mask_bt: jax.Array, *, pooling: str
    ) -> jax.Array:
        """Pool a caption's outputs to one vector, `[b, d]`; see `pool_tokens`.

        An encoder that was trained with a pooling of its own ignores `pooling`.
        """
        return pool_tokens(tokens_btd, attention_mask_bt, pooling=pooling)

    @nn.nowrap
    def check_tokens(
        self, input_ids_bt: jax.Array, attention_mask_bt: jax.Array, *, longest: int
    ) -> int:
        """Return the number of tokens of well-formed captions.

        Raises:
            ValueError: if ids and mask differ in shape or are not `[b, t]`, or t is
                larger than `longest`.
        """
        if input_ids_bt.ndim != 2 or input_ids_bt.shape != attention_mask_bt.shape:
            raise ValueError(
                f"got input_ids {list(input_ids_bt.shape)} and attention_mask "
                f"{list(attention_mask_bt.shape)}, expected the same [b, t] for both"
            )
        t = input_ids_bt.shape[1]
        if t > longest:
            raise ValueError(f"got {t} tokens, expected at most {longest}")
        return t


POOLINGS = ("cls", "mean")


def pool_tokens(
    tokens_btd: jax.Array, attention_mask_bt: jax.Array, *, pooling: str
) -> jax.Array:
    """Pool captions to one vector each: the first token, or the mean over tokens.

    Args:
        tokens_btd: `[b, t, d]`, a text encoder's outputs.
        attention_mask_bt: `[b, t]`, 1 for a token and 0 for padding; used by "mean".
        pooling: "cls" or "mean".

    Returns:
        `[b, d]`; zeros for "mean" over no token.

    Raises:
        ValueError: for another pooling, or for "mean" if the encoder does not return
            one vector per token.

    References:
        Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (mean over tokens).
    """
    if pooling not in POOLINGS:
        raise ValueError(f"text_pooling must be one of {POOLINGS}, got {pooling!r}")
    if pooling == "cls":
        return tokens_btd[:, 0]
    if tokens_btd.shape[:2] != attention_mask_bt.shape:
        raise ValueError(
            f"got outputs {list(tokens_btd.shape)} for tokens "
            f"{list(attention_mask_bt.shape)}: text_pooling='mean' needs an encoder "
            "with one output per token, choose 'cls'"
        )
    where = (attention_mask_bt != 0)[:, :, None]
    total = jnp.where(where, tokens_btd, 0).sum(axis=1)
    return total / jnp.maximum(where.sum(axis=1), 1)


def last_visible(tokens_btd: jax.Array, attention_mask_bt: jax.Array) -> jax.Array:
    """Return the last token that is no padding, `[b, d]`; padding is on the right."""
    last = (attention_mask_bt != 0).sum(axis=1) - 1
    return jnp.take_along_axis(tokens_btd, jnp.maximum(last, 0)[:, None, None], axis=1)[
        :, 0
    ]
