"""Entities cut out of their pictures, as pictures for an image encoder.

Shape suffixes: h height, w width, s the encoder's side in pixels, c channels, k
entities.
"""

import math

import numpy as np
from PIL import Image

from memejax.data import images
from memejax.models.maskrcnn import paste_masks, rescale_boxes

# Pictures longer than this are shrunk before entities are looked for in them: a strip
# of 1 x 1,000,000 pixels costs no more than any other.
LONGEST = 4096
CROPS = ("box", "mask")


def read_picture(path: str, *, max_pixels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture in its own size, or shrunk to `LONGEST` pixels.

    Args:
        path: the file; read as `images.decode` does.
        max_pixels: larger ones are refused.

    Returns:
        uint8 `[h, w, 3]`, and the original's height and width.

    Raises:
        ImageError: see `images.decode`.
    """
    across, down = images.open_size(path, max_pixels=max_pixels)
    side = min(max(across, down), LONGEST)
    padded_hwc, size = images.decode(
        path, size=side, resize="pad", max_pixels=max_pixels
    )
    height, width = int(size[0]), int(size[1])
    # The file's size is that before EXIF turned the picture.
    turned = (height < width) != (down < across) and height != width
    original = (across, down) if turned else (down, across)
    return padded_hwc[:height, :width], original


def cut_boxes(picture_hwc: np.ndarray, boxes: np.ndarray, *, size: int) -> np.ndarray:
    """What is in boxes, stretched to squares, bilinear with antialiasing.

    Args:
        picture_hwc: uint8 `[h, w, 3]`.
        boxes: float32 `[k, 4]` inside of the picture, of some area.
        size: s.

    Returns:
        uint8 `[k, s, s, 3]`.
    """
    cut = np.zeros((len(boxes), size, size, 3), np.uint8)
    for row, box in zip(cut, boxes.tolist(), strict=True):
        left, top = math.floor(box[0]), math.floor(box[1])
        right, bottom = math.ceil(box[2]), math.ceil(box[3])
        # Taken out first: Pillow would mix in what lies beside the box.
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
    """A whole picture a time for each entity, times its soft mask.

    Args:
        square_ssc: uint8 `[s, s, 3]`, the picture stretched to a square.
        boxes: float32 `[k, 4]` on the picture before that.
        masks: uint8 `[k, 28, 28]`, 255 is the entity, over its box.
        size: height and width of the picture before.

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


def to_original(
    boxes: np.ndarray, sizes: np.ndarray, *, originals: np.ndarray
) -> np.ndarray:
    """Boxes on read pictures as boxes on the originals, inside of them.

    Args:
        boxes: float32 `[b, k, 4]`.
        sizes: int `[b, 2]` of the read pictures, height and width.
        originals: int `[b, 2]` of the originals.

    Returns:
        float32 `[b, k, 4]`.
    """
    moved = rescale_boxes(boxes, sizes, new_sizes=originals)
    edges = np.tile(originals[:, None, ::-1], (1, 1, 2)).astype(np.float32)
    return np.minimum(moved, edges)
