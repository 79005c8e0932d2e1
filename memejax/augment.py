"""Random views on the device: pure functions of (keys, images).

Images are float32 `[b, h, w, 3]` in [0, 1], and stay so. Keys are typed PRNG keys
`[b]`, one an example (`example_keys`): a view depends on nothing but its own key and
image, so it is the same in any batch and on any device. Strengths are Python numbers:
an operation that does nothing is left out when the function is traced.
Axes: b examples, h rows, w columns, c channels; y rows and x columns of a crop.
"""

import math

import dm_pix as pix
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Range = tuple[float, float]

# Folded into an example's key, one number an operation. Far from 0, 1, 2, ...: with
# jax's default generator `split(key)[i]` is `fold_in(key, i)`, so that small ones
# could be a caller's own.
_CROP, _FLIP, _JITTER, _GRAYSCALE, _NOISE, _TOKENS = range(1_000_003, 1_000_009)


def example_keys(
    key: jax.Array, index: ArrayLike, draw: ArrayLike, stream: int
) -> jax.Array:
    """One key an example, from the run's key and what the example is.

    `fold_in(fold_in(fold_in(key, stream), index), draw)`

    Args:
      key: a typed PRNG key (`jax.random.key(seed)`).
      index: the examples' places in the source, int `[b]`, at least 0.
      draw: which draw of the example in the run this is, int `[b]`, at least 0.
      stream: what the keys are for; two streams (the views of two arms) share
        nothing.

    Returns:
      Keys `[b]`.
    """
    key = jax.random.fold_in(key, stream)

    def one(index: jax.Array, draw: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, index), draw)

    return jax.vmap(one)(jnp.asarray(index), jnp.asarray(draw))


