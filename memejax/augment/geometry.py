"""Random geometric transformations: crop, shift, flip, perspective, affine."""

import math

import dm_pix as pix
import jax
import jax.numpy as jnp

from memejax.augment.checks import Range, check, check_range
from memejax.augment.keys import select, uniform
from memejax.augment.warp import affine_matrix, perspective_matrix, warp


def random_resized_crop(
    keys: jax.Array,
    images: jax.Array,
    *,
    scale: Range,
    ratio: Range = (3 / 4, 4 / 3),
    size: tuple[int, int] | None = None,
    antialias: bool = False,
) -> jax.Array:
    """Crop a random box of each image and resize it bilinearly.

    The box has an area of `scale` times the image's and a width of `ratio` times its
    height (uniform in the logarithm); longer sides are cut to the image. Its position
    is uniform inside the image and not rounded to pixels. Two matrices per example
    resize it: `rows_byh images_bhwc columns_bxw`.

    Args:
        keys: `[b]`.
        images: `[b, h, w, c]`, of any number of channels.
        scale: lowest and highest share of the area, in (0, 1].
        ratio: lowest and highest width over height, above 0.
        size: height and width of the result; the input's if None.
        antialias: whether to widen the kernel when a box is downsampled.

    Returns:
        `[b, *size, c]`.

    Raises:
        ValueError: if keys and images do not match or a range is invalid.
    """
    check(keys, images, any_channels=True)
    check_range("scale", scale, high=1.0)
    check_range("ratio", ratio, high=math.inf)
    _, height, width, _ = images.shape
    out_height, out_width = size or (height, width)
    draws = uniform(keys, 4)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * draws[:, 1])
    box_height = jnp.minimum(jnp.sqrt(area / aspect), height)
    box_width = jnp.minimum(jnp.sqrt(area * aspect), width)
    top = (height - box_height) * draws[:, 2]
    left = (width - box_width) * draws[:, 3]
    rows_byh = _resize_matrix(top, box_height, height, out_height, antialias)
    columns_bxw = _resize_matrix(left, box_width, width, out_width, antialias)
    # Full precision keeps 8-bit steps exact; a GPU would otherwise round to 10 bits.
    full = jax.lax.Precision.HIGHEST
    tall_bywc = jnp.einsum("byh,bhwc->bywc", rows_byh, images, precision=full)
    crops_byxc = jnp.einsum("bxw,bywc->byxc", columns_bxw, tall_bywc, precision=full)
    return jnp.clip(crops_byxc, 0.0, 1.0)


def random_shift(keys: jax.Array, images: jax.Array, *, pixels: int) -> jax.Array:
    """Shift each image by whole pixels, as padding and random cropping do.

    Both shifts are uniform in `-pixels, ..., pixels`, and the uncovered area is zero:
    a random crop of the original size from an image padded by `pixels` zeros, the
    standard augmentation for CIFAR-10 with 4 pixels.

    Args:
        keys: `[b]`.
        images: `[b, h, w, c]`, of any number of channels.
        pixels: at least 0 and below h and w.

    Returns:
        `[b, h, w, c]`.

    Raises:
        ValueError: if keys and images do not match or `pixels` is out of range.

    References:
        He et al., Deep residual learning for image recognition, 1512.03385, 4.2.
    """
    check(keys, images, any_channels=True)
    if not 0 <= pixels < min(images.shape[1:3]):
        raise ValueError(
            f"got pixels {pixels} for images {images.shape}, expected 0 to "
            f"{min(images.shape[1:3]) - 1}"
        )
    if not pixels:
        return images
    padding = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, padding)
    starts = jax.vmap(
        lambda key: jax.random.randint(key, (2,), 0, 2 * pixels + 1, jnp.int32)
    )(keys)

    def crop(image_hwc: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image_hwc, (*start, 0), images.shape[1:])

    return jax.vmap(crop)(padded, starts)


def random_flip(
    keys: jax.Array,
    images: jax.Array,
    *,
    horizontal: float = 0.5,
    vertical: float = 0.0,
) -> jax.Array:
    """Mirror images left to right and upside down, with the given probabilities.

    Images may have any number of channels.
    """
    check(keys, images, any_channels=True, horizontal=horizontal, vertical=vertical)
    draws = uniform(keys, 2)
    if horizontal:
        images = select(draws[:, 0] < horizontal, pix.flip_left_right(images), images)
    if vertical:
        images = select(draws[:, 1] < vertical, pix.flip_up_down(images), images)
    return images


