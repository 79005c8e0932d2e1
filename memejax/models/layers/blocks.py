"""Blocks of an encoder, with or without rematerialisation."""

from typing import Any

import flax.linen as nn
import jax


def apply_block(
    block: nn.Module, x: jax.Array, *, train: bool, remat: bool, **arrays: jax.Array
) -> jax.Array:
    """Return `block(x, **arrays, train=train)`, rematerialised if `remat`.

    Args:
        block: a submodule of the calling module.
        x: the block's input.
        train: passed to the block.
        remat: whether to keep only the inputs for the backward pass, which then
            recomputes the block. Values, gradients and parameter names stay the same.
        **arrays: further inputs of the block.

    References:
        Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """

    def call(block: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> jax.Array:
        return block(x, **arrays, train=train)

    return (nn.remat(call) if remat else call)(block, x, arrays)
