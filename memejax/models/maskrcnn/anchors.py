"""Anchors: the reference boxes of the proposal network."""

import jax
import jax.numpy as jnp
import numpy as np

# Side of each pyramid level's square anchor in pixels, and ratios height : width.
SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)


def level_anchors(
    grid: tuple[int, int], size: int, *, canvas: tuple[int, int]
) -> jax.Array:
    """Anchors of one level: three shapes around each point of a regular grid.

    An anchor of ratio r is size / sqrt(r) wide and size * sqrt(r) high, its half
    sides rounded to whole pixels. Its centre is (column, row) * (canvas // grid).

    Args:
        grid: height and width of the level's feature map.
        size: side of the square anchor, in pixels.
        canvas: height and width of the canvas, in pixels.

    Returns:
        `[height * width * 3, 4]` float32, in the order (row, column, ratio).

    References:
        Ren et al. 2015, arXiv:1506.01497, section 3.1; Lin et al. 2016,
        arXiv:1612.03144, section 4.1.
    """
    root = np.sqrt(np.array(RATIOS, np.float32))
    half_w, half_h = (np.round(x * np.float32(size) / 2) for x in (1 / root, root))
    shapes = np.stack([-half_w, -half_h, half_w, half_h], axis=-1)
    y, x = (
        jnp.arange(n, dtype=jnp.float32) * (side // n)
        for n, side in zip(grid, canvas, strict=True)
    )
    y, x = jnp.meshgrid(y, x, indexing="ij")
    centres = jnp.stack([x, y, x, y], axis=-1)
    return (centres[:, :, None] + jnp.asarray(shapes)[None, None]).reshape(-1, 4)
