"""Regions of a picture: how much each raises or lowers a score, for any encoder.

`occlusion` covers squares of the picture; `patch_sums` gathers what integrated
gradients find for pixels, whose baseline can be `blurred`.

Shape suffixes: `m` pictures, `h`, `w` height and width, `c` channels.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Scores of m pictures: [m, h, w, c] -> [m].
ScoreFn = Callable[[jax.Array], jax.Array]


def occlusion(
    score_fn: ScoreFn,
    picture_hwc: ArrayLike,
    *,
    filling_hwc: ArrayLike,
    window: int,
    stride: int,
    batch: int = 32,
) -> jax.Array:
    """Drop of a score when a square of the picture is covered.

        a_ij = mean over the squares s that cover cell (i, j) of F(x) - F(x without s)

    Squares have sides of `window` pixels and begin every `stride` pixels, the first
    outside of the picture, so that every cell is covered by equally many.

    Args:
        score_fn: F, `[batch, h, w, c] -> [batch]`.
        picture_hwc: float `[h, w, c]`.
        filling_hwc: what covers it, likewise: its mean colour, or its blurred copy.
        window: side of a square in pixels, a multiple of `stride`.
        stride: side of a cell in pixels, a divisor of h and w.
        batch: number of pictures per call of `score_fn`.

    Returns:
        float32 `[h / stride, w / stride]`: positive where covering lowers the score.

    Raises:
        ValueError: if a size does not divide another.

    References:
        Zeiler and Fergus, arXiv 1311.2901, section 4.2.

    >>> bright = jnp.zeros((4, 4, 1)).at[0, 3].set(1.0)
    >>> print(
    ...     occlusion(
    ...         lambda x: x.sum((1, 2, 3)),
    ...         bright,
    ...         filling_hwc=jnp.zeros((4, 4, 1)),
    ...         window=2,
    ...         stride=2,
    ...     )
    ... )
    [[0. 1.]
     [0. 0.]]
    """
    picture = jnp.asarray(picture_hwc, jnp.float32)
    height, width, _ = picture.shape
    if height % stride or width % stride or window % stride or window < stride:
        raise ValueError(
            f"got a picture of {height} x {width} pixels, window {window} and stride "
            f"{stride}, expected a stride that divides all of them"
        )
    cells = _squares(height // stride, width // stride, window // stride)
    # Of one picture at least nothing is covered: the whole, and what fills a batch.
    count = -(-(len(cells) + 1) // batch) * batch
    filled = np.zeros((count, *cells.shape[1:]), bool)
    filled[: len(cells)] = cells

    def scores(covered: jax.Array) -> jax.Array:
        pixels = jnp.repeat(jnp.repeat(covered, stride, 1), stride, 2)[..., None]
        return score_fn(jnp.where(pixels, jnp.asarray(filling_hwc), picture))

    parts = jnp.asarray(filled).reshape(-1, batch, *cells.shape[1:])
    found = jax.lax.map(scores, parts).reshape(-1)
    drops = found[len(cells)] - found[: len(cells)]
    return jnp.einsum("s,shw->hw", drops, cells / cells.sum(0))


def _squares(height: int, width: int, side: int) -> np.ndarray:
    """Cells that each square covers, bool [squares, height, width]."""
    rows, columns = (
        np.array(
            [
                (np.arange(n) >= start) & (np.arange(n) < start + side)
                for start in range(1 - side, n)
            ]
        )
        for n in (height, width)
    )
    squares = rows[:, None, :, None] & columns[None, :, None, :]
    return squares.reshape(-1, height, width)


def smoothed(values_hw: ArrayLike, side: int) -> jax.Array:
    """Average a map over squares, as `occlusion` does.

        b_ij = mean over the squares s that cover cell (i, j) of sum_{kl in s} a_kl

    which is what `occlusion` finds for a score that is the sum of a over the cells that
    are not covered.

    Args:
        values_hw: a, float `[h, w]`.
        side: of a square, in cells; 1 changes nothing.

    Returns:
        float32 `[h, w]`.
    """
    values = jnp.asarray(values_hw, jnp.float32)
    height, width = values.shape
    cells = _squares(height, width, side)
    sums = jnp.einsum("shw,hw->s", cells.astype(np.float32), values)
    return jnp.einsum("s,shw->hw", sums, cells / cells.sum(0))


def patch_sums(values_hwc: ArrayLike, patch: int) -> jax.Array:
    """Sum the attributions of pixels over square patches.

    Args:
        values_hwc: float `[h, w, c]`.
        patch: side in pixels, a divisor of h and w.

    Returns:
        float `[h / patch, w / patch]`, whose sum is that of all values.

    Raises:
        ValueError: if the sides are no multiples of `patch`.
    """
    values = jnp.asarray(values_hwc)
    height, width, channels = values.shape
    if height % patch or width % patch:
        raise ValueError(
            f"got {height} x {width} pixels and patches of {patch}, expected a divisor"
        )
    grid = (height // patch, patch, width // patch, patch, channels)
    return values.reshape(grid).sum((1, 3, 4))


def mean_colour(picture_hwc: ArrayLike) -> jax.Array:
    """Return a picture `[h, w, c]` of another's mean colour."""
    picture = jnp.asarray(picture_hwc, jnp.float32)
    return jnp.broadcast_to(picture.mean((0, 1)), picture.shape)


def blurred(picture_hwc: ArrayLike, sigma: float) -> jax.Array:
    """Blur a picture by a Gaussian, its edge pixels continued.

    Args:
        picture_hwc: float `[h, w, c]`.
        sigma: standard deviation in pixels, above 0.

    Returns:
        float32 `[h, w, c]`.
    """
    picture = jnp.asarray(picture_hwc, jnp.float32)
    reach = max(1, round(3 * sigma))
    kernel = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        pads = [(reach, reach) if at == axis else (0, 0) for at in range(3)]
        padded = jnp.pad(picture, pads, mode="edge")
        total = jnp.zeros_like(picture)
        for i, weight in enumerate(kernel):
            stop = i + picture.shape[axis]
            total += weight * jax.lax.slice_in_dim(padded, i, stop, axis=axis)
        picture = total
    return picture