def to_float(images: ArrayLike) -> jax.Array:
    """Images uint8 `[b, h, w, 3]` as float32 in [0, 1] (divided by 255)."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise ValueError(f"got images of dtype {images.dtype}, expected uint8")
    return images.astype(jnp.float32) / 255.0


def normalize(
    images: ArrayLike, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """`(images - mean) / std` a channel, for float images `[b, h, w, c]`.

    Args:
      images: float `[b, h, w, c]`.
      mean: c numbers, of images in [0, 1].
      std: c numbers above 0.

    Returns:
      float32 `[b, h, w, c]`, no longer in [0, 1].

    Raises:
      ValueError: if mean or std does not have one number a channel.
    """
    images = jnp.asarray(images, jnp.float32)
    if not len(mean) == len(std) == images.shape[-1]:
        raise ValueError(
            f"got {len(mean)} means and {len(std)} stds for images of shape "
            f"{images.shape}, expected one a channel"
        )
    shape = (1,) * (images.ndim - 1) + (len(mean),)
    offset, scale = jnp.reshape(jnp.array(mean), shape), jnp.array(std).reshape(shape)
    return (images - offset) / scale


def random_resized_crop(
    keys: jax.Array,
    images: jax.Array,
    *,
    scale: Range,
    ratio: Range = (3 / 4, 4 / 3),
    size: tuple[int, int] | None = None,
    antialias: bool = False,
) -> jax.Array:
    """A random box of each image, resized to one size (bilinear).

    The box has an area of `scale` times the image's and a width of `ratio` times its
    height (uniform in the logarithm); a side that would be longer than the image is
    cut to it. Its place is uniform inside the image and not rounded to pixels. Two
    matrices an example resize it: `rows_byh images_bhwc columns_bxw`.

    Args:
      keys: `[b]`.
      images: `[b, h, w, 3]`.
      scale: lowest and highest share of the area, in (0, 1].
      ratio: lowest and highest width over height, above 0.
      size: height and width of the result; None is the input's.
      antialias: widen the kernel where a box is made smaller.

    Returns:
      `[b, *size, 3]`.

    Raises:
      ValueError: if keys and images do not match or a range is not one.
    """
    _check(keys, images)
    _check_range("scale", scale, high=1.0)
    _check_range("ratio", ratio, high=math.inf)
    _, height, width, _ = images.shape
    out_height, out_width = size or (height, width)
    uniform = _uniform(keys, 4)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * uniform[:, 1])
    box_height = jnp.minimum(jnp.sqrt(area / aspect), height)
    box_width = jnp.minimum(jnp.sqrt(area * aspect), width)
    top = (height - box_height) * uniform[:, 2]
    left = (width - box_width) * uniform[:, 3]
    rows_byh = _resize_matrix(top, box_height, height, out_height, antialias)
    columns_bxw = _resize_matrix(left, box_width, width, out_width, antialias)
    # The full precision keeps 8-bit steps exact where a GPU would round to 10 bits.
    full = jax.lax.Precision.HIGHEST
    tall_bywc = jnp.einsum("byh,bhwc->bywc", rows_byh, images, precision=full)
    crops_byxc = jnp.einsum("bxw,bywc->byxc", columns_bxw, tall_bywc, precision=full)
    return jnp.clip(crops_byxc, 0.0, 1.0)


def random_flip(
    keys: jax.Array,
    images: jax.Array,
    *,
    horizontal: float = 0.5,
    vertical: float = 0.0,
) -> jax.Array:
    """Each image mirrored left to right, and upside down, with these probabilities."""
    _check(keys, images, horizontal=horizontal, vertical=vertical)
    uniform = _uniform(keys, 2)
    if horizontal:
        images = _select(
            uniform[:, 0] < horizontal, pix.flip_left_right(images), images
        )
    if vertical:
        images = _select(uniform[:, 1] < vertical, pix.flip_up_down(images), images)
    return images


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
    """Random brightness, contrast, saturation and hue, in this order.

    With a factor f uniform in [max(0, 1 - s), 1 + s] for a strength s, and each
    result clipped to [0, 1]:

        brightness  f x
        contrast    f x + (1 - f) mean(gray(x))     (mean over the image)
        saturation  f x + (1 - f) gray(x)
        hue         x turned by a share of the colour circle, uniform in [-s, s]

    These are torchvision's factors; its order is random, this one fixed.

    Args:
      keys: `[b]`.
      images: `[b, h, w, 3]`.
      brightness, contrast, saturation: strengths, at least 0.
      hue: strength, in [0, 0.5].
      probability: share of the images that are changed at all.

    Returns:
      `[b, h, w, 3]`.

    Raises:
      ValueError: if keys and images do not match or a strength is out of range.
    """
    _check(keys, images, probability=probability)
    if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
        raise ValueError(
            f"got brightness {brightness}, contrast {contrast}, saturation "
            f"{saturation}, hue {hue}, expected at least 0 and a hue of at most 0.5"
        )
    uniform = _uniform(keys, 5)
    original = images
    if brightness:
        images = _blend(images, jnp.zeros_like(images), brightness, uniform[:, 0])
    if contrast:
        gray = jnp.mean(pix.rgb_to_grayscale(images), axis=(1, 2, 3), keepdims=True)
        images = _blend(images, gray, contrast, uniform[:, 1])
    if saturation:
        gray = pix.rgb_to_grayscale(images)
        images = _blend(images, gray, saturation, uniform[:, 2])
    if hue:
        turns = hue * (2.0 * uniform[:, 3] - 1.0)
        images = jnp.clip(jax.vmap(pix.adjust_hue)(images, turns), 0.0, 1.0)
    if probability < 1:
        images = _select(uniform[:, 4] < probability, images, original)
    return images


def random_grayscale(
    keys: jax.Array, images: jax.Array, *, probability: float
) -> jax.Array:
    """Each image in three equal channels of its luma (Rec. 601), with a probability."""
    _check(keys, images, probability=probability)
    gray = pix.rgb_to_grayscale(images, keep_dims=True)
    return _select(_uniform(keys, 1)[:, 0] < probability, gray, images)


def gaussian_noise(keys: jax.Array, images: jax.Array, *, sigma: float) -> jax.Array:
    """Images plus normal noise of standard deviation sigma, clipped to [0, 1]."""
    _check(keys, images)
    if sigma < 0:
        raise ValueError(f"got sigma {sigma}, expected at least 0")
    shape = images.shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, images.dtype))(keys)
    return jnp.clip(images + sigma * noise, 0.0, 1.0)


def random_view(
    keys: jax.Array,
    images: jax.Array,
    *,
    crop_scale: Range = (1.0, 1.0),
    crop_ratio: Range = (3 / 4, 4 / 3),
    flip: float = 0.0,
    vertical_flip: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    jitter_probability: float = 1.0,
    grayscale: float = 0.0,
    noise: float = 0.0,
) -> jax.Array:
    """Crop, flips, colour jitter, grayscale and noise, in this order.

    What its numbers switch off costs nothing; the defaults give the images back.

    Args:
      keys, images: `[b]` and `[b, h, w, 3]`.
      crop_scale, crop_ratio: `random_resized_crop`'s; scale (1, 1) is no crop,
        whatever the ratio.
      flip, vertical_flip: probabilities of `random_flip`.
      brightness, contrast, saturation, hue, jitter_probability: `color_jitter`'s.
      grayscale, noise: `random_grayscale`'s probability, `gaussian_noise`'s sigma.

    Returns:
      `[b, h, w, 3]`.

    Raises:
      ValueError: if keys and images do not match or a number is out of range.
    """
    _check(keys, images)
    if tuple(crop_scale) != (1.0, 1.0):
        images = random_resized_crop(
            _fold(keys, _CROP), images, scale=crop_scale, ratio=crop_ratio
        )
    if flip or vertical_flip:
        images = random_flip(
            _fold(keys, _FLIP), images, horizontal=flip, vertical=vertical_flip
        )
    if jitter_probability and (brightness or contrast or saturation or hue):
        images = color_jitter(
            _fold(keys, _JITTER),
            images,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            probability=jitter_probability,
        )
    if grayscale:
        images = random_grayscale(
            _fold(keys, _GRAYSCALE), images, probability=grayscale
        )
    if noise:
        images = gaussian_noise(_fold(keys, _NOISE), images, sigma=noise)
    return images


def token_dropout(
    keys: jax.Array, input_ids: jax.Array, attention_mask: jax.Array, *, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Captions with some tokens hidden: their attention is cleared.

    Each attended token but position 0 ([CLS]) is hidden with probability `rate`. A
    caption never loses all of them: if all were drawn, one, uniformly chosen, stays.
    ([SEP] is a token like the others here.) Ids and positions do not move.

    Args:
      keys: `[b]`; may be those of `random_view`, which draws other numbers.
      input_ids: int `[b, t]`.
      attention_mask: int `[b, t]`, 1 where attended.
      rate: in [0, 1].

    Returns:
      `(input_ids, attention_mask)`, the ids as they came.

    Raises:
      ValueError: if the shapes do not match or rate is out of range.
    """
    _check_probabilities(rate=rate)
    shape = input_ids.shape
    if len(shape) != 2 or attention_mask.shape != shape or keys.shape != shape[:1]:
        raise ValueError(
            f"got keys {keys.shape}, input_ids {shape} and attention_mask "
            f"{attention_mask.shape}, expected [b], [b, t] and [b, t]"
        )
    if not rate:
        return input_ids, attention_mask
    position = jnp.arange(shape[1])[None, :]
    droppable = (attention_mask > 0) & (position > 0)
    uniform = jnp.where(droppable, _uniform(_fold(keys, _TOKENS), shape[1]), -1.0)
    # The largest number is the last to be hidden, and never is.
    last = position == jnp.argmax(uniform, axis=1)[:, None]
    hidden = droppable & (uniform < rate) & ~last
    return input_ids, jnp.where(hidden, 0, attention_mask)


