"""RoIAlign over the levels of a feature pyramid.

Shape suffixes: `b` batch, `r` regions, `p` positions on one axis of the output, `t`
terms of the sum at a position, `h`, `w`, `c` height, width and channels of a map.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Samples per bin in each direction.
SAMPLES = 2
# A region with this side is pooled from the level with this stride.
CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16


def roi_levels(boxes: jax.Array, *, strides: Sequence[int]) -> jax.Array:
    """Compute the pyramid level that each region is pooled from.

    floor(4 + log2(sqrt(area) / 224) + 1e-6), clipped to the available levels; level 4
    has stride 16.

    Args:
        boxes: `[..., 4]` in pixels of the canvas.
        strides: canvas pixels per map value, each twice the previous.

    Returns:
        `[...]` int32, indices into `strides`.

    References:
        Lin et al. 2016, arXiv:1612.03144, equation 1.
    """
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    side = jnp.sqrt(width * height)
    level = math.log2(CANONICAL_STRIDE) + jnp.log2(side / CANONICAL_SIDE) + 1e-6
    lowest = round(math.log2(strides[0]))
    # Clipped before the cast: the level of an empty region is minus infinity.
    level = jnp.clip(jnp.floor(level), lowest, lowest + len(strides) - 1)
    return level.astype(jnp.int32) - lowest


def roi_align(
    maps: Sequence[jax.Array],
    boxes_br4: jax.Array,
    *,
    size: int,
    strides: Sequence[int],
) -> jax.Array:
    """Pool the features of regions into `size` x `size` bins.

    A bin is the mean of 2 x 2 samples, a sample is bilinear between the four values
    around it. This is the legacy alignment, with which the published weights were
    trained: value (i, j) of a map lies at (i, j) * stride on the canvas, half a value
    off, and a region is at least one value wide and high. A sample outside the map
    takes the edge's value up to one value away, and 0 beyond.

    Args:
        maps: `[b, h, w, c]` each, any float dtype.
        boxes_br4: `[b, r, 4]` float32 in pixels of the canvas.
        size: bins in each direction.
        strides: canvas pixels per value of each map. With several maps, the region's
            area selects one (`roi_levels`).

    Returns:
        `[b, r, size, size, c]` float32.

    Raises:
        ValueError: if the numbers of maps and strides differ, or for other shapes.

    References:
        He et al. 2017, arXiv:1703.06870, section 3.
    """
    shapes = [m.shape for m in maps]
    maps_match = len({(s[0], s[-1]) for s in shapes}) == 1 and all(
        len(s) == 4 for s in shapes
    )
    batch = shapes[0][0] if shapes and shapes[0] else None
    boxes_match = boxes_br4.ndim == 3 and boxes_br4.shape[::2] == (batch, 4)
    if not maps_match or not boxes_match or len(maps) != len(strides):
        raise ValueError(
            f"got maps {[list(s) for s in shapes]}, boxes {list(boxes_br4.shape)} and "
            f"{len(strides)} strides, expected [b, h, w, c] each, [b, r, 4] and one "
            "stride per map"
        )
    b, _, _, c = shapes[0]
    # One table of all maps' values, so that each region reads only one level.
    table = jnp.concatenate([m.reshape(b, -1, c) for m in maps], axis=1)
    counts = [s[1] * s[2] for s in shapes]
    starts = np.cumsum([0, *counts[:-1]])

    level = roi_levels(boxes_br4, strides=strides)
    height, width, start = (
        jnp.asarray(np.array(of, np.int32))[level]
        for of in ([s[1] for s in shapes], [s[2] for s in shapes], starts)
    )
    scale = jnp.asarray(1.0 / np.array(strides, np.float32))[level]
    x1, y1, x2, y2 = (boxes_br4[..., i] * scale for i in range(4))
    row_brpt, row_weight_brpt = _terms(y1, y2, height, size=size)
    column_brpt, column_weight_brpt = _terms(x1, x2, width, size=size)
    first = start + jnp.arange(b, dtype=jnp.int32)[:, None] * sum(counts)
    row_brpt = first[..., None, None] + row_brpt * width[..., None, None]

    rows_of_table = table.reshape(-1, c)
    out = jnp.zeros((*boxes_br4.shape[:2], size, size, c), jnp.float32)
    # Term by term, so that 16 times the result is never in memory.
    for i in range(row_brpt.shape[-1]):
        for j in range(column_brpt.shape[-1]):
            index = row_brpt[:, :, :, None, i] + column_brpt[:, :, None, :, j]
            weight = (
                row_weight_brpt[:, :, :, None, i] * column_weight_brpt[:, :, None, :, j]
            )
            values = rows_of_table.at[index].get(mode="clip")
            out = out + weight[..., None] * values.astype(jnp.float32)
    return out


def _terms(
    low_br: jax.Array, high_br: jax.Array, length_br: jax.Array, *, size: int
) -> tuple[jax.Array, jax.Array]:
    """Compute indices and weights of the values in each bin along one axis.

    Args:
        low_br: `[b, r]` start of the region, in values of the map.
        high_br: `[b, r]` end of the region.
        length_br: `[b, r]` int32, length of that axis of the map.
        size: number of bins.

    Returns:
        `[b, r, size, 2 * SAMPLES]` int32 and float32.
    """
    bin_br = jnp.maximum(high_br - low_br, 1.0) / size
    offsets = np.arange(size)[:, None] + (np.arange(SAMPLES)[None] + 0.5) / SAMPLES
    offsets = jnp.asarray(offsets.astype(np.float32))
    at = low_br[..., None, None] + bin_br[..., None, None] * offsets[None, None]
    length = length_br[..., None, None]
    inside = (at >= -1.0) & (at <= length.astype(at.dtype))
    at = jnp.clip(at, 0.0, (length - 1).astype(at.dtype))
    below = at.astype(jnp.int32)
    above = jnp.minimum(below + 1, length - 1)
    far = at - below.astype(at.dtype)
    weight = jnp.stack([1.0 - far, far], axis=-1) / SAMPLES
    weight = jnp.where(inside[..., None], weight, 0.0)
    index = jnp.stack([below, above], axis=-1)
    shape = (*at.shape[:3], 2 * SAMPLES)
    return index.reshape(shape), weight.reshape(shape)
