"""CLIP's two towers, a transformer of pictures and one of captions.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `t` tokens, `d`
features, `e` features after the projection.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import PatchEncoder, TextEncoder, last_visible
from memejax.models.layers import Dtype, LayerNorm, check_images
from memejax.models.towers import Tower
from memejax.models.vit import Patches, interpolate_positions

# Sizes of the towers of published CLIPs: pictures, captions.
CLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clip_base_32": (
        dict(hidden=768, layers=12, heads=12, mlp=3072, patch=32, projection=512),
        dict(hidden=512, layers=12, heads=8, mlp=2048, projection=512),
    ),
    "clip_base_16": (
        dict(hidden=768, layers=12, heads=12, mlp=3072, patch=16, projection=512),
        dict(hidden=512, layers=12, heads=8, mlp=2048, projection=512),
    ),
    "clip_large_14": (
        dict(hidden=1024, layers=24, heads=16, mlp=4096, patch=14, projection=768),
        dict(hidden=768, layers=12, heads=12, mlp=3072, projection=768),
    ),
    "clip_huge_14": (
        dict(hidden=1280, layers=32, heads=16, mlp=5120, patch=14, projection=1024),
        dict(hidden=1024, layers=24, heads=16, mlp=4096, projection=1024),
    ),
}


class ClipVision(Tower, PatchEncoder):
    """CLIP's image tower: a ViT with a norm before its blocks, one after on CLS alone.

    Parameters, beside their names in the files of Hugging Face's
    `CLIPVisionModelWithProjection` (i from 0 in both; `..` is `vision_model`):

    | here | there |
    |---|---|
    | `patches/kernel` `[p, p, c, d]` | `..embeddings.patch_embedding` |
    | `cls` `[d]` | `..embeddings.class_embedding` |
    | `positions` `[1 + grid * grid, d]` | `..embeddings.position_embedding` |
    | `pre_norm`, `norm` | `..pre_layrnorm`, `..post_layernorm` |
    | `block<i>/norm1`, `norm2` | `..encoder.layers.i.layer_norm{1,2}` |
    | `block<i>/attention/{query,key,value,out}` | `..encoder.layers.i.self_attn.*` |
    | `block<i>/mlp/{up,down}` | `..encoder.layers.i.mlp.fc{1,2}` |
    | `projector/kernel` `[d, e]` | `visual_projection` |

    Attributes:
        hidden: features of a token.
        layers: transformer blocks.
        heads: attention heads.
        mlp: features inside a block's MLP.
        patch: side of a patch in pixels.
        grid: side of the position table in patches; it is interpolated for pictures
            of another size.
        projection: features of the space shared with captions; 0: no projection.
        activation: of the MLPs, one of `layers.ACTIVATIONS`: "quick_gelu" in OpenAI's
            checkpoints, "gelu" in LAION's and DataComp's.
        dropout: rate after the embeddings and on every residual branch.
        drop_path: as in `ViT`.
        eps: epsilon of the layer normalisations.
        dtype: dtype of products.
        remat: whether the backward pass recomputes blocks, see `apply_block`.
        axis_name: unused, as nothing here couples the examples.

    References:
        Radford et al. 2021, arXiv:2103.00020; OpenCLIP's, Cherti et al. 2022,
        arXiv:2212.07143.
    """

    hidden: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    patch: int = 32
    grid: int = 7
    projection: int = 512
    activation: str = "quick_gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    eps: float = 1e-5
    dtype: Dtype = jnp.float32
    remat: bool = False
    axis_name: str | None = None

    family: ClassVar[str] = "clip_vision"

    def setup(self) -> None:
        """Create the layers, which `tokens` and `project` share."""
        self.patches = Patches(
            self.hidden, self.patch, dtype=self.dtype, use_bias=False
        )
        init = nn.initializers.normal(0.02)
        self.cls = self.param("cls", init, (self.hidden,), jnp.float32)
        self.positions = self.param(
            "positions", init, (1 + self.grid**2, self.hidden), jnp.float32
        )
        self.pre_norm = LayerNorm(self.eps)
        self.add_blocks(drop_path=self.drop_path)
        self.norm = LayerNorm(self.eps)
        self.add_projector()

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Encode images as the CLS token after the last normalisation, unprojected.

        Args:
            images_bhwc: `[b, h, w, c]` float, normalised; sides multiples of `patch`.
            train: whether dropout and drop path are active (rng "dropout").

        Returns:
            `[b, hidden]` float32.

        Raises:
            ValueError: for images that are not `[b, h, w, c]` of a float dtype, or
                sides that `patch` does not divide.
        """
        pooled = self.norm(self.tokens(images_bhwc, train=train)[:, 0])
        self.create_projector(pooled)
        return pooled

    def tokens(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Return all tokens of the last block, `[b, 1 + n, hidden]` float32.

        They are not normalised. The CLS token is first, then the patches in rows from
        the top left. Args and errors are those of `__call__`.
        """
        check_images(images_bhwc)
        x = self.patches(images_bhwc)
        b, h, w, d = x.shape
        cls = jnp.broadcast_to(self.cls.reshape(1, 1, d), (b, 1, d))
        x = jnp.concatenate([cls, x.reshape(b, -1, d)], axis=1)
        x = x + interpolate_positions(self.positions, grid=(h, w))[None]
        return self.through_blocks(self.pre_norm(x), train=train)


class ClipText(Tower, TextEncoder):
    """CLIP's caption tower: a causal transformer, pooled at the end of the text.

    Parameters, beside their names in the files of Hugging Face's
    `CLIPTextModelWithProjection` (i from 0 in both; `..` is `text_model`):

    | here | there |
    |---|---|
    | `words` `[vocab, d]` | `..embeddings.token_embedding` |
    | `positions` `[max_length, d]` | `..embeddings.position_embedding` |
    | `block<i>` | `..encoder.layers.i`, as in `ClipVision` |
    | `norm` | `..final_layer_norm` |
    | `projector/kernel` `[d, e]` | `text_projection` |

    Attributes:
        vocab_size: rows of the word table.
        max_length: rows of the position table; longer captions have to be cut.
        hidden, layers, heads, mlp, projection, activation, eps: as in `ClipVision`.
        dropout: rate after the embeddings and on every residual branch.
        dtype: dtype of products.
        remat: whether the backward pass recomputes blocks, see `apply_block`.

    References:
        Radford et al. 2021, arXiv:2103.00020.
    """

    vocab_size: int = 49408
    max_length: int = 77
    hidden: int = 512
    layers: int = 12
    heads: int = 8
    mlp: int = 2048
    projection: int = 512
    activation: str = "quick_gelu"
    dropout: float = 0.0
    eps: float = 1e-5
    dtype: Dtype = jnp.float32
    remat: bool = False

    family: ClassVar[str] = "clip_text"

    def setup(self) -> None:
        """Create the layers."""
        init = nn.initializers.normal(0.02)
        self.words = self.param(
            "words", init, (self.vocab_size, self.hidden), jnp.float32
        )
        self.positions = self.param(
            "positions", init, (self.max_length, self.hidden), jnp.float32
        )
        self.add_blocks(causal=True)
        self.norm = LayerNorm(self.eps)
        self.add_projector()

    @nn.nowrap
    def pool(
        self, tokens_btd: jax.Array, attention_mask_bt: jax.Array, *, pooling: str
    ) -> jax.Array:
        """Return the end-of-text token, whatever `pooling`: CLIP was trained so."""
        del pooling
        return last_visible(tokens_btd, attention_mask_bt)

    def __call__(
        self, input_ids_bt: jax.Array, attention_mask_bt: jax.Array, *, train: bool
    ) -> jax.Array:
        """Encode captions that end with CLIP's end-of-text token.

        Args:
            input_ids_bt: `[b, t]` int in [0, vocab_size); t <= max_length.
            attention_mask_bt: `[b, t]`, 1 for a token and 0 for padding, which is on
                the right.
            train: whether dropout is active (rng "dropout").

        Returns:
            Normalised last hidden states `[b, t, hidden]` float32; those of padding
            are meaningless.

        Raises:
            ValueError: if ids and mask differ in shape or are not `[b, t]`, or t is
                longer than the position table.
        """
        t = self.check_tokens(input_ids_bt, attention_mask_bt, longest=self.max_length)
        x = jnp.take(self.words, input_ids_bt, axis=0) + self.positions[None, :t]
        x = self.through_blocks(x, train=train, where=attention_mask_bt)
        tokens = self.norm(x)
        self.create_projector(tokens[:, 0])
        return tokens
