"""Where an encoder looks: attention maps of a ViT, Grad-CAM of a residual network.

The first two functions are pure ones on arrays. The other two run an encoder through
its `apply_fn` (a module's `apply`), which they give `train=False`; wrap them in
`jax.jit` with `apply_fn` bound for more than a picture or two.

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

# Score of each example from its pooled features: [b, d] -> [b].
ScoreFn = Callable[[jax.Array], jax.Array]
# `(variables, images_bhwc, train=False, mutable= or method=)`, a module's `apply`.
ApplyFn = Callable[..., Any]
Variables = Mapping[str, Any]


def cls_attention(
    weights_bnqk: ArrayLike, *, grid: tuple[int, int], renormalize: bool = False
) -> jax.Array:
    """What the CLS token attends to, as one picture a head.

    `map[i, j] = A[0, 1 + i w + j]` of the attention weights A: the row of the CLS
    token without its own column.

    Args:
      weights_bnqk: `[b, heads, t, t]`, rows sum to 1, the CLS token first.
      grid: patches in height and width, `t - 1` of them, in rows from the top left.
      renormalize: whether a map sums to 1; else to 1 less what CLS gives itself.

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
        # CLS may keep all of its attention; the map is then zero.
        row = row / jnp.where(total > 0, total, 1.0)
    return row.reshape(*row.shape[:2], height, width)


def grad_cam(
    maps_bhwd: ArrayLike, score_fn: ScoreFn, *, normalize: bool = True
) -> jax.Array:
    """Where in its last map a network finds what raises a score.

    `a_d = mean_ij dy / dA_ijd` (eq. 1), `map_ij = relu(sum_d a_d A_ijd)` (eq. 2), for
    a score y of features f that are the mean of the map A. Then `dy / dA_ijd = (dy /
    df_d) / (h w)`, so the network below the map is not run again.

    Args:
      maps_bhwd: the last map, `[b, h, w, d]`.
      score_fn: `(features [b, d]) -> [b]`; an example's score must depend on its own
        features only. The sign counts: for what lowers a score pass its negative.
      normalize: whether each map is divided by its largest value (a map of zeros
        stays); else maps are comparable between examples.

    Returns:
      `[b, h, w]`, at least 0; at most 1 where normalised.

    Raises:
      ValueError: if the map or the scores are not of that shape.

    References:
      Selvaraju et al., arXiv 1610.02391, eq. 1 and 2.

    >>> maps = jnp.array([[[[1.0, 0.0], [0.0, 4.0]]]])
    >>> print(grad_cam(maps, lambda f: f[:, 0] - f[:, 1], normalize=False))
    [[[0.5 0. ]]]
    """
    maps = jnp.asarray(maps_bhwd)
    if maps.ndim != 4:
        raise ValueError(f"got a map {list(maps.shape)}, expected [b, h, w, d]")
    b, h, w, _ = maps.shape
    scores, pull_back = jax.vjp(score_fn, jnp.mean(maps, axis=(1, 2)))
    if scores.shape != (b,):
        raise ValueError(f"got scores {list(scores.shape)}, expected [{b}]")
    (gradient,) = pull_back(jnp.ones_like(scores))
    cam = jax.nn.relu(jnp.einsum("bd,bhwd->bhw", gradient / (h * w), maps))
    if normalize:
        largest = jnp.max(cam, axis=(1, 2), keepdims=True)
        cam = cam / jnp.where(largest > 0, largest, 1.0)
    return cam


def own_direction(features_bd: jax.Array) -> jax.Array:
    """How long an embedding is along its own direction, held fixed: a score.

    `s = <f, stop_gradient(f / |f|)>`, whose gradient is `f / |f|`: a Grad-CAM of it
    shows, without a label or a head, the places whose features are those of the
    whole picture.

    Args:
      features_bd: `[b, d]`.

    Returns:
      `[b]`, the norms; 0, with a gradient of 0, for a zero embedding.
    """
    squared = jnp.sum(jnp.square(features_bd), axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return jnp.sum(features_bd * jax.lax.stop_gradient(features_bd / norm), axis=-1)


def vit_attention(
    apply_fn: ApplyFn,
    variables: Variables,
    *,
    images_bhwc: ArrayLike,
    layer: int = -1,
    renormalize: bool = False,
) -> jax.Array:
    """The CLS token's attention in one block of a ViT, as one picture a head.

    Args:
      apply_fn: `apply` of `memejax.models.vit.ViT`.
      variables: its params.
      images_bhwc: `[b, h, w, c]` float, normalised; sides multiples of the patch.
      layer: block, from 0; negative from the last.
      renormalize: as in `cls_attention`.

    Returns:
      float32 `[b, heads, h / patch, w / patch]`.

    Raises:
      ValueError: if there is no such block, or what `apply_fn` runs is no ViT.
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


def resnet_grad_cam(
    apply_fn: ApplyFn,
    variables: Variables,
    *,
    images_bhwc: ArrayLike,
    score_fn: ScoreFn | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Grad-CAM of the last stage of a residual network.

    Args:
      apply_fn: `apply` of `memejax.models.resnet.ResNet`.
      variables: its params and batch_stats.
      images_bhwc: `[b, h, w, c]` float, normalised.
      score_fn: as in `grad_cam`, what a head makes of the network's features; None
        takes `own_direction`, which needs no head.
      normalize: as in `grad_cam`.

    Returns:
      float32 `[b, h / 32, w / 32]` for four stages, sides rounded up.

    Raises:
      ValueError: as `grad_cam`.
    """
    maps = apply_fn(
        variables, jnp.asarray(images_bhwc), train=False, method="feature_maps"
    )
    return grad_cam(maps[-1], score_fn or own_direction, normalize=normalize)


def _blocks(intermediates: Mapping[str, Any]) -> list[jax.Array]:
    """Attention weights of block0, block1, ..., `[b, heads, t, t]` each."""
    numbers = [re.fullmatch(r"block(\d+)", name) for name in intermediates]
    found = sorted(int(match[1]) for match in numbers if match)
    # Sown values come in tuples, one entry a call.
    return [intermediates[f"block{i}"]["attention"]["attention"][-1] for i in found]


def _grid(height: int, width: int, patches: int) -> tuple[int, int]:
    """The grid of so many square patches over a picture."""
    patch = math.isqrt(height * width // max(patches, 1))
    grid = (height // patch, width // patch) if patch else (0, 0)
    if grid[0] * grid[1] != patches or height % patch or width % patch:
        raise ValueError(
            f"got {patches} patches of a picture of {height} x {width} pixels, "
            "expected a grid of squares and a CLS token"
        )
    return grid
