"""Attention maps of image transformers.

`cls_attention` is a pure function on arrays; `vit_attention` and `probe_attention` run
an encoder through its `apply_fn` (a module's `apply`). For more than a picture or two,
wrap it in `jax.jit` with `apply_fn` bound.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features,
`n` heads, `q` and `k` query and key tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# `(variables, images_bhwc, train=False, mutable= or method=)`, a module's `apply`.
ApplyFn = Callable[..., Any]
Variables = Mapping[str, Any]


def cls_attention(
    weights_bnqk: ArrayLike, *, grid: tuple[int, int], renormalize: bool = False
) -> jax.Array:
    """Attention of the CLS token to the patches, one map per head.

    `map[i, j] = A[0, 1 + i w + j]` of the attention weights A: the row of the CLS
    token without its own column.

    Args:
        weights_bnqk: `[b, heads, t, t]`, rows sum to 1, the CLS token first.
        grid: patches in height and width, `t - 1` in all, row by row from the top left.
        renormalize: whether each map sums to 1; else its sum is 1 minus the attention
            of CLS to itself.

    Returns:
        `[b, heads, grid height, grid width]` in [0, 1].

    Raises:
        ValueError: if the weights are not of that shape.

    References:
        Caron et al. (DINO), arXiv 2104.14294, figures 1 and 3.

    >>> weights = jnp.array([[[[0.5, 0.25, 0.25], [1, 0, 0], [1, 0, 0]]]])
    >>> print(cls_attention(weights, grid=(1, 2)))
    [[[[0.25 0.25]]]]
    """
    weights = jnp.asarray(weights_bnqk)
    height, width = grid
    tokens = 1 + height * width
    if weights.ndim != 4 or weights.shape[2:] != (tokens, tokens):
        raise ValueError(
            f"got attention weights {list(weights.shape)}, expected [b, heads, "
            f"{tokens}, {tokens}] for a grid of {height} x {width} patches and CLS"
        )
    row = weights[:, :, 0, 1:]
    if renormalize:
        total = jnp.sum(row, axis=-1, keepdims=True)
        # CLS may attend only to itself; the map is then zero.
        row = row / jnp.where(total > 0, total, 1.0)
    return row.reshape(*row.shape[:2], height, width)


def vit_attention(
    apply_fn: ApplyFn,
    variables: Variables,
    *,
    images_bhwc: ArrayLike,
    layer: int = -1,
    renormalize: bool = False,
) -> jax.Array:
    """Attention of the CLS token in one block of a ViT, one map per head.

    Args:
        apply_fn: `apply` of `memejax.models.vit.ViT`.
        variables: its params.
        images_bhwc: `[b, h, w, c]` float, normalised; sides are multiples of the patch.
        layer: index of the block, from 0; negative from the last.
        renormalize: as in `cls_attention`.

    Returns:
        float32 `[b, heads, h / patch, w / patch]`.

    Raises:
        ValueError: if there is no such block, or `apply_fn` is not of a ViT.
    """
    images = jnp.asarray(images_bhwc)
    _, state = apply_fn(variables, images, train=False, mutable=["intermediates"])
    weights = _blocks(state.get("intermediates", {}))
    if not -len(weights) <= layer < len(weights):
        raise ValueError(
            f"got layer {layer} and attention weights of {len(weights)} blocks, "
            "expected one of the blocks of a ViT"
        )
    grid = _grid(images.shape[1], images.shape[2], weights[layer].shape[-1] - 1)
    return cls_attention(weights[layer], grid=grid, renormalize=renormalize)


def probe_attention(
    apply_fn: ApplyFn, variables: Variables, *, images_bhwc: ArrayLike, patch: int
) -> jax.Array:
    """Attention of the probe that pools a SigLIP's patches, one map per head.

    Args:
        apply_fn: `apply` of `memejax.models.siglip.SiglipVision`.
        variables: its params.
        images_bhwc: `[b, h, w, c]` float, normalised.
        patch: side of a patch in pixels.

    Returns:
        float32 `[b, heads, h // patch, w // patch]`, each map's sum is 1.

    References:
        Zhai et al. 2021, arXiv:2106.04560, section 4.
    """
    images = jnp.asarray(images_bhwc)
    _, state = apply_fn(variables, images, train=False, mutable=["intermediates"])
    weights_bnqk = state["intermediates"]["pool"]["attention"]["attention"][-1]
    height, width = (side // patch for side in images.shape[1:3])
    return weights_bnqk.reshape(*weights_bnqk.shape[:2], height, width)


def _blocks(intermediates: Mapping[str, Any]) -> list[jax.Array]:
    """Attention weights of block0, block1, ..., `[b, heads, t, t]` each."""
    numbers = [re.fullmatch(r"block(\d+)", name) for name in intermediates]
    found = sorted(int(match[1]) for match in numbers if match)
    # Sown values come in tuples, one entry per call.
    return [intermediates[f"block{i}"]["attention"]["attention"][-1] for i in found]


def _grid(height: int, width: int, patches: int) -> tuple[int, int]:
    """Grid (height, width) of a number of square patches that cover a picture."""
    patch = math.isqrt(height * width // max(patches, 1))
    grid = (height // patch, width // patch) if patch else (0, 0)
    if grid[0] * grid[1] != patches or height % patch or width % patch:
        raise ValueError(
            f"got {patches} patches for a picture of {height} x {width} pixels, "
            "expected a grid of squares and a CLS token"
        )
    return grid
