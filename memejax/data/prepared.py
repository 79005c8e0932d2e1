"""Labelled pictures that TensorFlow Datasets has prepared, read without TensorFlow.

Preparing them (download and conversion) takes TensorFlow, the extra `tfds`:

    python -c "import tensorflow_datasets as tfds; tfds.data_source('mnist')"

leaves `~/tensorflow_datasets/mnist/<version>/` with ArrayRecord files, which this
reads wherever they are copied to.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from memejax.data import arrays
from memejax.data.arrays import Labelled
from memejax.data.hateful_memes import MissingDataError

# What TFDS calls a data set -> what reads its original files.
ORIGINAL = {"mnist": arrays.mnist, "cifar10": arrays.cifar10}


def read(name: str, folder: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Reads MNIST or CIFAR-10, prepared by TFDS or in its original files.

    Args:
        name: one of ORIGINAL.
        folder: as `find` takes it, or of the original files as their reader takes it.

    Returns:
        "train" and "test".

    Raises:
        hateful_memes.MissingDataError: naming what was looked for.
        ValueError: naming the file whose contents are others.
    """
    if find(name, folder) is not None:
        return prepared(name, folder)
    return ORIGINAL[name](folder)


def find(name: str, folder: str | os.PathLike[str]) -> pathlib.Path | None:
    """The folder of the newest version of a prepared data set, None without any.

    Args:
        name: as TFDS calls it: "mnist", "cifar10".
        folder: the data set's own (`<folder>/features.json`), or TFDS's data folder
            (`<folder>/<name>/<version>/features.json`).
    """
    folder = pathlib.Path(folder)
    if (folder / "features.json").is_file():
        return folder
    found = sorted(
        (file.parent for file in folder.glob(f"{name}/*/features.json")),
        key=lambda path: [
            int(part) if part.isdecimal() else -1 for part in path.name.split(".")
        ],
    )
    return found[-1] if found else None


def prepared(name: str, folder: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Reads a prepared data set with the features `image` and `label`.

    Args:
        name: as TFDS calls it.
        folder: as `find` takes it.

    Returns:
        "train" and "test".

    Raises:
        hateful_memes.MissingDataError: if nothing is prepared there, or a split is not.
        ValueError: if its features or its contents are others.
    """
    # Imported here: it takes seconds.
    import tensorflow_datasets as tfds

    where = find(name, folder)
    if where is None:
        raise MissingDataError(f"{folder} holds no {name} prepared by TFDS")
    builder = tfds.builder_from_directory(where)
    missing = {"image", "label"} - set(builder.info.features or {})
    if missing:
        raise ValueError(f"{where}: has no feature {' and no '.join(sorted(missing))}")
    return {
        split: _split(builder, where, split, builder.info.features["label"].num_classes)
        for split in ("train", "test")
    }


def _split(builder, where: pathlib.Path, split: str, classes: int) -> Labelled:
    if split not in builder.info.splits:
        raise MissingDataError(
            f"{where}: has the splits {sorted(builder.info.splits)}, not {split}"
        )
    source = builder.as_data_source(split=split)
    try:
        examples = [source[i] for i in range(len(source))]
    # What the reader raises of a file that is cut off or damaged.
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{where}: {split} is damaged or incomplete, its metadata promises "
            f"{len(source)} records: {error}"
        ) from error
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{where}: {split} holds labels from {labels.min()} to {labels.max()}, "
            f"expected 0 to {classes - 1}"
        )
    return Labelled(images, labels)
