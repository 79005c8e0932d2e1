"""SigLIP's two towers, a transformer of pictures and one of captions.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `t` tokens, `d`
features, `e` features after the projection.
"""

from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import PatchEncoder, TextEncoder
from memejax.models.layers import Attention, Dtype, LayerNorm, Mlp, check_images
from memejax.models.towers import Tower
from memejax.models.vit import Patches, interpolate_positions

# Sizes of the towers of published SigLIPs: pictures, captions. SigLIP2's vocabulary is
# 256,000 words.
SIGLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "siglip_base_16": (
        dict(hidden=768, layers=12, heads=12, mlp=3072, patch=16),
        dict(hidden=768, layers=12, heads=12, mlp=3072, projection=768),
    ),
    "siglip_large_16": (
        dict(hidden=1024, layers=24, heads=16, mlp=4096, patch=16),
        dict(hidden=1024, layers=24, heads=16, mlp=4096, projection=1024),
    ),
    "siglip_so400m_14": (
        dict(hidden=1152, layers=27, heads=16, mlp=4304, patch=14),
        dict(hidden=1152, layers=27, heads=16, mlp=4304, projection=1152),
    ),
}


class AttentionPool(nn.Module):
    """One learned query, the probe, that attends to all patches, and an MLP on it.

    a = attention(probe; tokens), output a + mlp(norm(a)).

    References:
        Zhai et al. 2021, arXiv:2106.04560, section 4 (the MAP head).
    """

    heads: int
    mlp: int
    eps: float
    activation: str
    dtype: Dtype

    @nn.compact
    def __call__(self, x_btd: jax.Array, *, train: bool) -> jax.Array:
        """Pool `[b, t, d]` to `[b, d]` float32."""
        b, _, d = x_btd.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, d))
        queries = jnp.broadcast_to(probe[None], (b, 1, d))
        attention = Attention(self.heads, dtype=self.dtype, name="attention")
        x = attention(x_btd, queries_bqd=queries, train=train)
        y = LayerNorm(self.eps, name="norm")(x)
        y = Mlp(self.mlp, dtype=self.dtype, activation=self.activation, name="mlp")(y)
        return (x + y)[:, 0]


