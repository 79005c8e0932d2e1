"""Filled polygons and rotated ellipses on a grid of pixels, without anti-aliasing.

The first axis of a picture is its rows, from the top, the second its columns, from the
left. Points are (x, y): x a column, to the right; y a row, downwards.

Shape suffixes: b pictures, k corners, 2 for x and y, h and w rows and columns.
"""

from __future__ import annotations

import numpy as np


def polygons(corners_bk2: np.ndarray, *, side: int) -> np.ndarray:
    """Fill one convex polygon per picture.

    Pixel (x, y) is inside if the point (x, y) is in the polygon or on its edge:

        (a' - a) x (p - a) >= 0 for each corner a and the next corner a'

    (or <= 0 for each, if the corners go the other way round), in integers, so that
    nothing is lost to rounding. A polygon of area A with B grid points on its edge thus
    fills A + B / 2 + 1 pixels (Pick's theorem), less those outside the picture.

    Args:
        corners_bk2: integers [b, k, 2], k >= 3: columns and rows, in order round a
            convex polygon, in either direction; equal neighbours count once. They may
            lie outside the picture, by some thousands of pixels at most.
        side: height and width of a picture in pixels, >= 1.

    Returns:
        bool [b, side, side].

    Raises:
        ValueError: for another dtype or shape, or a polygon that is not convex or has
            no area.
    """
    if (
        corners_bk2.dtype.kind not in "iu"
        or corners_bk2.ndim != 3
        or corners_bk2.shape[1] < 3
        or corners_bk2.shape[2] != 2
    ):
        raise ValueError(
            "corners must be integers [b, 3 or more, 2], got "
            f"{corners_bk2.dtype} {list(corners_bk2.shape)}"
        )
    x_bk, y_bk = np.moveaxis(corners_bk2.astype(np.int32), -1, 0)
    to_x, to_y = (np.roll(x, -1, axis=1) - x for x in (x_bk, y_bk))
    turns = to_x * np.roll(to_y, -1, axis=1) - to_y * np.roll(to_x, -1, axis=1)
    way = np.sign(turns.sum(axis=1))
    wrong = np.flatnonzero((way == 0) | (turns * way[:, None] < 0).any(axis=1))
    if wrong.size:
        raise ValueError(
            f"corners {corners_bk2[wrong[0]].tolist()} of picture {wrong[0]}: expected "
            "a convex polygon with some area"
        )
    to_x, to_y = to_x * way[:, None], to_y * way[:, None]
    pixel = np.arange(side, dtype=np.int32)
    inside_bhw = np.ones((len(x_bk), side, side), bool)
    for k in range(x_bk.shape[1]):
        # The product of the edge with (x, y), split into terms that are computed once
        # per column and once per row.
        across = to_y[:, k, None] * (pixel - x_bk[:, k, None])
        down = to_x[:, k, None] * (pixel - y_bk[:, k, None])
        inside_bhw &= down[:, :, None] >= across[:, None, :]
    return inside_bhw


def ellipses(
    lengths_b2: np.ndarray, *, degrees: np.ndarray, corners_b2: np.ndarray, side: int
) -> np.ndarray:
    """Fill one ellipse per picture: drawn upright, then rotated, as a bitmap.

    The ellipse fills the pixels of an upright bitmap, w wide and h high, whose centres
    lie in it:

        ((i + 1/2 - w/2) / (w/2))^2 + ((j + 1/2 - h/2) / (h/2))^2 <= 1.

    The bitmap is rotated about its middle: each pixel of the result takes the pixel
    under its centre, rotated back. The result is floor(w |cos| + h |sin|) wide and
    floor(w |sin| + h |cos|) high.

    Args:
        lengths_b2: integers [b, 2], >= 1: w and h, in pixels.
        degrees: integers [b]: angle from the x axis towards the y axis, clockwise on
            the screen.
        corners_b2: integers [b, 2]: column and row of the top left pixel of the
            rotated bitmap.
        side: height and width of a picture in pixels, >= 1.

    Returns:
        bool [b, side, side].

    Raises:
        ValueError: for another dtype or shape, or a length below 1.
    """
    given = {"lengths": lengths_b2, "degrees": degrees, "corners": corners_b2}
    for name, array in given.items():
        shape = [len(lengths_b2)] if name == "degrees" else [len(lengths_b2), 2]
        if array.dtype.kind not in "iu" or list(array.shape) != shape:
            raise ValueError(
                f"{name} must be integers {shape}, got {array.dtype} "
                f"{list(array.shape)}"
            )
    if (lengths_b2 < 1).any():
        raise ValueError(f"lengths must be at least 1 pixel, got {lengths_b2.min()}")
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    w, h = lengths_b2[:, 0], lengths_b2[:, 1]
    # From the middle of the rotated bitmap to the centre of each column and row. The
    # 1e-9 keeps the last bit of a cosine from costing a quarter turn a whole pixel.
    rotated = np.stack([w * abs(cos) + h * abs(sin), w * abs(sin) + h * abs(cos)], 1)
    middle = corners_b2 + np.floor(rotated + 1e-9) / 2
    x, y = (np.arange(side) + 0.5 - middle[..., None]).transpose(1, 0, 2)
    inside = np.zeros((len(x), side, side))
    for x_part, y_part, length in ((cos, sin, w), (-sin, cos, h)):
        u = (x_part[:, None] * x)[:, None, :] + (y_part[:, None] * y)[:, :, None]
        half = (length / 2)[:, None, None]
        # Back to the pixel of the upright bitmap under this point.
        np.floor(u + (half + 1e-9), out=u)
        u += 0.5 - half
        u /= half
        u *= u
        inside += u
    return inside <= 1 + 1e-9
