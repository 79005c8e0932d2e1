"""Memes of an extraction, and their digest."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ml_collections import ConfigDict

from memejax import datasets
from memejax.data.hateful_memes import Meme


def read_memes(config: ConfigDict, folder: pathlib.Path) -> tuple[str, list[Meme]]:
    """Read the usable memes of every split, as a run with the same `data` does.

    Args:
        config: an experiment's; without `data.root` the built-in memes are written.
        folder: the store's.

    Returns:
        The data folder, and the memes, split after split.

    Raises:
        BadRecordsError: naming every bad record.
        MissingDataError: naming the missing data.
        ValueError: if the data are not memes.
    """
    name = config.data.name
    if name != "memes":
        raise ValueError(f"data.name={name!r}: only 'memes' have features to extract")
    root, splits, _ = datasets.read_memes(config, folder)
    # The `split` of a meme itself is that of its file.
    return root, [
        dataclasses.replace(meme, split=name)
        for name, memes in splits.items()
        for meme in memes
    ]


def memes_digest(memes: Sequence[Meme], *, threads: int | None = None) -> str:
    """SHA-256 of memes in their order: splits, ids, captions, labels, pictures.

    A picture counts by the bytes of its file, not by name or time: a copy of the data
    elsewhere is the same, and reading a file again costs little beside an encoder.

    Args:
        memes: with readable pictures.
        threads: number of files read at once; one per core if None.

    Returns:
        Hexadecimal digest.
    """
    paths = sorted({meme.image for meme in memes})
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        contents = dict(zip(paths, pool.map(_file_digest, paths), strict=True))
    digest = hashlib.sha256()
    for m in memes:
        row = [m.split, m.id, m.text, m.label, contents[m.image]]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
