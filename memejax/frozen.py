"""Encoders kept beside the features that they made, so that new memes can follow them.

    FOLDER/encoders/config.json          sections `model` and `data`, and one arm
    FOLDER/encoders/model.safetensors    image_encoder/params/..., text_encoder/...
    FOLDER/encoders/tokenizer.json       of the captions
    FOLDER/encoders/names.json           readable names of both encoders

Digests of all of them complete the folder, and are verified when it is loaded.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from memejax import digests, folder
from memejax.data import text
from memejax.weights.formats import read_safetensors

Tree = Any
ENCODERS = "encoders"
CONFIG, MODEL, NAMES = "config.json", "model.safetensors", "names.json"


class Frozen(NamedTuple):
    """Encoders that are not trained.

    Attributes:
        config: with the sections `model` and `data` of the encoders, and one arm.
        tokenizer: of the captions.
        variables: "image_encoder" and "text_encoder" -> collection -> arrays.
        names: readable names of both.
    """

    config: ConfigDict
    tokenizer: Tokenizer
    variables: Mapping[str, Tree]
    names: Mapping[str, str]


def keep(encoders: Frozen, store: pathlib.Path) -> None:
    """Write encoders into a store's folder, unless they are there."""
    path = store / ENCODERS
    if digests.exists(path):
        return
    path.mkdir(parents=True, exist_ok=True)
    leaves = traverse_util.flatten_dict(dict(encoders.variables), sep="/")
    arrays = {k: np.ascontiguousarray(jax.device_get(v)) for k, v in leaves.items()}
    save_file(arrays, path / MODEL)
    text.save_tokenizer(encoders.tokenizer, os.fspath(path))
    folder.write_json(path / NAMES, dict(encoders.names))
    folder.write_json(path / CONFIG, encoders.config.to_dict())
    digests.write(path)


def load(path: pathlib.Path) -> Frozen:
    """Load the encoders of a store, or those that a run took from one.

    Args:
        path: the folder that has the folder `encoders`.

    Raises:
        ValueError: if it has none, or a file of it is missing or damaged.
    """
    own = path / ENCODERS
    if not digests.exists(own):
        raise ValueError(
            f"{path} keeps no encoders, and cannot score new memes: extract its "
            "features with --config.extract.keep_encoders=True"
        )
    reason = digests.problem(own)
    if reason is not None:
        raise ValueError(f"the encoders of {path} are damaged: {reason}")
    config = folder.read_json(own / CONFIG)
    trees = traverse_util.unflatten_dict(dict(read_safetensors(own / MODEL)), sep="/")
    return Frozen(
        ConfigDict(config).lock(),
        text.load_tokenizer(os.fspath(own / "tokenizer.json")),
        trees,
        folder.read_json(own / NAMES) or {},
    )


def link(store: pathlib.Path, path: pathlib.Path) -> None:
    """Give a run the encoders of a store, as links on the same disk, else as copies."""
    if not digests.exists(store / ENCODERS) or digests.exists(path / ENCODERS):
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
