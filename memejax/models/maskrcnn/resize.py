"""Pictures onto the canvas: normalised, resized, padded with zeros."""

import jax
import jax.numpy as jnp
import numpy as np

# Of ImageNet, red, green and blue.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def resize_scale(
    height: int, width: int, *, min_side: int = 800, max_side: int = 1333
) -> float:
    """By how much a picture grows: its short side to `min_side`, or less.

    min(min_side / shorter, max_side / longer), in float32 with the reciprocals of the
    sides, as torchvision 0.14 has it: the last bit can decide a row of pixels.

    Args:
        height: of the picture, in pixels, at least 1.
        width: of the picture.
        min_side: what the shorter side becomes,
        max_side: unless the longer would become longer than this.

    Returns:
        The scale.

    Raises:
        ValueError: for a side below 1.
    """
    if min(height, width, min_side, max_side) < 1:
        raise ValueError(
            f"got a picture of {height} x {width} for sides of {min_side} and "
            f"{max_side} pixels, expected at least 1 each"
        )
    short, long = np.float32(min(height, width)), np.float32(max(height, width))
    one = np.float32(1)
    return float(min(min_side * (one / short), max_side * (one / long)))


def resized_size(
    height: int, width: int, *, min_side: int = 800, max_side: int = 1333
) -> tuple[int, int]:
    """Height and width of the resized picture, rounded down.

    A side can come out one pixel short (333 x 500 as 799 x 1201), where the scale is
    rounded below its quotient; torchvision 0.14 does so.

    Args and errors are those of `resize_scale`.
    """
    scale = resize_scale(height, width, min_side=min_side, max_side=max_side)
    return int(height * scale), int(width * scale)


def normalize(images: jax.Array) -> jax.Array:
    """(x - mean) / std of ImageNet.

    Args:
        images: `[..., 3]` RGB, uint8, or float in [0, 1].

    Returns:
        `[..., 3]` float32.

    Raises:
        ValueError: for images of another dtype or without three channels.
    """
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    if images.shape[-1:] != (3,) or not (floating or images.dtype == jnp.uint8):
        raise ValueError(
            f"got images {images.dtype}{list(images.shape)}, expected [..., 3] uint8 "
            "or float"
        )
    x = images.astype(jnp.float32)
    x = x if floating else x / 255.0
    mean, std = (
        jnp.asarray(v, jnp.float32).reshape((1,) * (x.ndim - 1) + (3,))
        for v in (MEAN, STD)
    )
    return (x - mean) / std


def resize(
    images_bhwc: jax.Array,
    sizes_b2: jax.Array,
    *,
    new_sizes_b2: jax.Array,
    canvas: tuple[int, int],
) -> jax.Array:
    """Pictures of true sizes, bilinearly, into the corners of a canvas of zeros.

    Value i of the result lies at (i + 0.5) * size / new_size - 0.5 of the picture,
    limited to it; nothing is smoothed before a picture shrinks. All sizes may be
    traced: one compilation a canvas.

    Args:
        images_bhwc: `[b, h, w, c]` float, normalised; what is beyond the true sizes
            is not read.
        sizes_b2: `[b, 2]` int32, true height and width, at most (h, w).
        new_sizes_b2: `[b, 2]` int32, those of the result (`resized_size`), at most
            the canvas.
        canvas: height and width of the result.

    Returns:
        `[b, *canvas, c]` float32.

    Raises:
        ValueError: for other shapes.
    """
    b = images_bhwc.shape[0]
    two = {sizes_b2.shape, new_sizes_b2.shape}
    if images_bhwc.ndim != 4 or two != {(b, 2)}:
        raise ValueError(
            f"got images {list(images_bhwc.shape)} and sizes {list(sizes_b2.shape)} "
            f"and {list(new_sizes_b2.shape)}, expected [b, h, w, c] and [b, 2] twice"
        )
    x = images_bhwc.astype(jnp.float32)
    inside = []
    for axis, side in enumerate(canvas):
        at = jnp.arange(side, dtype=jnp.float32)[None]
        old, new = sizes_b2[:, axis, None], new_sizes_b2[:, axis, None]
        ratio = old.astype(jnp.float32) / new.astype(jnp.float32)
        place = jnp.clip((at + 0.5) * ratio - 0.5, 0.0, (old - 1).astype(jnp.float32))
        low = place.astype(jnp.int32)
        high = jnp.minimum(low + 1, old - 1)
        shape = (b, side, 1, 1) if axis == 0 else (b, 1, side, 1)
        near, far = (
            jnp.take_along_axis(x, i.reshape(shape), axis=axis + 1) for i in (low, high)
        )
        share = (place - low.astype(jnp.float32)).reshape(shape)
        x = near * (1.0 - share) + far * share
        inside.append((at < new.astype(jnp.float32)).reshape(shape))
    return jnp.where(inside[0] & inside[1], x, 0.0)