def _resize_matrix(
    start: jax.Array, length: jax.Array, size: int, out: int, antialias: bool
) -> jax.Array:
    """Weights `[b, out, size]` that read `out` points from [start, start + length]."""
    step = (length / out)[:, None]
    # Pixel k covers [k, k + 1] and has its value at k + 1/2.
    at = start[:, None] + (jnp.arange(out)[None, :] + 0.5) * step - 0.5
    at = jnp.clip(at, 0.0, size - 1.0)[:, :, None]
    distance = jnp.abs(at - jnp.arange(size, dtype=jnp.float32)[None, None, :])
    reach = jnp.maximum(step, 1.0)[:, :, None] if antialias else 1.0
    weights = jnp.maximum(1.0 - distance / reach, 0.0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _blend(
    images: jax.Array, other: jax.Array, strength: float, uniform: jax.Array
) -> jax.Array:
    """`f images + (1 - f) other`, clipped; f from [max(0, 1 - s), 1 + s]."""
    low = max(0.0, 1.0 - strength)
    factor = (low + (1.0 + strength - low) * uniform)[:, None, None, None]
    return jnp.clip(factor * images + (1.0 - factor) * other, 0.0, 1.0)


def _fold(keys: jax.Array, number: int) -> jax.Array:
    """Other keys `[b]` from keys `[b]`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _uniform(keys: jax.Array, count: int) -> jax.Array:
    """`count` numbers in [0, 1) an example, `[b, count]`."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def _select(chosen: jax.Array, changed: jax.Array, images: jax.Array) -> jax.Array:
    """`changed` for the examples chosen (bool `[b]`), else `images`."""
    return jnp.where(chosen[:, None, None, None], changed, images)


def _check(keys: jax.Array, images: jax.Array, **probabilities: float) -> None:
    """Raises where keys or images are not what the module's docstring says."""
    _check_probabilities(**probabilities)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"got keys of dtype {keys.dtype}, expected typed keys (jax.random.key)"
        )
    if (
        images.ndim != 4
        or images.shape[-1] != 3
        or keys.shape != images.shape[:1]
        or not jnp.issubdtype(images.dtype, jnp.floating)
    ):
        raise ValueError(
            f"got {keys.shape} keys and {images.dtype} images {images.shape}, expected "
            "[b] keys and float images [b, h, w, 3]"
        )


def _check_probabilities(**probabilities: float) -> None:
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise ValueError(f"got {name} {value}, expected a probability in [0, 1]")


def _check_range(name: str, value: Range, *, high: float) -> None:
    if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
        raise ValueError(
            f"got {name} {value}, expected (low, high) with 0 < low <= high <= {high}"
        )
