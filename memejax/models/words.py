"""Averaged word vectors, a text encoder without word order.

Shape suffixes: `b` batch, `t` tokens, `d` features.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import TextEncoder
from memejax.models.layers import Dtype


class AveragedWords(TextEncoder):
    """The mean of a caption's word vectors.

    `u = sum_t m_t E[x_t] / max(1, sum_t m_t)`

    with x the tokens, E the table `words` `[vocab_size, hidden]` and m the attention
    mask without position 0, which holds [CLS] in every caption. If nothing else is
    attended to, position 0 is used; if nothing is, u is 0.

    It replaces the text encoder in the published recipe for arms pretrained on images
    alone. There the vectors are pretrained by fastText (cbow, 150 features) on the
    training captions, with one row per word; here the rows are the tokenizer's pieces,
    trained with the classifier from random vectors of length about 1.

    Attributes:
        vocab_size: rows of the word table.
        hidden: features of a word.
        dropout: rate of the dropout on the mean.
        dtype: dtype in which the vectors are averaged; sums accumulate in float32.
        remat: accepted for consistency with other encoders; there are no blocks here.

    References:
        Joulin et al. 2016, arXiv:1607.01759, section 2 (the averaged vectors under a
        linear classifier); Bojanowski et al. 2016, arXiv:1607.04606 (fastText).
    """

    vocab_size: int
    hidden: int = 150
    dropout: float = 0.0
    dtype: Dtype = jnp.float32
    remat: bool = False

    family: ClassVar[str] = "words"

    @nn.compact
    def __call__(
        self, input_ids_bt: jax.Array, attention_mask_bt: jax.Array, *, train: bool
    ) -> jax.Array:
        """Average captions to one token, in the place of [CLS].

        Args:
            input_ids_bt: `[b, t]` int in [0, vocab_size); t at least 1.
            attention_mask_bt: `[b, t]`, 1 for a token and 0 for padding.
            train: whether dropout is active (rng "dropout").

        Returns:
            `[b, 1, hidden]` float32.

        Raises:
            ValueError: if ids and mask differ in shape or are not `[b, t]`.
        """
        shape = input_ids_bt.shape
        if len(shape) != 2 or shape != attention_mask_bt.shape or not shape[1]:
            raise ValueError(
                f"got input_ids {list(shape)} and attention_mask "
                f"{list(attention_mask_bt.shape)}, expected the same [b, t] for both"
            )
        init = nn.initializers.normal(self.hidden**-0.5)
        words = self.param("words", init, (self.vocab_size, self.hidden), jnp.float32)

        attended = attention_mask_bt != 0
        later = attended & (jnp.arange(shape[1]) > 0)[None]
        where = jnp.where(later.any(axis=1, keepdims=True), later, attended)
        # Cast after the lookup: the table's gradient then accumulates in float32.
        x_btd = jnp.take(words, input_ids_bt, axis=0).astype(self.dtype)
        x_btd = jnp.where(where[:, :, None], x_btd, 0)
        total = x_btd.sum(axis=1, keepdims=True, dtype=jnp.float32)
        count = where.sum(axis=1).astype(jnp.float32)
        mean = total / jnp.maximum(count, 1.0)[:, None, None]
        return nn.Dropout(self.dropout, deterministic=not train)(mean)
