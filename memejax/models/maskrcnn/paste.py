"""Mapping of detections from the canvas to the pictures, in numpy on the host."""

import numpy as np
from numpy.typing import ArrayLike


def rescale_boxes(
    boxes: ArrayLike, sizes: ArrayLike, *, new_sizes: ArrayLike
) -> np.ndarray:
    """Rescale boxes from the canvas to the original pictures, or vice versa.

    Args:
        boxes: `[..., k, 4]`.
        sizes: `[..., 2]` height and width of the boxes' pictures.
        new_sizes: `[..., 2]` height and width of the target pictures.

    Returns:
        `[..., k, 4]` float32: x times new width / width, y likewise.
    """
    new, old = (np.asarray(v, np.float32) for v in (new_sizes, sizes))
    ratio = (new / old)[..., None, ::-1]
    return np.asarray(boxes, np.float32) * np.concatenate([ratio, ratio], axis=-1)


def paste_masks(
    masks: ArrayLike, boxes: ArrayLike, *, height: int, width: int
) -> np.ndarray:
    """Paste masks from their boxes into the picture.

    A mask gets a border of zeros one value wide and its box grows in proportion, so
    that the mask fades out at its edge; the corners are rounded towards zero, the last
    pixel is included, and the mask is resized bilinearly to those pixels.

    Args:
        masks: `[k, m, m]` in [0, 1].
        boxes: `[k, 4]` in pixels of the picture (`rescale_boxes`).
        height: height of the picture.
        width: width of the picture.

    Returns:
        `[k, height, width]` float32 in [0, 1], 0 outside the boxes. The usual threshold
        for a pixel of the object is 0.5.

    Raises:
        ValueError: for other shapes.
    """
    masks = np.asarray(masks, np.float32)
    boxes = np.asarray(boxes, np.float32)
    k, side = masks.shape[0], masks.shape[-1]
    if masks.shape != (k, side, side) or boxes.shape != (k, 4):
        raise ValueError(
            f"got masks {list(masks.shape)} and boxes {list(boxes.shape)}, expected "
            "[k, m, m] and [k, 4]"
        )
    masks = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5)
    half = half * np.float32((side + 2) / side)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    low, high = (centre - half).astype(np.int64), (centre + half).astype(np.int64)

    pasted = np.zeros((k, height, width), np.float32)
    for i in range(k):
        rows = _resize_weights(side + 2, low[i, 1], last=high[i, 1], length=height)
        columns = _resize_weights(side + 2, low[i, 0], last=high[i, 0], length=width)
        pasted[i] = rows @ masks[i] @ columns.T
    return pasted


def _resize_weights(values: int, first: int, *, last: int, length: int) -> np.ndarray:
    """Bilinear weights `[length, values]` of values in the pixels first to last.

    Rows of pixels outside are zero.
    """
    pixels = max(last - first + 1, 1)
    ratio = np.float32(values) / np.float32(pixels)
    at = np.arange(length) - first
    position = (at.astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
    position = np.clip(position, 0, values - 1)
    distance = np.abs(position[:, None] - np.arange(values, dtype=np.float32)[None])
    weights = np.maximum(1 - distance, 0)
    return np.where(((at >= 0) & (at < pixels))[:, None], weights, 0)
