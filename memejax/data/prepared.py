"""Labelled pictures prepared by TensorFlow Datasets, read without TensorFlow.

Preparing them (download and conversion) needs TensorFlow, the extra `tfds`:

    python -c "import tensorflow_datasets as tfds; tfds.data_source('mnist')"

writes ArrayRecord files to `~/tensorflow_datasets/mnist/<version>/`, which this module
reads wherever they are copied to.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from memejax.data import arrays
from memejax.data.arrays import Labelled
from memejax.data.hateful_memes import MissingDataError

# Name of a data set in TFDS -> reader of its original files.
ORIGINAL = {"mnist": arrays.mnist, "cifar10": arrays.cifar10}


def read(name: str, folder: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Read MNIST or CIFAR-10, prepared by TFDS or in its original files.

    Args:
        name: one of ORIGINAL.
        folder: of the prepared files, see `find`, or of the original files, see the
            reader in ORIGINAL.

    Returns:
        "train" and "test".

    Raises:
        hateful_memes.MissingDataError: naming the missing files.
        ValueError: naming the file with unexpected contents.
    """
    if find(name, folder) is not None:
        return prepared(name, folder)
    return ORIGINAL[name](folder)


def find(name: str, folder: str | os.PathLike[str]) -> pathlib.Path | None:
    """Find the folder of the newest version of a prepared data set.

    Args:
        name: in TFDS: "mnist", "cifar10".
        folder: the data set's own (`<folder>/features.json`), or TFDS's data folder
            (`<folder>/<name>/<version>/features.json`).

    Returns:
        The folder, or None if there is no prepared version.
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
    """Read a prepared data set with the features `image` and `label`.

    Args:
        name: in TFDS.
        folder: see `find`.

    Returns:
        "train" and "test".

    Raises:
        hateful_memes.MissingDataError: if the data set or a split is not prepared.
        ValueError: for unexpected features or contents.
    """
    # Imported here: it takes seconds.
    import tensorflow_datasets as tfds

    path = find(name, folder)
    if path is None:
        raise MissingDataError(f"{folder} holds no {name} prepared by TFDS")
    builder = tfds.builder_from_directory(path)
    missing = {"image", "label"} - set(builder.info.features or {})
    if missing:
        raise ValueError(f"{path}: has no feature {' and no '.join(sorted(missing))}")
    return {
        split: _split(builder, path, split, builder.info.features["label"].num_classes)
        for split in ("train", "test")
    }


def _split(builder, path: pathlib.Path, split: str, classes: int) -> Labelled:
    if split not in builder.info.splits:
        raise MissingDataError(
            f"{path}: has the splits {sorted(builder.info.splits)}, not {split}"
        )
    source = builder.as_data_source(split=split)
    try:
        examples = [source[i] for i in range(len(source))]
    # Raised by the reader for a truncated or damaged file.
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: {split} is damaged or incomplete, its metadata promises "
            f"{len(source)} records: {error}"
        ) from error
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{path}: {split} holds labels from {labels.min()} to {labels.max()}, "
            f"expected 0 to {classes - 1}"
        )
    return Labelled(images, labels)
