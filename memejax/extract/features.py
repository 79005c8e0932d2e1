"""Columns of a shard: everything stored of some memes."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from memejax.data import images
from memejax.data.hateful_memes import Meme
from memejax.extract import cutting
from memejax.extract.encoders import Encoders
from memejax.extract.entities import Entities, Finder, clean_entities
from memejax.graphs.hashes import difference_hash
from memejax.store.shards import Column, columns

# Luma weights of red, green and blue (ITU-R BT.601).
GREY = np.array([0.299, 0.587, 0.114])


class Options(NamedTuple):
    """Options of the columns.

    Attributes:
        crop: "box" or "mask", the crop of an entity.
        tokens: whether to store features of the captions' tokens.
        box_features: whether to store the finder's own features.
        masks: whether to store masks.
        dtype: of stored features, "float32" or "float16".
    """

    crop: str = "box"
    tokens: bool = False
    box_features: bool = False
    masks: bool = False
    dtype: str = "float32"


def expected_columns(
    encoders: Encoders, finder: Finder, *, options: Options
) -> dict[str, Column]:
    """Return the columns that `columns_of` makes, without computing any."""
    return columns(
        image=encoders.image_width,
        text=encoders.tokens[1],
        entities=encoders.image_width,
        k=finder.most,
        dtype=options.dtype,
        shared=encoders.shared_width,
        tokens=encoders.tokens if options.tokens else None,
        box_features=finder.width if options.box_features else None,
        masks=options.masks,
    )


def columns_of(
    memes: Sequence[Meme],
    encoders: Encoders,
    *,
    finder: Finder,
    options: Options,
    max_pixels: int = images.MAX_PIXELS,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Compute features and entities of some memes, all in memory at once.

    Args:
        memes: n of them, at least one.
        encoders: of pictures and captions.
        finder: of entities; k at most.
        options: of the columns.
        max_pixels: larger pictures are refused.
        threads: number of pictures read at once; one per core if None.

    Returns:
        Arrays `[n, ...]` as listed in `memejax.store.shards`; features are float32.
        A meme without entities has `where` False, and zeros.

    Raises:
        ImageError: if a picture cannot be read.
        ValueError: if the finder's boxes or scores are not finite, or it lacks
            features or masks that the options need.
    """
    paths = [meme.image for meme in memes]
    squares, _, errors = images.decode_all(
        paths,
        size=encoders.size,
        resize=encoders.resize,
        max_pixels=max_pixels,
        threads=threads,
    )
    if errors:
        raise next(iter(errors.values()))
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        read = functools.partial(_read, whole=finder.most > 0, max_pixels=max_pixels)
        pictures, originals = zip(*pool.map(read, paths), strict=True)
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        originals = np.array(originals, np.int32)
        found = clean_entities(finder.find(pictures), sizes)
        _check(found, options)

        def cut(row: int) -> np.ndarray:
            where = found.where[row]
            boxes = found.boxes[row][where]
            if options.crop == "box" or found.masks is None:
                return cutting.cut_boxes(pictures[row], boxes, size=encoders.size)
            masks = found.masks[row][where]
            size = (int(sizes[row, 0]), int(sizes[row, 1]))
            return cutting.cut_masks(squares[row], boxes, masks=masks, size=size)

        crops = np.concatenate(list(pool.map(cut, range(len(memes)))))
    entities = np.zeros((*found.where.shape, encoders.image_width), np.float32)
    if len(crops):
        entities[found.where] = encoders.image(crops).pooled
    image, text = encoders.image(squares), encoders.text([m.text for m in memes])
    values = {
        "image": image.pooled,
        "text": text.pooled,
        "entities": entities,
        "where": found.where,
        "boxes": cutting.to_original(found.boxes, sizes, originals=originals),
        "sizes": originals,
        "classes": found.classes,
        "scores": found.scores,
        "hash": difference_hash(squares @ GREY),
    }
    if image.shared is not None and text.shared is not None:
        values |= {"image_shared": image.shared, "text_shared": text.shared}
    if options.tokens:
        values |= {"tokens": text.tokens, "token_where": text.where}
    if options.box_features and found.features is not None:
        values["box_features"] = found.features
    if options.masks and found.masks is not None:
        values["masks"] = found.masks
    return values


def _read(
    path: str, *, whole: bool, max_pixels: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a picture to find entities in; without any, only its size."""
    if whole:
        return cutting.read_picture(path, max_pixels=max_pixels)
    width, height = images.open_size(path, max_pixels=max_pixels)
    return np.zeros((height, width, 0), np.uint8), (height, width)


def _check(found: Entities, options: Options) -> None:
    """Raise ValueError if the finder lacks masks or features that options need."""
    needed = {
        "masks": (options.masks or options.crop == "mask", found.masks),
        "box_features": (options.box_features, found.features),
    }
    for name, (required, values) in needed.items():
        if required and values is None:
            raise ValueError(
                f"got entities without {name}: only a detector has them, set "
                "extract.entities=detector"
            )
