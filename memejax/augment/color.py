"""Pixel operations: conversion, normalisation, random colours, noise and blur."""

import math

import dm_pix as pix
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.augment.checks import Range, check, check_range
from memejax.augment.keys import select, uniform


def to_float(images: ArrayLike) -> jax.Array:
    """Convert uint8 images `[b, h, w, 3]` to float32 in [0, 1]."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise ValueError(f"got images of dtype {images.dtype}, expected uint8")
    return images.astype(jnp.float32) / 255.0


def normalize(
    images: ArrayLike, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Normalise each channel as `(images - mean) / std`.

    Args:
        images: float `[b, h, w, c]`.
        mean: c numbers, of images in [0, 1].
        std: c numbers above 0.

    Returns:
        float32 `[b, h, w, c]`, no longer in [0, 1].

    Raises:
        ValueError: if mean or std does not have one number per channel.
    """
    images = jnp.asarray(images, jnp.float32)
    if not len(mean) == len(std) == images.shape[-1]:
        raise ValueError(
            f"got {len(mean)} means and {len(std)} stds for images of shape "
            f"{images.shape}, expected one per channel"
        )
    shape = (1,) * (images.ndim - 1) + (len(mean),)
    offset, scale = jnp.reshape(jnp.array(mean), shape), jnp.array(std).reshape(shape)
    return (images - offset) / scale


def color_jitter(
    keys: jax.Array,
    images: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> jax.Array:
    """Randomly change brightness, contrast, saturation and hue, in this order.

    With a factor f uniform in [max(0, 1 - s), 1 + s] for a strength s, and each
    result clipped to [0, 1]:

        brightness  f x
        contrast    f x + (1 - f) mean(gray(x))     (mean over the image)
        saturation  f x + (1 - f) gray(x)
        hue         x rotated by a share of the colour circle, uniform in [-s, s]

    These are torchvision's factors; its order is random, this one is fixed.

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        brightness, contrast, saturation: strengths, at least 0.
        hue: strength, in [0, 0.5].
        probability: probability that an image is changed.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a strength is out of range.
    """
    check(keys, images, probability=probability)
    if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
        raise ValueError(
            f"got brightness {brightness}, contrast {contrast}, saturation "
            f"{saturation}, hue {hue}, expected at least 0 and a hue of at most 0.5"
        )
    draws = uniform(keys, 5)
    original = images
    if brightness:
        images = _blend(images, jnp.zeros_like(images), brightness, draws[:, 0])
    if contrast:
        gray = jnp.mean(pix.rgb_to_grayscale(images), axis=(1, 2, 3), keepdims=True)
        images = _blend(images, gray, contrast, draws[:, 1])
    if saturation:
        gray = pix.rgb_to_grayscale(images)
        images = _blend(images, gray, saturation, draws[:, 2])
    if hue:
        turns = hue * (2.0 * draws[:, 3] - 1.0)
        images = jnp.clip(jax.vmap(pix.adjust_hue)(images, turns), 0.0, 1.0)
    if probability < 1:
        images = select(draws[:, 4] < probability, images, original)
    return images


def random_grayscale(
    keys: jax.Array, images: jax.Array, *, probability: float
) -> jax.Array:
    """Convert images to their luma (Rec. 601), in three equal channels, at random."""
    check(keys, images, probability=probability)
    gray = pix.rgb_to_grayscale(images, keep_dims=True)
    return select(uniform(keys, 1)[:, 0] < probability, gray, images)


def gaussian_noise(keys: jax.Array, images: jax.Array, *, sigma: float) -> jax.Array:
    """Add normal noise of standard deviation sigma, then clip to [0, 1]."""
    check(keys, images)
    if sigma < 0:
        raise ValueError(f"got sigma {sigma}, expected at least 0")
    shape = images.shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, images.dtype))(keys)
    return jnp.clip(images + sigma * noise, 0.0, 1.0)


def gaussian_blur(
    keys: jax.Array,
    images: jax.Array,
    *,
    sigma: Range = (0.1, 2.0),
    probability: float = 1.0,
) -> jax.Array:
    """Blur images with a Gaussian kernel, edge pixels repeated outside.

    `sum_k g(k) image[clip(y + k)]` along rows, then along columns, with weights
    g(k) proportional to exp(-k^2 / (2 sigma^2)) that sum to 1.

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        sigma: lowest and highest standard deviation in pixels, above 0; each image's
            is uniform between them. Pillow calls it the radius.
        probability: probability that an image is blurred.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    check(keys, images, probability=probability)
    check_range("sigma", sigma, high=math.inf)
    if not probability:
        return images
    draws = uniform(keys, 2)
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * draws[:, 0]
    # Two matrices per image, as for a crop: on a CPU half the time of a sum of shifted
    # images, and a twentieth of dm-pix's convolution with one kernel per image.
    _, height, width, _ = images.shape
    rows_byh = _blur_matrix(sigmas, height, sigma[1])
    columns_bxw = _blur_matrix(sigmas, width, sigma[1])
    full = jax.lax.Precision.HIGHEST
    tall_bywc = jnp.einsum("byh,bhwc->bywc", rows_byh, images, precision=full)
    changed = jnp.einsum("bxw,bywc->byxc", columns_bxw, tall_bywc, precision=full)
    changed = jnp.clip(changed, 0.0, 1.0)
    if probability == 1:
        return changed
    return select(draws[:, 1] < probability, changed, images)


def solarize(
    keys: jax.Array,
    images: jax.Array,
    *,
    threshold: float = 0.5,
    probability: float = 0.2,
) -> jax.Array:
    """Invert the bright values of randomly chosen images.

    `1 - x where x >= threshold, else x`

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        threshold: in [0, 1].
        probability: probability that an image is changed.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    check(keys, images, probability=probability)
    if not 0 <= threshold <= 1:
        raise ValueError(f"got threshold {threshold}, expected a number in [0, 1]")
    if not probability:
        return images
    chosen = uniform(keys, 1)[:, 0] < probability
    return select(chosen, pix.solarize(images, threshold), images)


def _blend(
    images: jax.Array, other: jax.Array, strength: float, draws: jax.Array
) -> jax.Array:
    """Compute `f images + (1 - f) other`, clipped, f in [max(0, 1 - s), 1 + s]."""
    low = max(0.0, 1.0 - strength)
    factor = (low + (1.0 + strength - low) * draws)[:, None, None, None]
    return jnp.clip(factor * images + (1.0 - factor) * other, 0.0, 1.0)


def _blur_matrix(sigmas: jax.Array, size: int, largest: float) -> jax.Array:
    """Weights `[b, size, size]` that blur a line of `size` pixels."""
    # Extend the line by four sigmas, which hold all but 6e-5 of the weight.
    beyond = math.ceil(4 * largest)
    offset = jnp.arange(-beyond, size + beyond)[None, :] - jnp.arange(size)[:, None]
    weights = jnp.exp(-0.5 * (offset[None] / sigmas[:, None, None]) ** 2)
    weights /= jnp.sum(weights, axis=-1, keepdims=True)
    # Pixels beyond an edge equal the edge's pixel.
    before, after = weights[..., :beyond], weights[..., size + beyond :]
    inside = weights[..., beyond : size + beyond]
    inside = inside.at[..., 0].add(jnp.sum(before, axis=-1))
    return inside.at[..., -1].add(jnp.sum(after, axis=-1))
