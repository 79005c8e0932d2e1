"""Projective warps of images: their matrices, and bilinear sampling.

A matrix `[3, 3]` maps a position in the result to the position sampled in the image,
`(x, y, 1) -> (u, v, w)`, sampled at `(u / w, v / w)`. Positions are in pixels, x to
the right and y down; the centre of the first pixel is (0, 0).
"""

import jax
import jax.numpy as jnp


def affine_matrix(
    angle: jax.Array,
    scale: jax.Array,
    *,
    shift: jax.Array,
    height: int,
    width: int,
) -> jax.Array:
    """Matrices that rotate images about their centre, scale and then shift them.

    Args:
        angle: radians, counter-clockwise as displayed, `[b]`.
        scale: above 1 enlarges, `[b]`.
        shift: pixels to the right and down, `[b, 2]`.
        height, width: size of the images.

    Returns:
        float32 `[b, 3, 3]`.
    """
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    to_x, to_y = x + shift[:, 0], y + shift[:, 1]
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    # The inverse of the transformation; y points down, so that the signs of the sine
    # are those of the opposite rotation.
    rows = [
        [cos, -sin, x - cos * to_x + sin * to_y],
        [sin, cos, y - sin * to_x - cos * to_y],
        [zero, zero, one],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def perspective_matrix(corners: jax.Array, *, height: int, width: int) -> jax.Array:
    """Matrices that move the four corners of images to given positions.

    The map of the unit square to a quadrangle has a closed form; its inverse is its
    adjugate over its determinant.

    Args:
        corners: new positions of the centres of the top left, top right, bottom right
            and bottom left pixels, in pixels (x, y), `[b, 4, 2]`.
        height, width: size of the images.

    Returns:
        float32 `[b, 3, 3]`. The third coordinate of a mapped position is above 0 where
        the image is seen from the front.

    References:
        Heckbert, Fundamentals of texture mapping and image warping (1989), 2.2.3.
    """
    # Sides of one pixel have length 0: any other works.
    sides = jnp.array([max(width - 1, 1), max(height - 1, 1)], jnp.float32)
    corners = corners / sides[None, None, :]
    first, second, third, fourth = (corners[:, i] for i in range(4))
    right, down = second - third, fourth - third
    bend = first - second + third - fourth
    area = _cross(right, down)
    g, h = _cross(bend, down) / area, _cross(right, bend) / area
    top = second - first + g[:, None] * second
    left = fourth - first + h[:, None] * fourth
    # Rows of the map of the unit square; the third is (g, h, 1).
    x = jnp.stack([top[:, 0], left[:, 0], first[:, 0]], axis=-1)
    y = jnp.stack([top[:, 1], left[:, 1], first[:, 1]], axis=-1)
    w = jnp.stack([g, h, jnp.ones_like(g)], axis=-1)
    inverse = jnp.stack([jnp.cross(y, w), jnp.cross(w, x), jnp.cross(x, y)], axis=-1)
    inverse = inverse / jnp.sum(x * inverse[..., 0], axis=-1)[:, None, None]
    to_pixels = jnp.append(sides, 1.0)
    return inverse * (to_pixels[:, None] / to_pixels[None, :])[None]


def warp(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Sample images bilinearly at `matrices @ (x, y, 1)` for each output pixel.

    Images are zero outside: the border fades out over one pixel.

    Args:
        images: float `[b, h, w, c]`.
        matrices: `[b, 3, 3]`, see the module's docstring.

    Returns:
        `[b, h, w, c]`.
    """
    _, height, width, _ = images.shape
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    u, v, w = (m[:, 0] * x + m[:, 1] * y + m[:, 2] for m in _rows(matrices))
    # Zero behind the horizon (and for the NaN of a degenerate map).
    visible = w > 1e-6
    w = jnp.where(visible, w, 1.0)
    x_byx = jnp.where(visible, u / w, -1.0)
    y_byx = jnp.where(visible, v / w, -1.0)
    return _bilinear(images, x_byx, y_byx)


def _rows(matrices: jax.Array) -> list[jax.Array]:
    """Return the rows of `[b, 3, 3]`, each `[b, 3, 1, 1]`."""
    return [matrices[:, i, :, None, None] for i in range(3)]


def _cross(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the cross product `a x b` of vectors `[b, 2]`, `[b]`."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _bilinear(images: jax.Array, x_byx: jax.Array, y_byx: jax.Array) -> jax.Array:
    """Sample images `[b, h, w, c]` at positions in pixels, zero outside."""
    count, height, width, channels = images.shape
    pixels_bnc = images.reshape(count, height * width, channels)
    # Clip far positions to just outside, so that they fit into an integer.
    x_byx = jnp.clip(x_byx, -1.0, width)
    y_byx = jnp.clip(y_byx, -1.0, height)
    left, top = jnp.floor(x_byx), jnp.floor(y_byx)

    def add(total: jax.Array, corner: jax.Array) -> tuple[jax.Array, None]:
        row, column = top + corner[0], left + corner[1]
        weight = (1 - jnp.abs(y_byx - row)) * (1 - jnp.abs(x_byx - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = jnp.where(inside, row * width + column, 0).astype(jnp.int32)
        values = jnp.take_along_axis(
            pixels_bnc, index.reshape(count, -1, 1), axis=1, mode="promise_in_bounds"
        )
        weight = jnp.where(inside, weight, 0.0)[..., None]
        return total + weight * values.reshape(images.shape), None

    # A loop prevents fusion: on a CPU a fused gather recomputes its pixels for each of
    # its readers, and `cass_view` takes 160 ms instead of 14 (128 images of 48 x 48,
    # two cores).
    corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    total = jnp.zeros(images.shape, jnp.float32)
    return jax.lax.scan(add, total, corners)[0].astype(images.dtype)
