"""Multi-head attention, of tokens to themselves or to others.

Shape suffixes: `b` batch, `t` tokens, `d` features, `n` heads, `e` features per head,
`q` and `k` query and key tokens.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers.dense import Dense
from memejax.models.layers.dropout import Dropout
from memejax.models.layers.kinds import Dtype
from memejax.models.layers.products import contract

# Logit of a masked key. A row with no visible key then averages its values, where
# -inf would give NaN.
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


class Attention(nn.Module):
    """Multi-head attention: softmax(Q K^T / sqrt(e)) V, then one affine map.

    With `causal` a token attends to itself and the tokens before it only.

    Parameters: `query`, `key`, `value`, `out`, each a `Dense`. Collection
    "intermediates", if mutable: `attention`, a tuple of one array per call, the
    weights before dropout, float32 `[b, heads, q, t]`.

    References:
        Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """

    heads: int
    dropout: float = 0.0
    qkv_bias: bool = True
    causal: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        *,
        queries_bqd: jax.Array | None = None,
        where: jax.Array | None = None,
        train: bool,
    ) -> jax.Array:
        """Attend from every query to every visible token.

        Args:
            x_btd: `[b, t, d]` tokens.
            queries_bqd: `[b, q, d]`, what attends to them; None for the tokens.
            where: `[b, t]`, nonzero where a token may be attended to; None for all.
            train: whether attention weights are dropped (rng "dropout").

        Returns:
            `[b, q, d]` float32.

        Raises:
            ValueError: if the features do not divide into the heads.
        """
        queries_bqd = x_btd if queries_bqd is None else queries_bqd
        b, t, d = x_btd.shape
        if d % self.heads:
            raise ValueError(
                f"got {d} features, expected a multiple of the {self.heads} heads"
            )

        def project(name: str, tokens_btd: jax.Array) -> jax.Array:
            dense = Dense(d, use_bias=self.qkv_bias, dtype=self.dtype, name=name)
            # Heads first: XLA's CPU backend has no bfloat16 product with a float32
            # result where the batch axes of the factors do not lead.
            heads = dense(tokens_btd).reshape(b, -1, self.heads, d // self.heads)
            return heads.transpose(0, 2, 1, 3)

        # Scaled on the queries: t * d multiplications instead of t * t * n.
        query = project("query", queries_bqd) * (d // self.heads) ** -0.5
        key, value = project("key", x_btd), project("value", x_btd)
        logits = contract("bnqe,bnke->bnqk", query, b=key, dtype=self.dtype)
        if where is not None:
            logits = jnp.where(where[:, None, None, :] != 0, logits, MASKED)
        if self.causal:
            before = jnp.arange(t)[:, None] >= jnp.arange(t)[None, :]
            logits = jnp.where(before[None, None], logits, MASKED)
        weights = nn.softmax(logits, axis=-1)
        # Kept only if the caller makes "intermediates" mutable; `init` does not.
        self.sow("intermediates", "attention", weights)
        weights = Dropout(self.dropout)(weights, deterministic=not train)
        out = contract("bnqk,bnke->bnqe", weights, b=value, dtype=self.dtype)
        out = out.transpose(0, 2, 1, 3).reshape(b, -1, d)
        return Dense(d, dtype=self.dtype, name="out")(out)
