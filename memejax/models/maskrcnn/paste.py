"""What was found on the canvas, back on the pictures: numpy, on the host."""

import numpy as np
from numpy.typing import ArrayLike


def rescale_boxes(
    boxes: ArrayLike, sizes: ArrayLike, *, new_sizes: ArrayLike
) -> np.ndarray:
    """Boxes on the canvas as boxes on the original pictures, or the other way.

    Args:
        boxes: `[..., k, 4]`.
        sizes: `[..., 2]` height and width of the pictures that the boxes lie on.
        new_sizes: `[..., 2]` of the pictures that they shall lie on.

    Returns:
        `[..., k, 4]` float32: x times new width / width, y likewise.
    """
    new, old = (np.asarray(v, np.float32) for v in (new_sizes, sizes))
    ratio = (new / old)[..., None, ::-1]
    return np.asarray(boxes, np.float32) * np.concatenate([ratio, ratio], axis=-1)


def paste_masks(
    masks: ArrayLike, boxes: ArrayLike, *, height: int, width: int
) -> np.ndarray:
    """Masks over their boxes as masks over the picture.

    A border of zeros one value wide is put around a mask and its box grown in
    proportion, so that the mask fades out at its edge; the corners are rounded
    towards zero, the last pixel counted in, and the mask stretched bilinearly over
    those pixels.

    Args:
        masks: `[k, m, m]` in [0, 1].
        boxes: `[k, 4]` in pixels of the picture (`rescale_boxes`).
        height: of the picture.
        width: of the picture.

    Returns:
        `[k, height, width]` float32 in [0, 1], 0 outside of the boxes. A pixel is
        usually taken as the object's from 0.5 on.

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
        rows = _stretch(side + 2, low[i, 1], last=high[i, 1], length=height)
        columns = _stretch(side + 2, low[i, 0], last=high[i, 0], length=width)
        pasted[i] = rows @ masks[i] @ columns.T
    return pasted


def _stretch(values: int, first: int, *, last: int, length: int) -> np.ndarray:
    """Bilinear weights `[length, values]`: values over the pixels from first to last.

    Rows of pixels outside are zero.
    """
    pixels = max(last - first + 1, 1)
    ratio = np.float32(values) / np.float32(pixels)
    at = np.arange(length) - first
    place = (at.astype(np.float32) + np.float32(0.5)) * ratio - np.float32(0.5)
    place = np.clip(place, 0, values - 1)
    distance = np.abs(place[:, None] - np.arange(values, dtype=np.float32)[None])
    weights = np.maximum(1 - distance, 0)
    return np.where(((at >= 0) & (at < pixels))[:, None], weights, 0)
