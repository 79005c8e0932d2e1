"""Shape helpers: checks of images, patches, vectors to broadcast.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features.
"""

import jax
import jax.numpy as jnp


def check_images(images_bhwc: jax.Array) -> None:
    """Raise ValueError unless images are `[b, h, w, c]` of a float dtype."""
    if images_bhwc.ndim != 4 or not jnp.issubdtype(images_bhwc.dtype, jnp.floating):
        raise ValueError(
            f"got images {images_bhwc.dtype}{list(images_bhwc.shape)}, expected "
            "normalised float images [b, h, w, c]"
        )


def extract_patches(images_bhwd: jax.Array, size: int) -> jax.Array:
    """Cut images into squares: `[b, h, w, c]` to `[b, h/size, w/size, size*size*c]`.

    Args:
        images_bhwd: `[b, h, w, c]`.
        size: side of a patch.

    Returns:
        Patches with their pixels in the order (row, column, channel).

    Raises:
        ValueError: if a side is not a multiple of `size`.
    """
    b, h, w, c = images_bhwd.shape
    if h % size or w % size:
        raise ValueError(
            f"got images of {h} x {w} pixels, expected sides that are multiples of "
            f"the patch size {size}"
        )
    x = images_bhwd.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, -1)


def add_leading_axes(vector: jax.Array, ndim: int) -> jax.Array:
    """Reshape a vector `[d]` to `[1, ..., 1, d]` of `ndim` axes, for broadcasting."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))