class SiglipVision(Tower, PatchEncoder):
    """SigLIP's image tower: a ViT without a class token, pooled by a learned query.

    Parameters, beside their names in the files of Hugging Face's `SiglipVisionModel`
    (i from 0 in both; `..` is `vision_model`):

    | here | there |
    |---|---|
    | `patches/kernel` `[p, p, c, d]`, `patches/bias` | `..embeddings.patch_embedding` |
    | `positions` `[grid * grid, d]` | `..embeddings.position_embedding` |
    | `block<i>` | `..encoder.layers.i`, as in `ClipVision` |
    | `norm` | `..post_layernorm` |
    | `pool/probe` `[1, d]` | `..head.probe` |
    | `pool/attention/{query,key,value}` | `..head.attention.in_proj_*`, stacked |
    | `pool/attention/out` | `..head.attention.out_proj` |
    | `pool/norm`, `pool/mlp/{up,down}` | `..head.layernorm`, `..head.mlp.fc{1,2}` |

    Attributes:
        hidden, layers, heads, mlp, grid, activation, dropout, drop_path, eps, dtype,
            remat, axis_name: as in `ClipVision`.
        patch: side of a patch in pixels; rows and columns of a picture beyond whole
            patches are left out (6 of 384 pixels in the so400m).

    References:
        Zhai et al. 2023, arXiv:2303.15343; SigLIP2, Tschannen et al. 2025,
        arXiv:2502.14786.
    """

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    patch: int = 16
    grid: int = 14
    activation: str = "gelu_pytorch_tanh"
    dropout: float = 0.0
    drop_path: float = 0.0
    eps: float = 1e-6
    dtype: Dtype = jnp.float32
    remat: bool = False
    axis_name: str | None = None

    family: ClassVar[str] = "siglip_vision"
    explained_by: ClassVar[str] = "probe_attention"
    class_tokens: ClassVar[int] = 0
    # Pooled features are those that pictures and captions share.
    projection: ClassVar[int] = 0

    def setup(self) -> None:
        """Create the layers, which `tokens` and `__call__` share."""
        self.patches = Patches(self.hidden, self.patch, dtype=self.dtype)
        init = nn.initializers.normal(0.02)
        self.positions = self.param(
            "positions", init, (self.grid**2, self.hidden), jnp.float32
        )
        self.add_blocks(drop_path=self.drop_path)
        self.norm = LayerNorm(self.eps)
        self.pool = AttentionPool(
            heads=self.heads,
            mlp=self.mlp,
            eps=self.eps,
            activation=self.activation,
            dtype=self.dtype,
        )

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Encode images as the output of the pooling.

        Args:
            images_bhwc: `[b, h, w, c]` float, normalised; sides at least `patch`.
            train: whether dropout and drop path are active (rng "dropout").

        Returns:
            `[b, hidden]` float32.

        Raises:
            ValueError: for images that are not `[b, h, w, c]` of a float dtype, or
                smaller than a patch.
        """
        return self.pool(self.tokens(images_bhwc, train=train), train=train)

    def tokens(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Return the normalised tokens of the last block, `[b, n, hidden]` float32.

        They are in rows from the top left. Args and errors are those of `__call__`.
        """
        check_images(images_bhwc)
        height, width = (side // self.patch for side in images_bhwc.shape[1:3])
        if not height or not width:
            raise ValueError(
                f"got images {list(images_bhwc.shape)}, expected sides of at least "
                f"{self.patch} pixels"
            )
        whole = images_bhwc[:, : height * self.patch, : width * self.patch]
        x = self.patches(whole)
        x = x.reshape(x.shape[0], height * width, self.hidden)
        table = interpolate_positions(
            self.positions, grid=(height, width), class_tokens=0
        )
        return self.norm(self.through_blocks(x + table[None], train=train))

    @property
    def shared_width(self) -> int:
        """Features of the pooling, which captions share."""
        return self.hidden

    def project(self, pooled_bd: jax.Array) -> jax.Array:
        """Return the pooled features, which are in the space shared with captions."""
        return pooled_bd

    @nn.nowrap
    def for_images(self, size: int) -> Self:
        """Return the tower with a position table for images of `size` x `size`."""
        if size < self.patch:
            raise ValueError(
                f"images of {size} pixels are smaller than a patch of {self.patch}"
            )
        return self.clone(grid=size // self.patch)


class SiglipText(Tower, TextEncoder):
    """SigLIP's caption tower, pooled at the last position, which padding may hold.

    Parameters, beside their names in the files of Hugging Face's `SiglipTextModel` (i
    from 0 in both; `..` is `text_model`):

    | here | there |
    |---|---|
    | `words` `[vocab, d]` | `..embeddings.token_embedding` |
    | `positions` `[max_length, d]` | `..embeddings.position_embedding` |
    | `block<i>` | `..encoder.layers.i`, as in `ClipVision` |
    | `norm` | `..final_layer_norm` |
    | `projector` | `..head` |

    Attributes:
        vocab_size: rows of the word table; SigLIP2 has 256,000.
        max_length: rows of the position table, and tokens of every caption.
        hidden, layers, heads, mlp, activation, dropout, eps, dtype, remat: as in
            `SiglipVision`.
        projection: features of the space shared with pictures; 0: no projection.

    References:
        Zhai et al. 2023, arXiv:2303.15343.
    """

    vocab_size: int = 32000
    max_length: int = 64
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    projection: int = 768
    activation: str = "gelu_pytorch_tanh"
    dropout: float = 0.0
    eps: float = 1e-6
    dtype: Dtype = jnp.float32
    remat: bool = False

    family: ClassVar[str] = "siglip_text"
    fixed_length: ClassVar[bool] = True

    def setup(self) -> None:
        """Create the layers."""
        init = nn.initializers.normal(0.02)
        self.words = self.param(
            "words", init, (self.vocab_size, self.hidden), jnp.float32
        )
        self.positions = self.param(
            "positions", init, (self.max_length, self.hidden), jnp.float32
        )
        self.add_blocks()
        self.norm = LayerNorm(self.eps)
        self.add_projector(use_bias=True)

    @nn.nowrap
    def smallest_inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Return the shapes of one caption: ids and attention mask."""
        tokens = jax.ShapeDtypeStruct((1, self.max_length), jnp.int32)
        return tokens, tokens

    @nn.nowrap
    def pool(
        self, tokens_btd: jax.Array, attention_mask_bt: jax.Array, *, pooling: str
    ) -> jax.Array:
        """Return the last position, whatever `pooling`: SigLIP was trained so."""
        del attention_mask_bt, pooling
        return tokens_btd[:, -1]

    def __call__(
        self, input_ids_bt: jax.Array, attention_mask_bt: jax.Array, *, train: bool
    ) -> jax.Array:
        """Encode captions that are padded to `max_length`.

        Args:
            input_ids_bt: `[b, max_length]` int in [0, vocab_size), padded on the right
                with the tokenizer's own padding, which is attended to.
            attention_mask_bt: `[b, max_length]`; unused.
            train: whether dropout is active (rng "dropout").

        Returns:
            Normalised last hidden states `[b, max_length, hidden]` float32.

        Raises:
            ValueError: if ids and mask differ in shape or are not `[b, max_length]`.
        """
        t = self.check_tokens(input_ids_bt, attention_mask_bt, longest=self.max_length)
        if t < self.max_length:
            raise ValueError(
                f"got {t} tokens, expected captions padded to {self.max_length}: "
                "SigLIP pools the last position"
            )
        x = jnp.take(self.words, input_ids_bt, axis=0) + self.positions[None]
        tokens = self.norm(self.through_blocks(x, train=train))
        self.create_projector(tokens[:, 0])
        return tokens
