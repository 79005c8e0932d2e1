"""Multi-head self-attention.

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
    """Multi-head self-attention: softmax(Q K^T / sqrt(e)) V, then one affine map.

    With `causal` a token attends to itself and the tokens before it only.

    Parameters: `query`, `key`, `value`, `out`, each a `Dense`. Collection
    "intermediates", if mutable: `attention`, a tuple of one array per call, the
    weights before dropout, float32 `[b, heads, t, t]`.

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
        self, x_btd: jax.Array, *, where: jax.Array | None = None, train: bool
    ) -> jax.Array:
        """Attend from every token to every visible one.

        Args:
            x_btd: `[b, t, d]` tokens.
            where: `[b, t]`, nonzero where a token may be attended to; None for all.
            train: whether attention weights are dropped (rng "dropout").

        Returns:
            `[b, t, d]` float32.

        Raises:
            ValueError: if the features do not divide into the heads.
        """
        b, t, d = x_btd.shape
        if d % self.heads:
            raise ValueError(
                f"got {d} features, expected a multiple of the {self.heads} heads"
            )

        def project(name: str) -> jax.Array:
            dense = Dense(d, use_bias=self.qkv_bias, dtype=self.dtype, name=name)
            # Heads first: XLA's CPU backend has no bfloat16 product with a float32
            # result where the batch axes of the factors do not lead.
            heads = dense(x_btd).reshape(b, t, self.heads, d // self.heads)
            return heads.transpose(0, 2, 1, 3)

        # Scaled on the queries: t * d multiplications instead of t * t * n.
        query = project("query") * (d // self.heads) ** -0.5
        key, value = project("key"), project("value")
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
        out = out.transpose(0, 2, 1, 3).reshape(b, t, d)
        return Dense(d, dtype=self.dtype, name="out")(out)
