"""Parts of pictures as pictures for an image encoder, cut out on the device.

What Pillow does to pixels of 8 bits: a bilinear filter that smooths what shrinks, with
weights of 22 bits, along rows and then along columns, rounded after each. So what is
cut out here is what is cut out of the same pictures on the host; but that Pillow 13
takes columns first where a part is much more shrunk along them, which changes a value
by 1 of 255 now and then.

Shape suffixes: b batch, h height, w width, s the encoder's side in pixels, c channels,
k parts of a picture, m the side of a mask.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Bits of half a weight.
_HALF = 11


def cut_boxes(
    pictures_bhwc: jax.Array, boxes_bk4: jax.Array, *, size: int
) -> jax.Array:
    """What is in boxes, stretched to squares, bilinear with antialiasing.

    Nothing beside a box, rounded to whole pixels outwards, is mixed in. One of the k
    boxes is worked on at a time, of all pictures: intermediate values are `[b, h, s,
    c]`, and 2 s (h w + s h) c b operations a box.

    Args:
        pictures_bhwc: uint8 `[b, h, w, c]`.
        boxes_bk4: float32 `[b, k, 4]`, (x1, y1, x2, y2) in pixels, inside of the
            pictures; one of no area gives zeros.
        size: s.

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

    def one(box_b4: jax.Array) -> jax.Array:
        along_x = _weights(box_b4[:, 0], box_b4[:, 2], size=size, length=width)
        along_y = _weights(box_b4[:, 1], box_b4[:, 3], size=size, length=height)
        narrow_bhsc = _weighted("bsw,bhwc->bhsc", along_x, x_bhwc)
        return _weighted("bth,bhsc->btsc", along_y, narrow_bhsc)

    return jnp.swapaxes(lax.map(one, jnp.swapaxes(boxes_bk4, 0, 1)), 0, 1)


def _weighted(
    axes: str, weights: tuple[jax.Array, jax.Array], x: jax.Array
) -> jax.Array:
    """Sums of 8 bits times 22 bits, rounded: whole numbers in 0..255."""
    # Each half of the bits float32 sums exactly, but not at the lower precision that
    # accelerators have for products by default.
    high, low = (
        jnp.einsum(axes, half, x, precision=lax.Precision.HIGHEST).astype(jnp.int32)
        for half in weights
    )
    total = high * 2**_HALF + low + 2 ** (2 * _HALF - 1)
    return jnp.clip(total >> (2 * _HALF), 0, 255).astype(jnp.float32)


def _weights(
    low: jax.Array, high: jax.Array, *, size: int, length: int
) -> tuple[jax.Array, jax.Array]:
    """The share of each of a line's pixels in each value, in 22 bits.

    Returns:
        `[b, size, length]` twice, whole: the first half of the bits and the second.
    """
    first, last = jnp.floor(low)[:, None], jnp.ceil(high)[:, None]
    side = (high - low)[:, None]
    # Twice `size` times where centres lie, from the first pixel on: whole numbers where
    # a box has whole corners. Values that lie in the middle between two of 8 bits are
    # then rounded as Pillow does, and there are many of them.
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
    """A whole picture a time for each entity, times its soft mask.

    A mask is stretched bilinearly over the pixels from the first to the last of its
    span, with a border of zeros one value wide around it.

    Args:
        squares_bssc: float32 `[b, s, s, c]` in 0..255, the pictures as squares.
        masks_bkmm: uint8 `[b, k, m, m]`, 255 is the entity.
        spans_bk4: int32 `[b, k, 4]`, (x, y) of the first and (x, y) of the last pixel
            of each mask with its border (`mask_spans`); some may lie outside.

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
    along_x, along_y = (
        _stretch(spans_bk4[..., i], spans_bk4[..., i + 2], values=m + 2, length=side)
        for i in (0, 1)
    )
    soft = jnp.einsum(
        "bkym,bkmn,bkxn->bkyx", along_y, soft, along_x, precision=lax.Precision.HIGHEST
    )
    return jnp.rint(squares_bssc[:, None] * soft[..., None])


def mask_spans(boxes: np.ndarray, *, side: int) -> np.ndarray:
    """The pixels over which masks of entities are stretched, border and all.

    The box grows in proportion to the border; its corners are rounded towards zero and
    the last pixel counted in.

    Args:
        boxes: float32 `[..., 4]` (x1, y1, x2, y2), in pixels.
        side: m, values along a mask without its border.

    Returns:
        int32 `[..., 4]`, (x, y) of the first and of the last pixel.
    """
    # On the host: where a corner is rounded, the last bit decides.
    boxes = np.asarray(boxes, np.float32)
    half = (boxes[..., 2:] - boxes[..., :2]) * np.float32(0.5)
    half = half * np.float32((side + 2) / side)
    centre = (boxes[..., 2:] + boxes[..., :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.int32)


def _stretch(
    first: jax.Array, last: jax.Array, *, values: int, length: int
) -> jax.Array:
    """Bilinear weights `[b, k, length, values]` over pixels first to last, else 0."""
    pixels = jnp.maximum(last - first + 1, 1)[..., None]
    at = jnp.arange(length)[None, None] - first[..., None]
    place = (at.astype(jnp.float32) + 0.5) * (values / pixels) - 0.5
    place = jnp.clip(place, 0, values - 1)[..., None]
    knots = jnp.arange(values, dtype=jnp.float32)[None, None, None]
    inside = (at >= 0) & (at < pixels)
    return jnp.where(inside[..., None], jnp.maximum(1 - jnp.abs(place - knots), 0), 0)
