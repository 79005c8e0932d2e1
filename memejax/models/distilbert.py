"""DistilBERT, the caption encoder. BERT's encoder is the same with more layers.

Shape suffixes: `b` batch, `t` tokens, `d` features.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import Layered, TextEncoder
from memejax.models.layers import Attention, Dropout, Dtype, LayerNorm, Mlp, apply_block

BERTS: dict[str, dict[str, Any]] = {
    "distilbert": dict(hidden=768, layers=6, heads=12, mlp=3072),
    "bert_base": dict(hidden=768, layers=12, heads=12, mlp=3072),
    "minilm_l6": dict(hidden=384, layers=6, heads=12, mlp=1536),
    # For the built-in memes on a CPU.
    "transformer_demo": dict(hidden=96, layers=2, heads=4, mlp=192),
}


class Block(nn.Module):
    """Post-norm transformer block: norm1(x + attention(x)), then norm2(x + mlp(x))."""

    heads: int
    mlp: int
    dropout: float
    eps: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x_btd: jax.Array, *, where: jax.Array, train: bool) -> jax.Array:
        """Map `[b, t, d]` to `[b, t, d]` float32; `where` `[b, t]` masks padding."""
        y = Attention(
            self.heads, dropout=self.dropout, dtype=self.dtype, name="attention"
        )(x_btd, where=where, train=train)
        x = LayerNorm(self.eps, name="norm1")(x_btd + y)
        y = Mlp(self.mlp, dtype=self.dtype, name="mlp")(x)
        y = Dropout(self.dropout)(y, deterministic=not train)
        return LayerNorm(self.eps, name="norm2")(x + y)


class DistilBert(Layered, TextEncoder):
    """DistilBERT without a head; BERT without a pooler.

    Parameters, beside their names in Hugging Face's `DistilBertModel` and
    `BertModel` (i from 0 in both; `..` is `transformer.layer.i` and
    `encoder.layer.i`):

    | here | DistilBERT | BERT |
    |---|---|---|
    | `words` `[vocab, d]` | `embeddings.word_embeddings` | the same |
    | `positions` `[max_length, d]` | `embeddings.position_embeddings` | the same + row 0 of `embeddings.token_type_embeddings` |
    | `norm` | `embeddings.LayerNorm` | the same |
    | `block<i>/attention/{query,key,value}` | `..attention.{q,k,v}_lin` | `..attention.self.*` |
    | `block<i>/attention/out` | `..attention.out_lin` | `..attention.output.dense` |
    | `block<i>/norm1` | `..sa_layer_norm` | `..attention.output.LayerNorm` |
    | `block<i>/mlp/up` | `..ffn.lin1` | `..intermediate.dense` |
    | `block<i>/mlp/down` | `..ffn.lin2` | `..output.dense` |
    | `block<i>/norm2` | `..output_layer_norm` | `..output.LayerNorm` |

    Dropout is DistilBERT's: after the embeddings, on attention weights and after the
    MLP. (BERT drops after the attention's output map as well.)

    Attributes:
        vocab_size: rows of the word table.
        hidden: features of a token.
        layers: transformer blocks.
        heads: attention heads.
        mlp: features inside a block's MLP.
        max_length: rows of the position table.
        dropout: rate of every dropout.
        eps: epsilon of the layer normalisations.
        dtype: dtype of products.
        remat: whether the backward pass recomputes blocks, see `apply_block`.

    References:
        Sanh et al. 2019, arXiv:1910.01108; Devlin et al. 2018, arXiv:1810.04805;
        MiniLM, Wang et al. 2020, arXiv:2002.10957.
    """  # noqa: E501

    vocab_size: int = 30522
    hidden: int = 768
    layers: int = 6
    heads: int = 12
    mlp: int = 3072
    max_length: int = 512
    dropout: float = 0.1
    eps: float = 1e-12
    dtype: Dtype = jnp.float32
    remat: bool = False

    family: ClassVar[str] = "distilbert"

    @nn.compact
    def __call__(
        self, input_ids_bt: jax.Array, attention_mask_bt: jax.Array, *, train: bool
    ) -> jax.Array:
        """Encode captions; the CLS embedding is `[:, 0]` of the result.

        Args:
            input_ids_bt: `[b, t]` int in [0, vocab_size); t <= max_length.
            attention_mask_bt: `[b, t]`, 1 for a token and 0 for padding.
            train: whether dropout is active (rng "dropout").

        Returns:
            Last hidden states `[b, t, hidden]` float32; those of padding are
            meaningless.

        Raises:
            ValueError: if ids and mask differ in shape or are not `[b, t]`, or t is
                longer than the position table.
        """
        t = self.check_tokens(input_ids_bt, attention_mask_bt, longest=self.max_length)
        init = nn.initializers.normal(0.02)
        shape = (self.vocab_size, self.hidden)
        words = self.param("words", init, shape, jnp.float32)
        shape = (self.max_length, self.hidden)
        positions = self.param("positions", init, shape, jnp.float32)

        x = jnp.take(words, input_ids_bt, axis=0) + positions[None, :t]
        x = LayerNorm(self.eps, name="norm")(x)
        x = Dropout(self.dropout)(x, deterministic=not train)
        for i in range(self.layers):
            block = Block(
                heads=self.heads,
                mlp=self.mlp,
                dropout=self.dropout,
                eps=self.eps,
                dtype=self.dtype,
                name=f"block{i}",
            )
            x = apply_block(
                block, x, train=train, remat=self.remat, where=attention_mask_bt
            )
        return x
