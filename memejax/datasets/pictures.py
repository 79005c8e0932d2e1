"""Labelled pictures as columns: built-in ones, MNIST, CIFAR-10, and those of TFDS."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from memejax.data import arrays, pipeline, prepared
from memejax.data.pictures import pictures
from memejax.datasets.data import Data, Split, built_in


def load_pictures(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Draw the built-in pictures; see `datasets.load`."""
    c = config.data
    if c.root is not None:
        raise ValueError(
            f"data.name='pictures' is built in: expected no data.root, got {c.root!r}"
        )
    made = built_in(c)
    drawn = pictures(
        train=made.train,
        test=made.test,
        size=c.image_size,
        concepts=made.concepts,
        seed=config.seed,
    )
    return _labelled(drawn, config, classes=made.concepts)


def load_mnist(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Read MNIST; see `datasets.load`."""
    return _labelled(prepared.read("mnist", _root(config)), config, classes=10)


def load_cifar10(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Read CIFAR-10; see `datasets.load`."""
    return _labelled(prepared.read("cifar10", _root(config)), config, classes=10)


def load_tfds(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Open pictures that TFDS prepared; see `datasets.load`."""
    c, name = config.data, config.data.name.removeprefix(prepared.PREFIX)
    opened = prepared.open_pictures(name, c.root or prepared.default_folder())
    splits = {}
    for part, (split, rows) in prepared.train_and_test(opened).items():
        labels = opened.labels(split)[rows]
        column = opened.column(split, size=c.image_size, resize=c.resize)
        images = pipeline.Rows(column, rows)
        if config.pipeline.cache == "memory":
            images = pipeline.loaded(images, threads=config.pipeline.threads)
        source = {"image": images, "label": labels}
        splits[part] = Split(part, source, [str(row) for row in rows], labels)
    return Data(splits, "test", 0, _facts(config, splits), len(opened.classes))


def _root(config: ConfigDict) -> str:
    c = config.data
    if c.root is None:
        raise ValueError(
            f"data.name={c.name!r} needs data.root, the folder of its files; got None"
        )
    return c.root


def _labelled(
    read: Mapping[str, arrays.Labelled], config: ConfigDict, *, classes: int
) -> Data:
    """Labelled pictures as columns."""
    splits = {}
    for name, split in read.items():
        images_nhwc = _resized(split.images, config.data.image_size)
        source = {
            # Grey pictures become red, green and blue alike.
            "image": np.repeat(images_nhwc, 3 // images_nhwc.shape[-1], axis=-1),
            "label": split.labels,
        }
        ids = [str(i) for i in range(len(split))]
        splits[name] = Split(name, source, ids, split.labels)
    return Data(splits, "test", 0, _facts(config, splits), classes)


def _facts(config: ConfigDict, splits: Mapping[str, Split]) -> dict[str, Any]:
    return {
        "name": config.data.name,
        "root": config.data.root,
        "sizes": {name: len(split.ids) for name, split in splits.items()},
        "bad_records": 0,
        "truncated_captions": 0,
        "vocabulary": 0,
    }


def _resized(images_nhwc: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, h, w, c] -> [n, size, size, c] by Pillow's bilinear filter."""
    n, h, w, c = images_nhwc.shape
    if (h, w) == (size, size):
        return images_nhwc
    resized = np.empty((n, size, size, c), np.uint8)
    for picture, image_hwc in zip(resized, images_nhwc, strict=True):
        # Grey pictures have no axis of channels in Pillow.
        image = Image.fromarray(image_hwc[..., 0] if c == 1 else image_hwc)
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        picture[...] = np.asarray(image).reshape(size, size, c)
    return resized
