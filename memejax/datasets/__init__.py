"""Data sets as the stages use them: from the section `data` to columns.

data.py      Data and Split, the columns of a data set
memes.py     memes on disk, built-in ones among them
pictures.py  labelled pictures: built-in ones, MNIST, CIFAR-10
labelled.py  small labelled pictures in memory, for the stage "classify"
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from ml_collections import ConfigDict

from memejax.datasets.data import Data as Data
from memejax.datasets.data import Split as Split
from memejax.datasets.memes import as_written as as_written
from memejax.datasets.memes import load_memes as load_memes
from memejax.datasets.memes import read_memes as read_memes
from memejax.datasets.pictures import load_cifar10, load_mnist, load_pictures

DATASETS: dict[str, Callable[[ConfigDict, pathlib.Path], Data]] = {
    "memes": load_memes,
    "pictures": load_pictures,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
}


def load(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Loads the data set `data.name`, one of DATASETS.

    - "memes": reads, checks, splits and tokenises the memes of `data.root`. Without
      a root the built-in memes are written under the run's folder, and then read like
      any others.
    - "pictures": built-in pictures; the class is the pattern shown. Of
      `data.synthetic` it takes train, test and concepts.
    - "mnist", "cifar10": read from the folder `data.root`, original files or what TFDS
      prepared.

    All but the memes have the splits "train" and "test"; "test" chooses the
    checkpoint, whatever `data.dev`. Their pictures are brought to `data.image_size`
    here, once, and grey ones to three channels; `data.resize` and `pipeline.cache`
    are for files.

    Args:
        config: a run's config; of its seeds the first, `config.seed`, is the data's.
        workdir: the run's folder.

    Returns:
        Data.

    Raises:
        hateful_memes.BadRecordsError: naming every bad record.
        hateful_memes.MissingDataError: naming what was looked for.
        ValueError: for an unknown name; if a split that the config names does not
            exist; if a root is missing, or given to the built-in pictures; for files of
            other contents.
    """
    name = config.data.name
    if name not in DATASETS:
        raise ValueError(f"data.name={name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name](config, workdir)
