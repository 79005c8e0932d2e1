"""Labelled pictures prepared by TensorFlow Datasets, read without TensorFlow.

Preparing them (download and conversion) needs TensorFlow, the extra `tfds`:

    python -c "import tensorflow_datasets as tfds; tfds.data_source('mnist')"

writes ArrayRecord files to `~/tensorflow_datasets/mnist/<version>/`, which this module
reads wherever they are copied to. Any other data set of labelled pictures is read as
`data.name="tfds:NAME"`, or NAME/CONFIG.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from memejax.data import arrays, images
from memejax.data.arrays import Labelled
from memejax.data.hateful_memes import MissingDataError

# Before the name of any data set in TFDS, in `data.name`.
PREFIX = "tfds:"
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
        opened = open_pictures(name, folder)
        return {part: _labelled(opened, part) for part in ("train", "test")}
    return ORIGINAL[name](folder)


def default_folder() -> pathlib.Path:
    """TFDS's own data folder: `TFDS_DATA_DIR`, or ~/tensorflow_datasets."""
    return pathlib.Path(
        os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    ).expanduser()


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


@dataclasses.dataclass(frozen=True)
class PreparedPictures:
    """A data set of labelled pictures that TFDS prepared.

    Attributes:
        path: its folder.
        builder: TFDS's.
        image: name of its feature of pictures.
        label: name of its feature of classes.
        classes: names of the classes.
    """

    path: pathlib.Path
    builder: Any
    image: str
    label: str
    classes: tuple[str, ...]

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return sorted(self.builder.info.splits)

    def labels(self, split: str) -> np.ndarray:
        """Read the labels of a split without decoding its pictures, int32 [n].

        Raises:
            hateful_memes.MissingDataError: if the split is not prepared.
            ValueError: if it is damaged, or a label is out of range; -1 is unknown.
        """
        import tensorflow_datasets as tfds

        encoded = {self.image: tfds.decode.SkipDecoding()}
        source = self._source(split, decoders=encoded)
        labels = np.array(
            [example[self.label] for example in self._examples(split, source)], np.int32
        )
        if labels.min() < -1 or labels.max() >= len(self.classes):
            raise ValueError(
                f"{self.path}: {split} holds labels from {labels.min()} to "
                f"{labels.max()}, expected 0 to {len(self.classes) - 1}"
            )
        return labels

    def images(self, split: str) -> np.ndarray:
        """Read all pictures of a split, uint8 [n, h, w, c].

        Raises:
            hateful_memes.MissingDataError: if the split is not prepared.
            ValueError: if it is damaged, or its pictures differ in size.
        """
        source = self._source(split)
        pictures = [example[self.image] for example in self._examples(split, source)]
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            raise ValueError(
                f"{self.path}: {split} has pictures of {len(sizes)} sizes, such as "
                f"{' and '.join(map(str, sorted(sizes)[:2]))}; expected one"
            )
        return np.stack(pictures)

    def column(self, split: str, *, size: int, resize: str) -> PictureColumn:
        """Return the pictures of a split as a column; see `images.decode`."""
        return PictureColumn(self._source(split), self.image, size, resize)

    def _source(self, split: str, **options: Any) -> Any:
        if split not in self.builder.info.splits:
            raise MissingDataError(
                f"{self.path}: has the splits {self.splits}, not {split}"
            )
        return self.builder.as_data_source(split=split, **options)

    def _examples(self, split: str, source: Any) -> list[Any]:
        try:
            return [source[i] for i in range(len(source))]
        # Raised by the reader for a truncated or damaged file.
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(
                f"{self.path}: {split} is damaged or incomplete, its metadata promises "
                f"{len(source)} records: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class PictureColumn:
    """Pictures of a prepared split, decoded on access: uint8 [b, size, size, 3]."""

    source: Any
    feature: str
    size: int
    resize: str

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        examples = self.source.__getitems__([int(i) for i in index])
        return np.stack([self._fitted(example[self.feature]) for example in examples])

    def _fitted(self, image_hwc: np.ndarray) -> np.ndarray:
        # Grey pictures have no axis of channels in Pillow.
        grey = image_hwc.shape[-1] == 1
        picture = Image.fromarray(image_hwc[..., 0] if grey else image_hwc)
        return images.fit(picture.convert("RGB"), size=self.size, resize=self.resize)[0]

    def __len__(self) -> int:
        return len(self.source)


def open_pictures(name: str, folder: str | os.PathLike[str]) -> PreparedPictures:
    """Open a prepared data set of labelled pictures.

    Args:
        name: in TFDS, as "mnist" or "name/config".
        folder: see `find`.

    Raises:
        hateful_memes.MissingDataError: if the data set is not prepared.
        ValueError: unless it has exactly one feature that is a picture and one that is
            a class, or names them as its supervised pair.
    """
    # Imported here: it takes seconds.
    import tensorflow_datasets as tfds

    path = find(name, folder)
    if path is None:
        raise MissingDataError(f"{folder} holds no {name} prepared by TFDS")
    builder = tfds.builder_from_directory(path)
    features = dict(builder.info.features or {})
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    pair = builder.info.supervised_keys
    found = {}
    for i, (what, kind) in enumerate(kinds.items()):
        names = [n for n, feature in features.items() if isinstance(feature, kind)]
        if pair is not None and pair[i] in names:
            names = [pair[i]]
        if len(names) != 1:
            raise ValueError(
                f"{path}: expected one feature of type {kind.__name__} for the {what}, "
                f"got {names or 'none'}"
            )
        found[what] = names[0]
    classes = tuple(features[found["label"]].names)
    return PreparedPictures(path, builder, **found, classes=classes)


def train_and_test(opened: PreparedPictures) -> dict[str, tuple[str, np.ndarray]]:
    """Choose the pictures to train on and those to test on.

    Those to train on are of the split "train", those to test on of the first of "test"
    and "validation" whose labels are all known (ImageNet's test labels are not). With
    neither, a fifth of "train" is held out at random, the same in every run.

    Returns:
        "train" and "test" -> (split, rows of it).

    Raises:
        hateful_memes.MissingDataError: if there is no split "train".
        ValueError: if it is damaged, or some of its labels are unknown.
    """
    labels = opened.labels("train")
    if (labels < 0).any():
        raise ValueError(f"{opened.path}: train has unknown labels (-1)")
    rows = np.arange(len(labels))
    for split in ("test", "validation"):
        if split in opened.splits and len(known := opened.labels(split)):
            if (known >= 0).all():
                return {
                    "train": ("train", rows),
                    "test": (split, np.arange(len(known))),
                }
    order = np.random.default_rng(0).permutation(len(rows))
    held_out = len(rows) // 5
    return {
        "train": ("train", np.sort(order[held_out:])),
        "test": ("train", np.sort(order[:held_out])),
    }


def in_memory(opened: PreparedPictures) -> dict[str, Labelled]:
    """Read "train" and "test" of `train_and_test` into memory.

    Raises:
        hateful_memes.MissingDataError, ValueError: as `train_and_test`, and for
            pictures of several sizes.
    """
    return {
        part: _labelled(opened, split, rows)
        for part, (split, rows) in train_and_test(opened).items()
    }


def _labelled(
    opened: PreparedPictures, split: str, rows: np.ndarray | None = None
) -> Labelled:
    images, labels = opened.images(split), opened.labels(split)
    if (labels < 0).any():
        raise ValueError(f"{opened.path}: {split} has unknown labels (-1)")
    if rows is not None:
        images, labels = images[rows], labels[rows]
    return Labelled(images, labels)
