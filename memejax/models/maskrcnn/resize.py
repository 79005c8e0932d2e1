"""Normalisation and resizing of pictures onto a canvas padded with zeros."""

import jax
import jax.numpy as jnp
import numpy as np

# ImageNet's, in the order red, green, blue.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def resize_scale(
    height: int, width: int, *, min_side: int = 800, max_side: int = 1333
) -> float:
    """Compute the scale that brings a picture's shorter side to `min_side`, or less.

    min(min_side / shorter, max_side / longer), in float32 with the reciprocals of the
    sides, as in torchvision 0.14: the last bit can decide a row of pixels.

    Args:
        height: height of the picture, in pixels, at least 1.
        width: width of the picture.
        min_side: target of the shorter side.
        max_side: limit of the longer side.

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
    """Compute the height and width of the resized picture, rounded down.

    As in torchvision 0.14, a side can be one pixel short (333 x 500 becomes
    799 x 1201) if the scale is rounded below its quotient.

    Args and errors are those of `resize_scale`.
    """
    scale = resize_scale(height, width, min_side=min_side, max_side=max_side)
    return int(height * scale), int(width * scale)


def normalize(images: jax.Array) -> jax.Array:
    """Normalise images as (x - mean) / std with ImageNet's statistics.

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
    """Resize padded pictures bilinearly into the corner of a canvas of zeros.

    Value i of the result is sampled at (i + 0.5) * size / new_size - 0.5, clipped to
    the picture, without antialiasing. All sizes may be traced: one compilation per
    canvas size.

    Args:
        images_bhwc: `[b, h, w, c]` float, normalised; padding is not read.
        sizes_b2: `[b, 2]` int32, true height and width, at most (h, w).
        new_sizes_b2: `[b, 2]` int32, new height and width (`resized_size`), at most
            the canvas.
        canvas: height and width of the result.

    Returns:
        `[b, *canvas, c]` float32.

    Raises:
        ValueError: for other shapes.
    """
    b = images_bhwc.shape[0]
    shapes = {sizes_b2.shape, new_sizes_b2.shape}
    if images_bhwc.ndim != 4 or shapes != {(b, 2)}:
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
        source = jnp.clip((at + 0.5) * ratio - 0.5, 0.0, (old - 1).astype(jnp.float32))
        low = source.astype(jnp.int32)
        high = jnp.minimum(low + 1, old - 1)
        shape = (b, side, 1, 1) if axis == 0 else (b, 1, side, 1)
        near, far = (
            jnp.take_along_axis(x, i.reshape(shape), axis=axis + 1) for i in (low, high)
        )
        weight = (source - low.astype(jnp.float32)).reshape(shape)
        x = near * (1.0 - weight) + far * weight
        inside.append((at < new.astype(jnp.float32)).reshape(shape))
    return jnp.where(inside[0] & inside[1], x, 0.0)
