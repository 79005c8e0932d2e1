"""A map of positive and negative values over a grey picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Okabe and Ito's vermilion and blue: any eye tells them apart.
POSITIVE, NEGATIVE = (213, 94, 0), (0, 114, 178)
# Rec. 601: perceived brightness of red, green and blue.
_LUMA = np.array([0.299, 0.587, 0.114])
# Opacity of a map's largest absolute value.
_OPACITY = 0.8


def overlay(
    picture_hwc: ArrayLike, values: ArrayLike, *, side: int = 320
) -> np.ndarray:
    """Colour a grey picture by a map: vermilion where positive, blue where negative.

    The opacity grows with the absolute value, up to that of the map's largest.

    Args:
        picture_hwc: uint8 `[h, w, 3]`.
        values: `[gh, gw]`, finite, of any size up to the picture's.
        side: small pictures are enlarged by a whole factor to at most so many pixels.

    Returns:
        uint8 `[k h, k w, 3]`.

    Raises:
        ValueError: if shapes, dtypes or numbers do not fit.
    """
    picture, weights = np.asarray(picture_hwc), np.asarray(values, float)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"got a picture {picture.dtype}{list(picture.shape)}, expected uint8 "
            "[h, w, 3]"
        )
    if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
        raise ValueError(
            f"got a map {list(weights.shape)}, expected finite numbers [gh, gw]"
        )
    picture = enlarge(picture, side=side)
    height, width = picture.shape[:2]
    rows = np.arange(height) * weights.shape[0] // height
    columns = np.arange(width) * weights.shape[1] // width
    largest = np.abs(weights).max()
    weights = weights[rows][:, columns] / (largest if largest > 0 else 1.0)
    alpha = _OPACITY * np.abs(weights)[..., None]
    colour = np.where(weights[..., None] > 0, POSITIVE, NEGATIVE)
    grey = (picture @ _LUMA)[..., None]
    return np.round((1 - alpha) * grey + alpha * colour).astype(np.uint8)


def enlarge(picture_hwc: np.ndarray, *, side: int) -> np.ndarray:
    """Repeat each pixel as often as fits into `side` pixels, at least once."""
    factor = max(1, side // max(picture_hwc.shape[:2]))
    return picture_hwc.repeat(factor, 0).repeat(factor, 1)
