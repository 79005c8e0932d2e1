"""Box arithmetic, on `(x1, y1, x2, y2)` in float32."""

import math

import jax
import jax.numpy as jnp

# Largest log growth of a side: from an anchor of 16 pixels to a box of 1000.
LARGEST_GROWTH = math.log(1000.0 / 16.0)


def decode(
    deltas: jax.Array,
    boxes: jax.Array,
    *,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> jax.Array:
    """Apply predicted deltas to boxes.

    With w and h the sides of a box and d = deltas / weights: its centre moves by
    (d_x * w, d_y * h), and its sides become w * exp(min(d_w, g)) and
    h * exp(min(d_h, g)), g = log(1000 / 16).

    Args:
        deltas: `[..., 4]` (d_x, d_y, d_w, d_h).
        boxes: `[..., 4]` with the same number of axes, broadcast against deltas.
        weights: divisors of the four deltas.

    Returns:
        `[..., 4]`.

    References:
        Girshick et al. 2013, arXiv:1311.2524, appendix C.
    """
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    x = dx * width + (boxes[..., 0] + 0.5 * width)
    y = dy * height + (boxes[..., 1] + 0.5 * height)
    half_w = 0.5 * (jnp.exp(jnp.minimum(dw, LARGEST_GROWTH)) * width)
    half_h = 0.5 * (jnp.exp(jnp.minimum(dh, LARGEST_GROWTH)) * height)
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)


def clip(boxes: jax.Array, sizes: jax.Array) -> jax.Array:
    """Clip boxes to their image.

    Args:
        boxes: `[..., 4]`.
        sizes: `[..., 2]` height and width of the image, with the same number of axes,
            broadcast over the leading axes of `boxes`.

    Returns:
        `[..., 4]`, x in [0, width] and y in [0, height].
    """
    height, width = (sizes[..., i].astype(boxes.dtype) for i in range(2))
    upper = jnp.stack([width, height, width, height], axis=-1)
    return jnp.clip(boxes, 0.0, upper)


def has_sides(boxes: jax.Array, min_side: float) -> jax.Array:
    """Whether both sides of each box `[..., 4]` are >= `min_side`, `[...]` bool."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return (width >= min_side) & (height >= min_side)


def area(boxes: jax.Array) -> jax.Array:
    """Compute the areas `[...]` of boxes `[..., 4]`."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes_n4: jax.Array, others_m4: jax.Array) -> jax.Array:
    """Compute the intersection over union of all pairs; 0 for two empty boxes.

    Args:
        boxes_n4: `[..., n, 4]`.
        others_m4: `[..., m, 4]`, with the same leading axes.

    Returns:
        `[..., n, m]` in [0, 1].
    """
    a, b = boxes_n4[..., :, None, :], others_m4[..., None, :, :]
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    sides = jnp.maximum(sides, 0.0)
    both = sides[..., 0] * sides[..., 1]
    union = area(a) + area(b) - both
    return both / jnp.where(union > 0, union, 1.0)
