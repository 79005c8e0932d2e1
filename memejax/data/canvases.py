"""Pictures of different sizes, in the top left corners of canvases of one size."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from memejax.data import images


def canvas_sizes(sizes: np.ndarray, *, longest: int) -> np.ndarray:
    """Heights and widths of pictures after shrinking the longer ones to `longest`.

    Args:
        sizes: int `[n, 2]`, heights and widths of the pictures.
        longest: pixels; a longer picture is shrunk, its aspect ratio kept.

    Returns:
        int32 `[n, 2]`, as returned by `images.decode` with resize="pad".

    Raises:
        ValueError: if `longest` is less than 1.
    """
    if longest < 1:
        raise ValueError(f"got a longest side of {longest} pixels, expected 1 or more")
    sizes = np.asarray(sizes, np.int64)
    long = sizes.max(axis=1, initial=1, keepdims=True)
    side = np.minimum(long, longest)
    return np.maximum(1, np.rint(sizes * side / long)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Canvases:
    """A column of pictures, decoded on access: uint8 `[b, c, c, 3]`.

    Attributes:
        paths: one file per example.
        sizes: int32 `[n, 2]`, heights and widths on the canvas (`canvas_sizes`).
        side: c, at least each of `sizes`; zeros pad a picture on the right and below.
        max_pixels: larger files are refused.
    """

    paths: Sequence[str]
    sizes: np.ndarray
    side: int
    max_pixels: int = images.MAX_PIXELS

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        """Decode the pictures at `index`, int `[b]`.

        Raises:
            ImageError: see `images.decode`.
            ValueError: for a picture whose shape has changed.
        """
        out = np.zeros((len(index), self.side, self.side, 3), np.uint8)
        for row, place in zip(out, index, strict=True):
            size, path = self.sizes[place], self.paths[int(place)]
            long = int(size.max())
            padded_hwc, found = images.decode(
                path, size=long, resize="pad", max_pixels=self.max_pixels
            )
            if not np.array_equal(found, size):
                raise ValueError(
                    f"{path} has {found[0]} x {found[1]} pixels, expected "
                    f"{size[0]} x {size[1]}: the picture has changed"
                )
            row[:long, :long] = padded_hwc
        return out

    def __len__(self) -> int:
        return len(self.paths)
