"""Vision transformer, the attention-based image encoder.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `t` tokens, `d`
features.
"""

import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memejax.models.encoders import PatchEncoder
from memejax.models.layers import (
    Attention,
    Dropout,
    Dtype,
    LayerNorm,
    Mlp,
    add_leading_axes,
    apply_block,
    check_images,
    contract,
    extract_patches,
)

VITS: dict[str, dict[str, Any]] = {
    "vit_tiny": dict(hidden=192, layers=12, heads=3, mlp=768),
    "vit_small": dict(hidden=384, layers=12, heads=6, mlp=1536),
    "vit_base": dict(hidden=768, layers=12, heads=12, mlp=3072),
    # For pictures of 48 pixels on a CPU.
    "vit_demo": dict(hidden=96, layers=4, heads=4, mlp=192, patch=8),
}

# PyTorch's cubic convolution coefficient; `jax.image.resize` has -0.5.
CUBIC = -0.75


def cubic_matrix(source: int, target: int) -> np.ndarray:
    """Matrix that resizes a row of `source` samples to `target`, bicubically.

    Keys' kernel with a = -0.75 at x = (i + 1/2) source / target - 1/2, samples
    outside the row taken from its ends, no antialiasing when it shrinks: PyTorch's
    `interpolate(mode="bicubic", align_corners=False)`.

    Args:
        source: number of input samples.
        target: number of output samples.

    Returns:
        `[target, source]` float64, rows sum to 1.
    """
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    base = np.floor(centre).astype(int)
    matrix = np.zeros((target, source))
    for offset in (-1, 0, 1, 2):
        x = np.abs(centre - (base + offset))
        near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
        far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
        column = np.clip(base + offset, 0, source - 1)
        np.add.at(matrix, (np.arange(target), column), np.where(x <= 1, near, far))
    return matrix


def interpolate_positions(
    table_td: jax.Array, *, grid: int | tuple[int, int], class_tokens: int = 1
) -> jax.Array:
    """Resize a table of position embeddings to another grid of patches.

    The first `class_tokens` rows are kept; the others form a square grid, resized
    bicubically.

    Args:
        table_td: `[class_tokens + s * s, d]`, patches in rows from the top left.
        grid: new grid of patches, the side of a square or (height, width).
        class_tokens: tokens before the patches.

    Returns:
        `[class_tokens + height * width, d]` float32; the table itself if the grid is
        unchanged.

    Raises:
        ValueError: if the table is not these rows and a square.
    """
    height, width = (grid, grid) if isinstance(grid, int) else grid
    side = math.isqrt(max(table_td.shape[0] - class_tokens, 0))
    fits = side > 0 and side * side + class_tokens == table_td.shape[0]
    if table_td.ndim != 2 or not fits:
        raise ValueError(
            f"got positions {list(table_td.shape)}, expected [{class_tokens} + s * s, "
            "d]"
        )
    if (height, width) == (side, side):
        return table_td
    d = table_td.shape[1]
    rows = jnp.asarray(cubic_matrix(side, height), jnp.float32)
    columns = jnp.asarray(cubic_matrix(side, width), jnp.float32)
    picture = table_td[class_tokens:].reshape(side, side, d)
    # Full float32: these are parameters, and a GPU would use TF32.
    resized = jnp.einsum(
        "ij,kl,jld->ikd", rows, columns, picture, precision=lax.Precision.HIGHEST
    )
    return jnp.concatenate([table_td[:class_tokens], resized.reshape(-1, d)])


