"""Crops of entities, as pictures for an image encoder.

Shape suffixes: h height, w width, s the encoder's side in pixels, c channels, k
entities.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from memejax.data import images
from memejax.models.maskrcnn import paste_masks, rescale_boxes

# Pictures longer than this are shrunk before detection: a strip of 1 x 1,000,000 pixels
# costs no more than any other.
LONGEST = 4096
CROPS = ("box", "mask")


def read_picture(path: str, *, max_pixels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a picture in its original size, or shrunk to `LONGEST` pixels.

    Args:
        path: the file, see `images.decode`.
        max_pixels: larger ones are refused.

    Returns:
        uint8 `[h, w, 3]`, and the original height and width.

    Raises:
        ImageError: see `images.decode`.
    """
    across, down = images.open_size(path, max_pixels=max_pixels)
    side = min(max(across, down), LONGEST)
    padded_hwc, size = images.decode(
        path, size=side, resize="pad", max_pixels=max_pixels
    )
    return padded_hwc[: size[0], : size[1]], (down, across)


def cut_boxes(picture_hwc: np.ndarray, boxes: np.ndarray, *, size: int) -> np.ndarray:
    """Crop boxes and stretch them to squares, bilinear with antialiasing.

    Args:
        picture_hwc: uint8 `[h, w, 3]`.
        boxes: float32 `[k, 4]` inside the picture, with positive area.
        size: s.

    Returns:
        uint8 `[k, s, s, 3]`.
    """
    cut = np.zeros((len(boxes), size, size, 3), np.uint8)
    for row, box in zip(cut, boxes.tolist(), strict=True):
        left, top = math.floor(box[0]), math.floor(box[1])
        right, bottom = math.ceil(box[2]), math.ceil(box[3])
        # Cropped first: Pillow would mix in pixels outside the box.
        part = Image.fromarray(picture_hwc[top:bottom, left:right])
        inside = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        row[...] = part.resize((size, size), Image.Resampling.BILINEAR, box=inside)
    return cut


def cut_masks(
    square_ssc: np.ndarray,
    boxes: np.ndarray,
    *,
    masks: np.ndarray,
    size: tuple[int, int],
) -> np.ndarray:
    """Multiply the whole picture by the soft mask of each entity.

    Args:
        square_ssc: uint8 `[s, s, 3]`, the picture stretched to a square.
        boxes: float32 `[k, 4]` on the original picture.
        masks: uint8 `[k, 28, 28]` over the box, 255 in the entity.
        size: height and width of the original picture.

    Returns:
        uint8 `[k, s, s, 3]`.

    References:
        Exploring emerging properties in multimodal neural networks, its entities.
    """
    side = len(square_ssc)
    soft = paste_masks(
        masks.astype(np.float32) / np.float32(255),
        rescale_boxes(boxes, size, new_sizes=(side, side)),
        height=side,
        width=side,
    )
    return np.rint(square_ssc[None] * soft[..., None]).astype(np.uint8)


def cover_boxes(picture_hwc: np.ndarray, boxes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the picture with one box after the other in its mean colour.

    Args:
        picture_hwc: uint8 `[h, w, 3]`.
        boxes: float `[k, 4]` inside the picture; pixels that a box touches are covered.

    Yields:
        uint8 `[h, w, 3]`, k times.
    """
    mean = np.round(picture_hwc.mean((0, 1))).astype(np.uint8)
    for left, top, right, bottom in boxes.tolist():
        covered = picture_hwc.copy()
        rows = slice(math.floor(top), math.ceil(bottom))
        covered[rows, math.floor(left) : math.ceil(right)] = mean
        yield covered


def to_original(
    boxes: np.ndarray, sizes: np.ndarray, *, originals: np.ndarray
) -> np.ndarray:
    """Rescale boxes on shrunk pictures to the originals, and clip them.

    Args:
        boxes: float32 `[b, k, 4]`.
        sizes: int `[b, 2]`, height and width of the pictures as read.
        originals: int `[b, 2]` of the originals.

    Returns:
        float32 `[b, k, 4]`.
    """
    moved = rescale_boxes(boxes, sizes, new_sizes=originals)
    edges = np.tile(originals[:, None, ::-1], (1, 1, 2)).astype(np.float32)
    return np.minimum(moved, edges)
