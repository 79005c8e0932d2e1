"""Crops of pictures for an image encoder, made on the device.

They resize as Pillow does with 8-bit pixels: a bilinear filter with antialiasing and
22-bit weights, along rows and then along columns, rounded after each. So a crop made
here equals the one made on the host, except that Pillow 13 does columns first if a crop
shrinks much more along them, which occasionally changes a value by 1 of 255.

Shape suffixes: b batch, h height, w width, s the encoder's side in pixels, c channels,
k crops per picture, m the side of a mask.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Half of the bits of a weight.
_HALF = 11


def cut_boxes(
    pictures_bhwc: jax.Array, boxes_bk4: jax.Array, *, size: int
) -> jax.Array:
    """Crop boxes and resize them to squares, bilinearly with antialiasing.

    Pixels outside a box, rounded outwards to whole pixels, have no effect. The k boxes
    are processed one at a time, for all pictures: intermediate values are `[b, h, s,
    c]`, with 2 s (h w + s h) c b operations per box.

    Args:
        pictures_bhwc: uint8 `[b, h, w, c]`.
        boxes_bk4: float32 `[b, k, 4]`, (x1, y1, x2, y2) in pixels, inside the
            pictures; an empty box gives zeros.
        size: s, the side of the crops.

    Returns:
        float32 `[b, k, s, s, c]`, whole numbers in 0..255.

    Raises:
        ValueError: for other shapes.
    """
    b = pictures_bhwc.shape[0]
    if pictures_bhwc.ndim != 4 or boxes_bk4.shape != (b, *boxes_bk4.shape[1:2], 4):
        raise ValueError(
            f"got pictures {list(pictures_bhwc.shape)} and boxes "
            f"{list(boxes_bk4.shape)}, expected [b, h, w, c] and [b, k, 4]"
        )
    height, width = pictures_bhwc.shape[1:3]
    x_bhwc = pictures_bhwc.astype(jnp.float32)

    def crop(box_b4: jax.Array) -> jax.Array:
        weights_x = _resize_weights(box_b4[:, 0], box_b4[:, 2], size=size, length=width)
        weights_y = _resize_weights(
            box_b4[:, 1], box_b4[:, 3], size=size, length=height
        )
        narrow_bhsc = _weighted_sum("bsw,bhwc->bhsc", weights_x, x_bhwc)
        return _weighted_sum("bth,bhsc->btsc", weights_y, narrow_bhsc)

    return jnp.swapaxes(lax.map(crop, jnp.swapaxes(boxes_bk4, 0, 1)), 0, 1)


def _weighted_sum(
    axes: str, weights: tuple[jax.Array, jax.Array], x: jax.Array
) -> jax.Array:
    """Sum 8-bit values times 22-bit weights, rounded to whole numbers in 0..255."""
    # float32 sums each half of the bits exactly, but not at the lower precision that
    # accelerators use for products by default.
    high, low = (
        jnp.einsum(axes, half, x, precision=lax.Precision.HIGHEST).astype(jnp.int32)
        for half in weights
    )
    total = high * 2**_HALF + low + 2 ** (2 * _HALF - 1)
    return jnp.clip(total >> (2 * _HALF), 0, 255).astype(jnp.float32)


def _resize_weights(
    low: jax.Array, high: jax.Array, *, size: int, length: int
) -> tuple[jax.Array, jax.Array]:
    """Compute the 22-bit weight of each pixel of a line in each output value.

    Returns:
        `[b, size, length]` twice, whole numbers: the high and the low half of the bits.
    """
    first, last = jnp.floor(low)[:, None], jnp.ceil(high)[:, None]
    side = (high - low)[:, None]
    # Positions of centres from the first pixel, times 2 * size: whole numbers if a box
    # has whole corners. Values halfway between two 8-bit ones, of which there are many,
    # are then rounded as in Pillow.
    value = (2 * jnp.arange(size, dtype=jnp.float32)[None] + 1) * side
    value = value + 2 * size * (low[:, None] - first)
    pixel = jnp.arange(length, dtype=jnp.float32)[None] - first
    distance = jnp.abs(((2 * pixel + 1) * size)[:, None] - value[:, :, None])
    share = jnp.maximum(2 * jnp.maximum(side, size)[..., None] - distance, 0)
    inside = (pixel >= 0) & (pixel < last - first)
    share = jnp.where(inside[:, None], share, 0) * 2**_HALF
    total = share.sum(axis=-1, keepdims=True) / 2**_HALF
    total = jnp.where(total > 0, total, 1)
    bits = jnp.floor(share / total)
    return bits, jnp.floor((share - bits * total) * 2**_HALF / total + 0.5)


def cut_masks(
    squares_bssc: jax.Array, masks_bkmm: jax.Array, *, spans_bk4: jax.Array
) -> jax.Array:
    """Multiply the whole picture by the soft mask of each entity.

    A mask is resized bilinearly to the pixels of its span, with a border of zeros one
    value wide around it.

    Args:
        squares_bssc: float32 `[b, s, s, c]` in 0..255, the pictures as squares.
        masks_bkmm: uint8 `[b, k, m, m]`, 255 inside the entity.
        spans_bk4: int32 `[b, k, 4]`, (x, y) of the first and (x, y) of the last pixel
            of each mask with its border (`mask_spans`), which may lie outside.

    Returns:
        float32 `[b, k, s, s, c]`, whole numbers in 0..255.

    Raises:
        ValueError: for other shapes.

    References:
        Exploring emerging properties in multimodal neural networks, its entities.
    """
    b, k, m = masks_bkmm.shape[:3]
    if masks_bkmm.shape != (b, k, m, m) or spans_bk4.shape != (b, k, 4):
        raise ValueError(
            f"got masks {list(masks_bkmm.shape)} and spans {list(spans_bk4.shape)}, "
            "expected [b, k, m, m] and [b, k, 4]"
        )
    side = squares_bssc.shape[1]
    soft = jnp.pad(
        masks_bkmm.astype(jnp.float32) / 255, ((0, 0), (0, 0), (1, 1), (1, 1))
    )
    weights_x, weights_y = (
        _mask_weights(
            spans_bk4[..., i], spans_bk4[..., i + 2], values=m + 2, length=side
        )
        for i in (0, 1)
    )
    soft = jnp.einsum(
        "bkym,bkmn,bkxn->bkyx",
        weights_y,
        soft,
        weights_x,
        precision=lax.Precision.HIGHEST,
    )
    return jnp.rint(squares_bssc[:, None] * soft[..., None])


def mask_spans(boxes: np.ndarray, *, side: int) -> np.ndarray:
    """Compute the pixel spans of entity masks, borders included.

    The box grows in proportion to the border; its corners are rounded towards zero,
    and the last pixel is included.

    Args:
        boxes: float32 `[..., 4]` (x1, y1, x2, y2), in pixels.
        side: m, the side of a mask without its border.

    Returns:
        int32 `[..., 4]`, (x, y) of the first and of the last pixel.
    """
    # On the host: the last bit decides the rounding of a corner.
    boxes = np.asarray(boxes, np.float32)
    half = (boxes[..., 2:] - boxes[..., :2]) * np.float32(0.5)
    half = half * np.float32((side + 2) / side)
    centre = (boxes[..., 2:] + boxes[..., :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.int32)


def _mask_weights(
    first: jax.Array, last: jax.Array, *, values: int, length: int
) -> jax.Array:
    """Bilinear weights `[b, k, length, values]` in pixels first to last, else 0."""
    pixels = jnp.maximum(last - first + 1, 1)[..., None]
    at = jnp.arange(length)[None, None] - first[..., None]
    position = (at.astype(jnp.float32) + 0.5) * (values / pixels) - 0.5
    position = jnp.clip(position, 0, values - 1)[..., None]
    knots = jnp.arange(values, dtype=jnp.float32)[None, None, None]
    weights = jnp.maximum(1 - jnp.abs(position - knots), 0)
    inside = (at >= 0) & (at < pixels)
    return jnp.where(inside[..., None], weights, 0)
