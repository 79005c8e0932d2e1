"""Multi-crop: a few large and many small views of each image, as in DINO."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.augment.checks import Range, check, check_range
from memejax.augment.geometry import random_resized_crop
from memejax.augment.keys import CROP, CROPS, fold
from memejax.augment.view import random_view


def multi_crop(
    keys: jax.Array,
    images: jax.Array,
    *,
    global_size: int,
    global_scale: Range = (0.4, 1.0),
    local_crops: int = 8,
    local_size: int,
    local_scale: Range = (0.05, 0.4),
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1),
    jitter_probability: float = 0.8,
    grayscale: float = 0.2,
    flip: float = 0.5,
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5),
    blur_sigma: Range = (0.1, 2.0),
    solarize: tuple[float, float, float] = (0.0, 0.2, 0.0),
) -> tuple[jax.Array, jax.Array]:
    """Make two global crops and several local crops of each image.

    Each is cropped, flipped, jittered, made gray, blurred and solarized, in this order,
    with its own random numbers. This is DINO's recipe, but with bilinear (antialiased)
    instead of bicubic resizing.

    Args:
        keys: `[b]`.
        images: `[b, h, w, 3]`.
        global_size, local_size: sides of the square crops, from 1 to `min(h, w)`.
        global_scale, local_scale: share of the area, see `random_resized_crop`.
        local_crops: number of local crops per image, at least 0.
        jitter: strengths of brightness, contrast, saturation, hue.
        jitter_probability, grayscale, flip: probabilities, the same for all crops.
        blur, solarize: probabilities for the first global crop, the second, and the
            local ones.
        blur_sigma: as in `gaussian_blur`, in pixels of the crop. The default, DINO's,
            is meant for crops of 224 and 96 pixels.

    Returns:
        `(globals [2, b, G, G, 3], locals [n, b, L, L, 3])` for n local crops; with
        n = 0, locals is an array of size 0.

    Raises:
        ValueError: if keys and images do not match or a number is out of range.

    References:
        Caron et al., Emerging properties in self-supervised vision transformers,
        2104.14294; Caron et al., SwAV, 2006.09882, for multi-crop.
    """
    check(keys, images)
    _check_crops(images, global_size, local_size, local_crops)
    check_range("global_scale", global_scale, high=1.0)
    check_range("local_scale", local_scale, high=1.0)
    _check_lengths(jitter=(jitter, 4), blur=(blur, 3), solarize=(solarize, 3))
    own = fold(keys, CROPS)
    brightness, contrast, saturation, hue = jitter

    def view(number: ArrayLike, size: int, scale: Range, kind: int) -> jax.Array:
        keys = fold(own, number)
        crops = random_resized_crop(
            fold(keys, CROP), images, scale=scale, size=(size, size), antialias=True
        )
        return random_view(
            keys,
            crops,
            flip=flip,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            jitter_probability=jitter_probability,
            grayscale=grayscale,
            blur=blur[kind],
            blur_sigma=blur_sigma,
            solarize=solarize[kind],
        )

    globals_vbhwc = jnp.stack([view(i, global_size, global_scale, i) for i in (0, 1)])
    if not local_crops:
        shape = (0, images.shape[0], local_size, local_size, 3)
        return globals_vbhwc, jnp.zeros(shape, images.dtype)
    # Sequentially: they compile as one, and on a CPU run faster than all at once.
    locals_vbhwc = jax.lax.map(
        lambda i: view(i, local_size, local_scale, 2), jnp.arange(2, 2 + local_crops)
    )
    return globals_vbhwc, locals_vbhwc


def _check_crops(
    images: jax.Array, global_size: int, local_size: int, local_crops: int
) -> None:
    """Raise ValueError unless the crops fit into the images."""
    side = min(images.shape[1:3])
    for name, size in (("global_size", global_size), ("local_size", local_size)):
        if not 1 <= size <= side:
            raise ValueError(
                f"got {name} {size} for images {images.shape}, expected 1 to {side}"
            )
    if local_crops < 0:
        raise ValueError(f"got local_crops {local_crops}, expected at least 0")


def _check_lengths(**tuples: tuple[tuple[float, ...], int]) -> None:
    """Raise ValueError unless each tuple has its expected length."""
    for name, (value, count) in tuples.items():
        if len(value) != count:
            raise ValueError(f"got {name} {value}, expected {count} numbers")
