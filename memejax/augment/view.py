"""Whole views: the operations of this package in the order of a recipe."""

from collections.abc import Callable
from typing import Any

import jax

from memejax.augment import keys as numbers
from memejax.augment.checks import Range, check, check_probabilities
from memejax.augment.color import (
    color_jitter,
    gaussian_blur,
    gaussian_noise,
    random_grayscale,
    solarize,
)
from memejax.augment.geometry import (
    random_affine,
    random_flip,
    random_perspective,
    random_resized_crop,
)

# An operation and the number that its keys are folded with.
_Operation = tuple[int, Callable[..., jax.Array]]
_CROP: _Operation = (numbers.CROP, random_resized_crop)
_PERSPECTIVE: _Operation = (numbers.PERSPECTIVE, random_perspective)
_ROTATION: _Operation = (numbers.AFFINE, random_affine)
_FLIP: _Operation = (numbers.FLIP, random_flip)
_JITTER: _Operation = (numbers.JITTER, color_jitter)
_GRAYSCALE: _Operation = (numbers.GRAYSCALE, random_grayscale)
_BLUR: _Operation = (numbers.BLUR, gaussian_blur)
_SOLARIZE: _Operation = (numbers.SOLARIZE, solarize)
_NOISE: _Operation = (numbers.NOISE, gaussian_noise)


def random_view(
    keys: jax.Array,
    images: jax.Array,
    *,
    crop_scale: Range = (1.0, 1.0),
    crop_ratio: Range = (3 / 4, 4 / 3),
    perspective: float = 0.0,
    perspective_probability: float = 1.0,
    rotation: float = 0.0,
    rotation_probability: float = 1.0,
    flip: float = 0.0,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    jitter_probability: float = 1.0,
    grayscale: float = 0.0,
    blur: float = 0.0,
    blur_sigma: Range = (0.1, 2.0),
    solarize: float = 0.0,
    noise: float = 0.0,
) -> jax.Array:
    """A random view of each image.

    In this order: crop, perspective, rotation, flips, colour jitter, grayscale,
    blur, solarize, noise. What its numbers switch off costs nothing, and each
    operation's random numbers are the same whatever others are on; the defaults
    give the images back.

    Args:
        keys, images: `[b]` and `[b, h, w, 3]`.
        crop_scale, crop_ratio: `random_resized_crop`'s; scale (1, 1) is no crop,
            whatever the ratio.
        perspective, perspective_probability: `random_perspective`'s distortion.
        rotation, rotation_probability: `random_affine`'s degrees.
        flip, vertical_flip: probabilities of `random_flip`.
        brightness, contrast, saturation, hue, jitter_probability: `color_jitter`'s.
        grayscale: `random_grayscale`'s probability.
        blur, blur_sigma: `gaussian_blur`'s probability and range.
        solarize: `solarize`'s probability, of half of the range.
        noise: `gaussian_noise`'s sigma.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    crop = tuple(crop_scale) != (1.0, 1.0)
    colors = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    return _run(
        keys,
        images,
        (crop, _CROP, dict(scale=crop_scale, ratio=crop_ratio)),
        (
            perspective and perspective_probability,
            _PERSPECTIVE,
            dict(distortion=perspective, probability=perspective_probability),
        ),
        (
            rotation and rotation_probability,
            _ROTATION,
            dict(degrees=rotation, probability=rotation_probability),
        ),
        (
            flip or vertical_flip,
            _FLIP,
            dict(horizontal=flip, vertical=vertical_flip),
        ),
        (
            jitter_probability and (hue or any(colors.values())),
            _JITTER,
            dict(colors, hue=hue, probability=jitter_probability),
        ),
        (grayscale, _GRAYSCALE, dict(probability=grayscale)),
        (blur, _BLUR, dict(sigma=blur_sigma, probability=blur)),
        (solarize, _SOLARIZE, dict(probability=solarize)),
        (noise, _NOISE, dict(sigma=noise)),
    )


def cass_view(
    keys: jax.Array,
    images: jax.Array,
    *,
    jitter: float = 0.2,
    distortion: float = 0.2,
    degrees: float = 10.0,
    probability: float = 0.3,
    perspective_probability: float = 0.5,
    flip: float = 0.3,
    vertical_flip: float = 0.3,
) -> jax.Array:
    """A view of each image by the recipe of CASS's official code.

    Two rounds, each of an image with `probability` of its own: colour jitter, then a
    perspective; colour jitter, then a turn about the middle. Then the flips.

    Args:
        keys, images: `[b]` and `[b, h, w, 3]`.
        jitter: strength of brightness, contrast and saturation (`color_jitter`).
        distortion: of `random_perspective`.
        degrees: of `random_affine`.
        probability: share of the images that pass through a round.
        perspective_probability: share of those in the first round whose perspective
            changes; torchvision's default, which the recipe leaves as it is.
        flip, vertical_flip: probabilities of `random_flip`.

    Returns:
        `[b, h, w, 3]`.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.

    References:
        Singh, Sizikova and Cirrone, CASS: cross architectural self-supervision for
        medical image analysis, 2206.04170.
    """
    check(keys, images)
    check_probabilities(probability=probability)
    rounds: tuple[dict[str, Any], ...] = (
        dict(perspective=distortion, perspective_probability=perspective_probability),
        dict(rotation=degrees),
    )
    for number, geometry in enumerate(rounds):
        if not probability:
            break
        own = numbers.fold(numbers.fold(keys, numbers.ROUNDS), number)
        # Jitter before geometry, or what geometry leaves black would be jittered too
        # (contrast is of the image's mean).
        changed = random_view(
            own, images, brightness=jitter, contrast=jitter, saturation=jitter
        )
        changed = random_view(own, changed, **geometry)
        chosen = numbers.uniform(own, 1)[:, 0] < probability
        images = numbers.select(chosen, changed, images)
    return random_view(keys, images, flip=flip, vertical_flip=vertical_flip)


def _run(
    keys: jax.Array, images: jax.Array, *steps: tuple[Any, _Operation, dict[str, Any]]
) -> jax.Array:
    """The operations that are on, in turn, each with keys of its own."""
    check(keys, images)
    for on, (number, operation), arguments in steps:
        if on:
            images = operation(numbers.fold(keys, number), images, **arguments)
    return images
