"""Entities of pictures: what there is, where, and how sure that is.

A `Finder` looks at pictures of any sizes and says what is in them. Axes: b pictures, k
entities each, at most. A box is (x1, y1, x2, y2) in pixels of the picture it is in.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Entities(NamedTuple):
    """What was found in b pictures.

    Attributes:
        boxes: float32 `[b, k, 4]`.
        scores: float32 `[b, k]` in [0, 1].
        classes: int32 `[b, k]`.
        where: bool `[b, k]`, which there are; values of others are not looked at.
        features: float32 `[b, k, d]`, the finder's own, or None.
        masks: uint8 `[b, k, 28, 28]` on a grid over the box, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    where: np.ndarray
    features: np.ndarray | None = None
    masks: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Finder:
    """How entities are found.

    Attributes:
        find: pictures, uint8 `[h, w, 3]` each -> Entities.
        most: k.
        width: d of the finder's own features; 0 where there are none.
    """

    find: Callable[[Sequence[np.ndarray]], Entities]
    most: int
    width: int = 0


def no_entities() -> Finder:
    """Finds nothing: k is 0."""

    def find(pictures: Sequence[np.ndarray]) -> Entities:
        b = len(pictures)
        return Entities(
            boxes=np.zeros((b, 0, 4), np.float32),
            scores=np.zeros((b, 0), np.float32),
            classes=np.zeros((b, 0), np.int32),
            where=np.zeros((b, 0), bool),
        )

    return Finder(find, most=0)


def grid_entities(side: int) -> Finder:
    """Takes the tiles of a picture for entities, row by row, of class 0 and score 1.

    Args:
        side: tiles a side, at least 1; k is its square.

    Raises:
        ValueError: for fewer.
    """
    if side < 1:
        raise ValueError(f"got a grid of {side} tiles a side, expected at least 1")
    k = side * side
    at = np.arange(side, dtype=np.float32)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(at, at, indexing="ij"))
    tiles = np.stack([x, y, x + 1, y + 1], axis=-1) / np.float32(side)

    def find(pictures: Sequence[np.ndarray]) -> Entities:
        b = len(pictures)
        scale = np.array([[p.shape[1], p.shape[0]] * 2 for p in pictures], np.float32)
        return Entities(
            boxes=tiles[None] * scale.reshape(b, 1, 4),
            scores=np.ones((b, k), np.float32),
            classes=np.zeros((b, k), np.int32),
            where=np.ones((b, k), bool),
        )

    return Finder(find, most=k)


def tidied(found: Entities, sizes: np.ndarray) -> Entities:
    """The same, with boxes that can be cut out and zeros where there is nothing.

    A box is cut at the picture's edges. Where less than a pixel is left of a side, it
    becomes one pixel about the same place: also a box of no area has something in it.

    Args:
        found: in b pictures.
        sizes: int `[b, 2]`, their heights and widths, at least 1.

    Returns:
        Entities.

    Raises:
        ValueError: if a box or score of an entity is not finite.
    """
    there = found.where[..., None]
    numbers = np.concatenate([found.boxes, found.scores[..., None]], axis=-1)
    if not np.isfinite(np.where(there, numbers, 0)).all():
        raise ValueError(
            "got an entity whose box or score is not finite: are the detector's "
            "weights whole?"
        )
    boxes = np.where(there, found.boxes, 0).astype(np.float32)
    size = np.asarray(sizes, np.float32)[:, None, ::-1]
    low = np.clip(boxes[..., :2], 0, size)
    high = np.clip(boxes[..., 2:], low, size)
    small = high - low < 1
    start = np.clip((low + high) / 2 - np.float32(0.5), 0, size - 1)
    boxes = np.concatenate(
        [np.where(small, start, low), np.where(small, start + 1, high)], axis=-1
    )

    def only_real(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        where = found.where.reshape(*found.where.shape, *[1] * (values.ndim - 2))
        return np.where(where, values, np.zeros((), values.dtype))

    return Entities(
        boxes=np.where(there, boxes, np.float32(0)),
        scores=np.where(found.where, found.scores, np.float32(0)),
        classes=np.where(found.where, found.classes, np.int32(0)),
        where=found.where,
        features=only_real(found.features),
        masks=only_real(found.masks),
    )
