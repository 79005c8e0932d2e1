"""Blocks of an encoder, kept for the backward pass or computed again."""

from typing import Any

import flax.linen as nn
import jax


def apply_block(
    block: nn.Module, x: jax.Array, *, train: bool, remat: bool, **arrays: jax.Array
) -> jax.Array:
    """`block(x, **arrays, train=train)`, whose inside may be forgotten.

    Args:
        block: a module of the module that calls this.
        x: the block's input.
        train: as the block takes it.
        remat: whether only the inputs are kept for the backward pass, which then
            computes the block once more. Values and gradients stay the same, and so
            do the parameters' names.
        **arrays: what else the block takes.

    References:
        Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """

    def call(block: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> jax.Array:
        return block(x, **arrays, train=train)

    return (nn.remat(call) if remat else call)(block, x, arrays)
