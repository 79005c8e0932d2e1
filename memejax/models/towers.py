"""Blocks and projection that the towers of contrastive models share.

Shape suffixes: `b` batch, `t` tokens, `d` features, `e` features after the projection.
"""

import flax.linen as nn
import jax

from memejax.models.encoders import Layered
from memejax.models.layers import Dense, Dropout, apply_block
from memejax.models.vit import Block


class Tower(Layered):
    """The base class of the towers of pictures and captions that CLIP and SigLIP have.

    Its subclasses have the attributes `layers`, `heads`, `mlp`, `projection` (0: none),
    `activation`, `dropout`, `eps`, `dtype` and `remat`.
    """

    @nn.nowrap
    def add_blocks(self, *, causal: bool = False, drop_path: float = 0.0) -> None:
        """Create `block0`, `block1`, ... and the dropout before them, in `setup`.

        Args:
            causal: whether a token attends to itself and those before it only.
            drop_path: rate of the last block; it grows linearly from 0 at the first.
        """
        self.embeddings_dropout = Dropout(self.dropout)
        for i in range(self.layers):
            block = Block(
                heads=self.heads,
                mlp=self.mlp,
                dropout=self.dropout,
                drop_path=drop_path * i / max(self.layers - 1, 1),
                eps=self.eps,
                qkv_bias=True,
                activation=self.activation,
                causal=causal,
                dtype=self.dtype,
            )
            setattr(self, f"block{i}", block)

    @nn.nowrap
    def add_projector(self, *, use_bias: bool = False) -> None:
        """Create the projection to the space that both towers share, in `setup`."""
        if self.projection:
            self.projector = Dense(self.projection, use_bias=use_bias, dtype=self.dtype)

    @nn.nowrap
    def through_blocks(
        self, x_btd: jax.Array, *, train: bool, where: jax.Array | None = None
    ) -> jax.Array:
        """Map embeddings `[b, t, d]` to the last block's tokens, `[b, t, d]`.

        `where`, `[b, t]`, is nonzero at tokens that may be attended to; None for all.
        """
        masks = {} if where is None else {"where": where}
        x = self.embeddings_dropout(x_btd, deterministic=not train)
        for i in range(self.layers):
            block = getattr(self, f"block{i}")
            x = apply_block(block, x, train=train, remat=self.remat, **masks)
        return x

    @nn.nowrap
    def create_projector(self, pooled_bd: jax.Array) -> None:
        """Create the projector's parameters in `init`, which calls `__call__` alone."""
        if self.is_initializing() and self.projection:
            self.projector(pooled_bd)

    @property
    def shared_width(self) -> int:
        """Features in the space that both towers share; 0 without a projection."""
        return self.projection

    def project(self, pooled_bd: jax.Array) -> jax.Array:
        """Map `[b, hidden]` to the space that both towers share, `[b, projection]`.

        Raises:
            ValueError: if the tower has no projection.
        """
        if not self.projection:
            raise ValueError(f"this {self.family} has no projection")
        return self.projector(pooled_bd)
