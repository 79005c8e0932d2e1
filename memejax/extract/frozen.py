"""Encoders kept beside the features that they made, so that new memes can follow them.

FOLDER/encoders/config.json          sections `model` and `data`, and one arm
FOLDER/encoders/model.safetensors    image_encoder/params/..., text_encoder/...
FOLDER/encoders/tokenizer.json       of the captions
FOLDER/encoders/names.json           readable names of both encoders
"""

import os
import pathlib
import shutil

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from memejax import folder
from memejax.data import text
from memejax.extract.sources import Source
from memejax.weights.formats import read_safetensors

ENCODERS = "encoders"
CONFIG, MODEL, NAMES = "config.json", "model.safetensors", "names.json"


def keep(source: Source, store: pathlib.Path) -> None:
    """Write encoders into a store's folder, unless they are there.

    The folder is complete once config.json exists.
    """
    path = store / ENCODERS
    if (path / CONFIG).exists():
        return
    path.mkdir(parents=True, exist_ok=True)
    trees = {"image_encoder": dict(source.image), "text_encoder": dict(source.text)}
    leaves = traverse_util.flatten_dict(trees, sep="/")
    arrays = {k: np.ascontiguousarray(jax.device_get(v)) for k, v in leaves.items()}
    save_file(arrays, path / MODEL)
    text.save_tokenizer(source.tokenizer, os.fspath(path))
    folder.write_json(path / NAMES, dict(source.names))
    folder.write_json(path / CONFIG, source.config.to_dict())


def load(path: pathlib.Path) -> Source:
    """Load the encoders of a store, or those that a run took from one.

    Args:
        path: the folder that has the folder `encoders`.

    Raises:
        ValueError: if it has none, or a file of it is missing or damaged.
    """
    own = path / ENCODERS
    config = folder.read_json(own / CONFIG)
    if config is None:
        raise ValueError(
            f"{path} keeps no encoders, so that it cannot score new memes: extract "
            "with --config.extract.keep_encoders=True"
        )
    flat = read_safetensors(own / MODEL)
    trees = traverse_util.unflatten_dict(dict(flat), sep="/")
    return Source(
        ConfigDict(config).lock(),
        text.load_tokenizer(os.fspath(own / "tokenizer.json")),
        trees["image_encoder"],
        trees["text_encoder"],
        folder.read_json(own / NAMES) or {},
    )


def link(store: pathlib.Path, path: pathlib.Path) -> None:
    """Give a run the encoders of a store, as links on the same disk, else copies."""
    if not (store / ENCODERS / CONFIG).exists() or (path / ENCODERS / CONFIG).exists():
        return
    beside = path / f".{ENCODERS}.new"
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(store / ENCODERS, beside, copy_function=_link)
    beside.rename(path / ENCODERS)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