class Patches(nn.Module):
    """Affine map of every patch, with float32 outputs.

    Parameters: `kernel` `[patch, patch, c, d]`, `bias` `[d]` unless `use_bias` is off.
    """

    hidden: int
    patch: int
    dtype: Dtype
    use_bias: bool = True

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, h / patch, w / patch, hidden]`."""
        init = nn.initializers.lecun_normal()
        shape = (self.patch, self.patch, images_bhwc.shape[-1], self.hidden)
        kernel = self.param("kernel", init, shape, jnp.float32).reshape(-1, self.hidden)
        patches = extract_patches(images_bhwc, self.patch)
        out = contract("bhwi,io->bhwo", patches, b=kernel, dtype=self.dtype)
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.hidden,), jnp.float32)
            out = out + add_leading_axes(bias, 4)
        return out


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm1(x)), then x + mlp(norm2(x))."""

    heads: int
    mlp: int
    dropout: float
    drop_path: float
    eps: float
    qkv_bias: bool
    dtype: Dtype
    activation: str = "gelu"
    causal: bool = False

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, *, where: jax.Array | None = None, train: bool
    ) -> jax.Array:
        """Map `[b, t, d]` to `[b, t, d]` float32; `where` `[b, t]` masks padding."""
        drop = functools.partial(Dropout(self.dropout), deterministic=not train)
        # One draw per example: the whole branch is dropped.
        drop_path = nn.Dropout(
            self.drop_path, broadcast_dims=(1, 2), deterministic=not train
        )
        y = LayerNorm(self.eps, name="norm1")(x_btd)
        y = Attention(
            self.heads,
            qkv_bias=self.qkv_bias,
            causal=self.causal,
            dtype=self.dtype,
            name="attention",
        )(y, where=where, train=train)
        x = x_btd + drop_path(drop(y))
        y = LayerNorm(self.eps, name="norm2")(x)
        y = Mlp(self.mlp, dtype=self.dtype, activation=self.activation, name="mlp")(y)
        return x + drop_path(drop(y))


class ViT(PatchEncoder):
    """Vision transformer without a pooler or classifier.

    Parameters, beside their names in the files of Hugging Face's `ViTModel` (i from
    0 in both):

    | here | there |
    |---|---|
    | `patch/kernel` `[p, p, c, d]`, `patch/bias` | `embeddings.patch_embeddings.projection` |
    | `cls` `[d]` | `embeddings.cls_token` |
    | `positions` `[1 + grid * grid, d]` | `embeddings.position_embeddings` |
    | `block<i>/norm1`, `norm2` | `encoder.layer.i.layernorm_{before,after}` |
    | `block<i>/attention/{query,key,value}` | `encoder.layer.i.attention.attention.*` |
    | `block<i>/attention/out` | `encoder.layer.i.attention.output.dense` |
    | `block<i>/mlp/up` | `encoder.layer.i.intermediate.dense` |
    | `block<i>/mlp/down` | `encoder.layer.i.output.dense` |
    | `norm` | `layernorm` |

    Attributes:
        hidden: features of a token.
        layers: transformer blocks.
        heads: attention heads.
        mlp: features inside a block's MLP.
        patch: side of a patch in pixels.
        grid: side of the position table in patches; it is interpolated for pictures
            of another size.
        dropout: rate after the embeddings and on every residual branch.
        drop_path: rate at which the last block's branches are dropped for a whole
            example; it grows linearly from 0 at the first block.
        eps: epsilon of the layer normalisations (1e-12 in Google's checkpoints, 1e-6
            in DINO's and timm's).
        qkv_bias: whether queries, keys and values have a bias.
        dtype: dtype of products.
        remat: whether the backward pass recomputes blocks, see `apply_block`.
        axis_name: mapped axis over which the batch is split; unused, as nothing here
            couples the examples.

    References:
        Dosovitskiy et al. 2020, arXiv:2010.11929; DeiT's sizes, Touvron et al. 2020,
        arXiv:2012.12877, table 1; stochastic depth, Huang et al. 2016,
        arXiv:1603.09382.
    """  # noqa: E501

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    patch: int = 16
    grid: int = 14
    dropout: float = 0.0
    drop_path: float = 0.0
    eps: float = 1e-12
    qkv_bias: bool = True
    dtype: Dtype = jnp.float32
    remat: bool = False
    axis_name: str | None = None

    family: ClassVar[str] = "vit"

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Encode images as the CLS token after the last normalisation.

        Args:
            images_bhwc: `[b, h, w, c]` float, normalised; sides multiples of `patch`.
            train: whether dropout and drop path are active (rng "dropout").

        Returns:
            `[b, hidden]` float32.

        Raises:
            ValueError: for images that are not `[b, h, w, c]` of a float dtype, or
                sides that `patch` does not divide.
        """
        return self.tokens(images_bhwc, train=train)[:, 0]

    @nn.compact
    def tokens(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Return all tokens after the last norm, `[b, 1 + n, hidden]` float32.

        The CLS token is first, then the patches in rows from the top left. Args and
        errors are those of `__call__`.
        """
        check_images(images_bhwc)
        init = nn.initializers.normal(0.02)
        patches = Patches(self.hidden, self.patch, dtype=self.dtype, name="patch")
        x = patches(images_bhwc)
        b, h, w, d = x.shape
        cls = self.param("cls", init, (d,), jnp.float32)
        table = self.param("positions", init, (1 + self.grid**2, d), jnp.float32)
        x = jnp.concatenate(
            [jnp.broadcast_to(cls.reshape(1, 1, d), (b, 1, d)), x.reshape(b, -1, d)], 1
        )
        x = x + interpolate_positions(table, grid=(h, w))[None]
        x = Dropout(self.dropout)(x, deterministic=not train)
        for i in range(self.layers):
            block = Block(
                heads=self.heads,
                mlp=self.mlp,
                dropout=self.dropout,
                drop_path=self.drop_path * i / max(self.layers - 1, 1),
                eps=self.eps,
                qkv_bias=self.qkv_bias,
                dtype=self.dtype,
                name=f"block{i}",
            )
            x = apply_block(block, x, train=train, remat=self.remat)
        return LayerNorm(self.eps, name="norm")(x)
