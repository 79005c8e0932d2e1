"""Images read through a projective map: the map's matrices, and the reading.

A matrix `[3, 3]` takes a place in the result to the place in the image that is read
there, `(x, y, 1) -> (u, v, w)`, read at `(u / w, v / w)`. Places are in pixels, x to
the right and y down; the middle of the first pixel is (0, 0).
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
    """Matrices that turn images about their middle, enlarge and then move them.

    Args:
        angle: radians, counter-clockwise as one looks at the image, `[b]`.
        scale: above 1 enlarges, `[b]`.
        shift: pixels to the right and down, `[b, 2]`.
        height, width: of the images.

    Returns:
        float32 `[b, 3, 3]`.
    """
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    x, y = (width - 1) / 2, (height - 1) / 2
    to_x, to_y = x + shift[:, 0], y + shift[:, 1]
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    # The inverse of what is done to the image; rows point down, so that the signs of
    # the sine are those of a turn the other way.
    rows = [
        [cos, -sin, x - cos * to_x + sin * to_y],
        [sin, cos, y - sin * to_x - cos * to_y],
        [zero, zero, one],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def perspective_matrix(corners: jax.Array, *, height: int, width: int) -> jax.Array:
    """Matrices that bring the four corners of images to given places.

    The map of the unit square to a quadrangle has a closed form; its inverse is its
    adjugate over its determinant.

    Args:
        corners: where the middles of the top left, top right, bottom right and bottom
            left pixels go, in pixels (x, y), `[b, 4, 2]`.
        height, width: of the images.

    Returns:
        float32 `[b, 3, 3]`. The third coordinate it gives is above 0 where the image
        is seen from its front.

    References:
        Heckbert, Fundamentals of texture mapping and image warping (1989), 2.2.3.
    """
    # Sides of one pixel have no length: any will do.
    sides = jnp.array([max(width - 1, 1), max(height - 1, 1)], jnp.float32)
    corners = corners / sides[None, None, :]
    first, second, third, fourth = (corners[:, i] for i in range(4))
    right, down = second - third, fourth - third
    bend = first - second + third - fourth
    area = _cross(right, down)
    g, h = _cross(bend, down) / area, _cross(right, bend) / area
    along = second - first + g[:, None] * second
    across = fourth - first + h[:, None] * fourth
    # Rows of the map of the unit square; the third is (g, h, 1).
    x = jnp.stack([along[:, 0], across[:, 0], first[:, 0]], axis=-1)
    y = jnp.stack([along[:, 1], across[:, 1], first[:, 1]], axis=-1)
    w = jnp.stack([g, h, jnp.ones_like(g)], axis=-1)
    inverse = jnp.stack([jnp.cross(y, w), jnp.cross(w, x), jnp.cross(x, y)], axis=-1)
    inverse = inverse / jnp.sum(x * inverse[..., 0], axis=-1)[:, None, None]
    to_pixels = jnp.append(sides, 1.0)
    return inverse * (to_pixels[:, None] / to_pixels[None, :])[None]


def warp(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Images read at `matrices @ (x, y, 1)` for each pixel of the result (bilinear).

    Outside an image there are zeros: over one pixel its border fades into them.

    Args:
        images: float `[b, h, w, c]`.
        matrices: `[b, 3, 3]`, see the module.

    Returns:
        `[b, h, w, c]`.
    """
    _, height, width, _ = images.shape
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    u, v, w = (m[:, 0] * x + m[:, 1] * y + m[:, 2] for m in _rows(matrices))
    # Behind the horizon nothing is seen (nor with the NaN of a degenerate map).
    seen = w > 1e-6
    w = jnp.where(seen, w, 1.0)
    x_byx = jnp.where(seen, u / w, -1.0)
    y_byx = jnp.where(seen, v / w, -1.0)
    return _bilinear(images, x_byx, y_byx)


def _rows(matrices: jax.Array) -> list[jax.Array]:
    """The rows of `[b, 3, 3]`, each `[b, 3, 1, 1]`."""
    return [matrices[:, i, :, None, None] for i in range(3)]


def _cross(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product `a x b` of vectors `[b, 2]`, `[b]`."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _bilinear(images: jax.Array, x_byx: jax.Array, y_byx: jax.Array) -> jax.Array:
    """Images `[b, h, w, c]` at places in pixels, zero outside."""
    count, height, width, channels = images.shape
    pixels_bnc = images.reshape(count, height * width, channels)
    # Far outside is as good as just outside, and fits into an integer.
    x_byx = jnp.clip(x_byx, -1.0, width)
    y_byx = jnp.clip(y_byx, -1.0, height)
    left, top = jnp.floor(x_byx), jnp.floor(y_byx)

    def add(total: jax.Array, corner: jax.Array) -> tuple[jax.Array, None]:
        row, column = top + corner[0], left + corner[1]
        weight = (1 - jnp.abs(y_byx - row)) * (1 - jnp.abs(x_byx - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = jnp.where(inside, row * width + column, 0).astype(jnp.int32)
        read = jnp.take_along_axis(
            pixels_bnc, place.reshape(count, -1, 1), axis=1, mode="promise_in_bounds"
        )
        weight = jnp.where(inside, weight, 0.0)[..., None]
        return total + weight * read.reshape(images.shape), None

    # A loop, for what it keeps apart: fused with what comes before and after, on a
    # CPU, each gather computes its pixels again for each of its readers, and
    # `cass_view` takes 160 ms instead of 14 (128 images of 48 x 48, two cores).
    corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    total = jnp.zeros(images.shape, jnp.float32)
    return jax.lax.scan(add, total, corners)[0].astype(images.dtype)
