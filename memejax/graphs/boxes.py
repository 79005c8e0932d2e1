"""Boxes of entities, and the position of one relative to another.

A box is (x1, y1, x2, y2) in pixels of its picture, float `[..., 4]`.
"""

import numpy as np

# Columns of `relative`.
GEOMETRY = ("dx", "dy", "log_width", "log_height", "iou")


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box in a with its counterpart in b.

    Args:
        a: float `[..., 4]`.
        b: float `[..., 4]`, broadcastable with a.

    Returns:
        float32 `[...]` in [0, 1]; 0 if both boxes are empty.

    >>> print(iou(np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])).round(3))
    0.333
    """
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = _area(a) + _area(b) - shared
    valid = union > 0
    return np.where(valid, shared / np.where(valid, union, 1.0), 0.0).astype(np.float32)


def relative(a: np.ndarray, b: np.ndarray, *, sizes: np.ndarray) -> np.ndarray:
    """Geometry of box a relative to box b.

    dx, dy: from b's centre to a's, in widths and heights of the picture; the logs of
    a's width over b's and of a's height over b's; their IoU.

    Args:
        a: float `[..., 4]`.
        b: float `[..., 4]`, broadcastable with a.
        sizes: int `[..., 2]`, height and width of the picture, at least 1.

    Returns:
        float32 `[..., 5]`, columns as in `GEOMETRY`. A side shorter than a pixel
        counts as one, so that all are finite.
    """
    size = np.asarray(sizes)[..., ::-1].astype(np.float64)
    centre = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / (2.0 * size)
    ratio = np.log(_sides(a) / _sides(b))
    parts = [
        centre,
        ratio,
        np.broadcast_to(iou(a, b)[..., None], (*ratio.shape[:-1], 1)),
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _area(box: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1)


def _sides(box: np.ndarray) -> np.ndarray:
    return np.maximum(box[..., 2:] - box[..., :2], 1.0)
