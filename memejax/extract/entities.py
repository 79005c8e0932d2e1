"""Entities of pictures: boxes, classes and scores.

A `Finder` finds the entities in pictures of any sizes. Axes: b pictures, at most k
entities each. A box is (x1, y1, x2, y2) in pixels of its picture.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np


class Entities(NamedTuple):
    """Entities found in b pictures.

    Attributes:
        boxes: float32 `[b, k, 4]`.
        scores: float32 `[b, k]` in [0, 1].
        classes: int32 `[b, k]`.
        where: bool `[b, k]`, mask of real entities; values of others are ignored.
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
    """Method of finding entities.

    Attributes:
        find: pictures, uint8 `[h, w, 3]` each -> Entities.
        most: k.
        width: d of the finder's own features; 0 if it has none.
    """

    find: Callable[[Sequence[np.ndarray]], Entities]
    most: int
    width: int = 0


def no_entities() -> Finder:
    """Make a finder of no entities: k is 0."""

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
    """Make a finder of the tiles of a picture, row by row, of class 0 and score 1.

    Args:
        side: tiles per side, at least 1; k is its square.

    Raises:
        ValueError: for fewer.
    """
    if side < 1:
        raise ValueError(f"got a grid of {side} tiles per side, expected at least 1")
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


def known_entities(found: Entities) -> Finder:
    """Make a finder that finds the same entities in every picture.

    Args:
        found: in one picture: b is 1.
    """

    def find(pictures: Sequence[np.ndarray]) -> Entities:
        return jax.tree.map(lambda x: np.repeat(x, len(pictures), axis=0), found)

    width = 0 if found.features is None else found.features.shape[-1]
    return Finder(find, most=found.where.shape[1], width=width)


def clean_entities(found: Entities, sizes: np.ndarray) -> Entities:
    """Clip boxes to the picture and zero the values of empty slots.

    A side shorter than a pixel after clipping becomes one pixel around the same place,
    so that even a box without area can be cropped.

    Args:
        found: in b pictures.
        sizes: int `[b, 2]`, their heights and widths, at least 1.

    Returns:
        Entities.

    Raises:
        ValueError: if a box or score of an entity is not finite.
    """
    where = found.where[..., None]
    numbers = np.concatenate([found.boxes, found.scores[..., None]], axis=-1)
    if not np.isfinite(np.where(where, numbers, 0)).all():
        raise ValueError(
            "got an entity whose box or score is not finite: are the detector's "
            "weights complete?"
        )
    boxes = np.where(where, found.boxes, 0).astype(np.float32)
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
        real = found.where.reshape(*found.where.shape, *[1] * (values.ndim - 2))
        return np.where(real, values, np.zeros((), values.dtype))

    return Entities(
        boxes=np.where(where, boxes, np.float32(0)),
        scores=np.where(found.where, found.scores, np.float32(0)),
        classes=np.where(found.where, found.classes, np.int32(0)),
        where=found.where,
        features=only_real(found.features),
        masks=only_real(found.masks),
    )