def random_perspective(
    keys: jax.Array,
    images: jax.Array,
    *,
    distortion: float = 0.2,
    probability: float = 1.0,
) -> jax.Array:
    """Apply a random perspective that moves the four corners of each image inwards.

    In each coordinate a corner moves by `distortion * half` times a number uniform in
    [0, 1), where half is half the distance to the opposite corner; the uncovered area
    is zero. The moves are torchvision's, but not rounded to pixels.

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        distortion: in [0, 1]; 1 lets corners move up to the middle.
        probability: probability that an image is changed.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    check(keys, images, distortion=distortion, probability=probability)
    if not distortion or not probability:
        return images
    _, height, width, _ = images.shape
    draws = uniform(keys, 9)
    inward = distortion / 2 * draws[:, :8].reshape(-1, 4, 2)
    unit = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])[None]
    sides = jnp.array([width - 1.0, height - 1.0])[None, None, :]
    corners = (unit + (1.0 - 2.0 * unit) * inward) * sides
    changed = warp(images, perspective_matrix(corners, height=height, width=width))
    return _select_clipped(draws[:, 8], probability, changed, images)


def random_affine(
    keys: jax.Array,
    images: jax.Array,
    *,
    degrees: float = 0.0,
    translate: Range = (0.0, 0.0),
    scale: Range = (1.0, 1.0),
    probability: float = 1.0,
) -> jax.Array:
    """Randomly rotate, scale and translate each image about its centre.

    The angle is uniform in [-degrees, degrees], the factor in `scale`, the shift to
    the right in `translate[0] * [-w, w]` and down in `translate[1] * [-h, h]`. The
    uncovered area is zero.

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        degrees: in [0, 180].
        translate: shares of width and height, in [0, 1].
        scale: lowest and highest factor, above 0; above 1 enlarges.
        probability: probability that an image is changed.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    check(keys, images, probability=probability)
    check_range("scale", scale, high=math.inf)
    if not 0 <= degrees <= 180:
        raise ValueError(f"got degrees {degrees}, expected a number in [0, 180]")
    if len(translate) != 2 or not all(0 <= share <= 1 for share in translate):
        raise ValueError(f"got translate {translate}, expected two shares in [0, 1]")
    identity = not degrees and not any(translate) and tuple(scale) == (1.0, 1.0)
    if identity or not probability:
        return images
    _, height, width, _ = images.shape
    draws = uniform(keys, 5)
    angle = math.radians(degrees) * (2.0 * draws[:, 0] - 1.0)
    reach = jnp.array([translate[0] * width, translate[1] * height])[None]
    matrices = affine_matrix(
        angle,
        scale[0] + (scale[1] - scale[0]) * draws[:, 1],
        shift=reach * (2.0 * draws[:, 2:4] - 1.0),
        height=height,
        width=width,
    )
    return _select_clipped(draws[:, 4], probability, warp(images, matrices), images)


def _select_clipped(
    draws: jax.Array, probability: float, changed: jax.Array, images: jax.Array
) -> jax.Array:
    """Return `changed`, clipped to [0, 1], for examples with draws < probability."""
    # Rounding may bring a mean with weights that sum to 1 above 1.
    changed = jnp.clip(changed, 0.0, 1.0)
    return changed if probability == 1 else select(draws < probability, changed, images)


def _resize_matrix(
    start: jax.Array, length: jax.Array, size: int, out: int, antialias: bool
) -> jax.Array:
    """Weights `[b, out, size]` of `out` samples from [start, start + length]."""
    step = (length / out)[:, None]
    # Pixel k covers [k, k + 1], with its centre at k + 1/2.
    at = start[:, None] + (jnp.arange(out)[None, :] + 0.5) * step - 0.5
    at = jnp.clip(at, 0.0, size - 1.0)[:, :, None]
    distance = jnp.abs(at - jnp.arange(size, dtype=jnp.float32)[None, None, :])
    reach = jnp.maximum(step, 1.0)[:, :, None] if antialias else 1.0
    weights = jnp.maximum(1.0 - distance / reach, 0.0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
