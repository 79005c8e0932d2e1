"""Data sets of the stages: from the config section `data` to columns.

data.py      Data and Split, the columns of a data set
memes.py     memes on disk, including built-in ones
pictures.py  labelled pictures: built-in ones, MNIST, CIFAR-10, those of TFDS
labelled.py  small labelled pictures in memory, for the stage "classify"
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from ml_collections import ConfigDict

from memejax.data import prepared
from memejax.datasets.data import Data as Data
from memejax.datasets.data import Split as Split
from memejax.datasets.memes import load_memes as load_memes
from memejax.datasets.memes import read_memes as read_memes
from memejax.datasets.memes import with_written_memes as with_written_memes
from memejax.datasets.pictures import (
    load_cifar10,
    load_mnist,
    load_pictures,
    load_tfds,
)

DATASETS: dict[str, Callable[[ConfigDict, pathlib.Path], Data]] = {
    "memes": load_memes,
    "pictures": load_pictures,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
}


def load(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Load the data set `data.name`, one of DATASETS or "tfds:NAME".

    - "memes": reads, checks, splits and tokenises the memes of `data.root`. Without
      a root the built-in memes are written below the run's folder, and then read like
      any others.
    - "pictures": built-in pictures; the class is the pattern shown. Only train, test
      and concepts of `data.synthetic` are used.
    - "mnist", "cifar10": read from the folder `data.root`, original files or those
      prepared by TFDS.
    - "tfds:NAME": any data set of labelled pictures that TFDS prepared, in `data.root`
      or TFDS's own folder; see `prepared.train_and_test` for its splits. Pictures are
      decoded on access unless `pipeline.cache` is "memory".

    All but the memes have the splits "train" and "test"; "test" chooses the
    checkpoint, whatever `data.dev`. Their pictures are resized to `data.image_size`,
    and grey ones get three channels; `data.resize` and `pipeline.cache` are for files
    and TFDS.

    Args:
        config: a run's config; the seed of the data is `config.seed`, that of its first
            seed.
        workdir: the run's folder.

    Returns:
        Data.

    Raises:
        hateful_memes.BadRecordsError: naming every bad record.
        hateful_memes.MissingDataError: naming the missing data.
        ValueError: for an unknown name, a split of the config that does not exist, a
            root that is missing or set for the built-in pictures, or files with
            unexpected contents.
    """
    name = config.data.name
    if name.startswith(prepared.PREFIX):
        return load_tfds(config, workdir)
    if name not in DATASETS:
        raise ValueError(
            f"data.name={name!r}: expected one of {', '.join(DATASETS)}, tfds:NAME"
        )
    return DATASETS[name](config, workdir)
