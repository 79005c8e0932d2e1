"""Complete views: the operations of this package in the order of a recipe."""

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
    random_shift,
)

# The number folded into an operation's keys, and the operation.
_Operation = tuple[int, Callable[..., jax.Array]]
_CROP: _Operation = (numbers.CROP, random_resized_crop)
_SHIFT: _Operation = (numbers.SHIFT, random_shift)
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
    shift: int = 0,
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
    """Make a random view of each image.

    In this order: crop, shift, perspective, rotation, flips, colour jitter, grayscale,
    blur, solarize, noise. Disabled operations cost nothing, and each operation's random
    numbers do not depend on which others are enabled; the defaults return the images
    unchanged.

    Args:
        keys, images: `[b]` and `[b, h, w, 3]`; shift, flip, vertical_flip and the crop
            take any number of channels.
        crop_scale, crop_ratio: of `random_resized_crop`; scale (1, 1) disables it,
            whatever the ratio.
        shift: pixels of `random_shift`.
        perspective, perspective_probability: distortion and probability of
            `random_perspective`.
        rotation, rotation_probability: degrees and probability of `random_affine`.
        flip, vertical_flip: probabilities of `random_flip`.
        brightness, contrast, saturation, hue, jitter_probability: of `color_jitter`.
        grayscale: probability of `random_grayscale`.
        blur, blur_sigma: probability and range of `gaussian_blur`.
        solarize: probability of `solarize`, with threshold 0.5.
        noise: sigma of `gaussian_noise`.

    Returns:
        Of the images' shape.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.
    """
    crop = tuple(crop_scale) != (1.0, 1.0)
    colors = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    return _run(
        keys,
        images,
        (crop, _CROP, dict(scale=crop_scale, ratio=crop_ratio)),
        (shift, _SHIFT, dict(pixels=shift)),
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
    """Make a view of each image by the recipe of CASS's official code.

    Two rounds, each applied to an image with `probability`: colour jitter, then a
    perspective; colour jitter, then a rotation about the centre. Then the flips.

    Args:
        keys, images: `[b]` and `[b, h, w, 3]`.
        jitter: strength of brightness, contrast and saturation (`color_jitter`).
        distortion: of `random_perspective`.
        degrees: of `random_affine`.
        probability: probability that a round is applied to an image.
        perspective_probability: probability of the perspective within the first round;
            torchvision's default, as in the recipe.
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
        # Jitter before geometry, or the black areas it leaves would be jittered too
        # (contrast uses the image's mean).
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
    """Apply the enabled operations in order, each with its own keys."""
    check(keys, images, any_channels=True)
    for enabled, (number, operation), arguments in steps:
        if enabled:
            images = operation(numbers.fold(keys, number), images, **arguments)
    return images
