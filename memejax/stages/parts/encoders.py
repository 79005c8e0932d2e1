"""The encoders of a feature store: their config and their variables.

`encoders_config` and `start_encoders` are for graph networks that train their encoders
jointly; the extraction uses the rest too.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from memejax.data import text
from memejax.restored import encoders_of, read_finished, restore
from memejax.stages.parts.models import arm_names, normalization
from memejax.stages.parts.pretrained import adopt
from memejax.stages.parts.variables import load_weights
from memejax.store.read import Store

Tree = Any


def encoders_config(config: ConfigDict, store: Store) -> tuple[ConfigDict, Tokenizer]:
    """Return the config of the encoders that a store was extracted with.

    It is that of the run `extract.run`; without one, the config's own `model` with the
    checkpoints in `weights`, as in the extraction.

    Args:
        config: config of a run on graphs.
        store: the features.

    Returns:
        The config, whose `arms` has one arm, and the tokenizer.

    Raises:
        ValueError: if there is no such run or arm, or the store was extracted with
            other encoders (the store describes all but their parameters).
    """
    run, arm = config.extract.run, config.extract.arm
    if run is None:
        encoder_config = adopt(one_arm(config, arm))
        path = encoder_config.data.tokenizer or store.folder / "tokenizer"
    else:
        encoder_config = arm_of_run(config, read_finished(run)[0])
        path = pathlib.Path(run) / "tokenizer"
    tokenizer = text.load_tokenizer(os.fspath(path))
    _check(encoder_config, tokenizer, store, f"extract.run={run}, extract.arm={arm}")
    return encoder_config, tokenizer


def _check(
    encoder_config: ConfigDict, tokenizer: Tokenizer, store: Store, origin: str
) -> None:
    """Raise ValueError if a store was extracted with other encoders."""
    parts = store.facts.get("parts", {})
    expected = json.loads(json.dumps(described(encoder_config, tokenizer)))
    different = [
        f"{part}.{name}"
        for part, values in expected.items()
        for name, value in values.items()
        if parts.get(part, {}).get(name) != value
    ]
    if different:
        raise ValueError(
            f"the store in {store.folder} was not extracted with the encoders of "
            f"{origin}: they differ in {', '.join(different)}; set those that it was "
            "extracted with, or extract again to another folder"
        )


def start_encoders(
    config: ConfigDict, encoder_config: ConfigDict, variables: Tree
) -> Tree:
    """Replace random encoders by those that a store was extracted with.

    Args:
        config: config of a run on graphs.
        encoder_config: from `encoders_config`.
        variables: random, with `image_encoder` and `text_encoder` in their
            collections; encoders without a run or a checkpoint stay random.

    Returns:
        The same tree, with copies.

    Raises:
        ValueError: if the run is not finished, or the encoders have other shapes; if
            one would stay random and `extract.allow_random` is False.
    """
    run = config.extract.run
    if run is None:
        named_checkpoints(config)
        return load_encoders(encoder_config, variables)
    (arm,) = encoder_config.arms
    return _replaced(variables, encoders_of(restore(run, arm=arm), arm), run)


def _replaced(variables: Tree, found: Mapping[str, Tree], run: str) -> Tree:
    """Replace the encoders' part of every collection, checking the shapes."""
    new = {collection: dict(tree) for collection, tree in variables.items()}
    for part, collections in found.items():
        for collection in new:
            old, tree = new[collection].get(part), collections.get(collection)
            shapes = [jax.tree.map(np.shape, t) for t in (old, tree)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"the {part} of the run in {run} has other {collection} than its "
                    "config describes"
                )
            if tree is not None:
                new[collection][part] = jax.tree.map(jnp.array, tree)
    return new


def one_arm(config: ConfigDict, arm: str) -> ConfigDict:
    """Return a locked copy of a config with one of the arms that it describes.

    Raises:
        ValueError: for an unknown arm.
    """
    copied = copy.deepcopy(config).unlock()
    copied.arms = (arm,)
    arm_names(copied)
    return copied.lock()


def arm_of_run(config: ConfigDict, run: ConfigDict) -> ConfigDict:
    """Return the config of a finished run with the arm `extract.arm` alone.

    Args:
        config: sets `extract.run` and `extract.arm`.
        run: that run's config.

    Raises:
        ValueError: if the run has no such arm.
    """
    arm = config.extract.arm
    if arm not in run.arms:
        raise ValueError(
            f"extract.arm={arm!r}: the run in {config.extract.run} has the arms "
            f"{', '.join(run.arms)}"
        )
    return one_arm(run, arm)


def named_checkpoints(config: ConfigDict) -> dict[str, str | None]:
    """Return the checkpoints in `weights` for the encoders of `extract.arm`.

    Raises:
        ValueError: if an encoder would stay random and `extract.allow_random` is
            False.
    """
    arm, weights = config.extract.arm, config.weights
    named = {"image_encoder": weights[f"image_{arm}"], "text_encoder": weights.text}
    random = [part for part, path in named.items() if path is None]
    if random and not config.extract.allow_random:
        raise ValueError(
            f"{' and '.join(random)} would stay random: name a finished run in "
            f"extract.run, or checkpoints in weights.image_{arm} and weights.text"
        )
    return named


def load_encoders(encoder_config: ConfigDict, variables: Tree) -> Tree:
    """Load the checkpoints in `weights` into variables of encoders.

    Args:
        encoder_config: a config of one arm.
        variables: with `image_encoder` and `text_encoder` in their collections.

    Returns:
        The same tree, with copies.

    Raises:
        ValueError: see `load_weights`.
    """
    (arm,) = encoder_config.arms
    placed = {k: {f"arms_{arm}": dict(tree)} for k, tree in variables.items()}
    found = load_weights(encoder_config, placed)
    return {k: tree[f"arms_{arm}"] for k, tree in found.items()}


def described(
    encoder_config: ConfigDict, tokenizer: Tokenizer
) -> dict[str, dict[str, Any]]:
    """Describe encoders, without parameters and precision; part of a store's key.

    Args:
        encoder_config: a config of one arm.
        tokenizer: for captions.

    Returns:
        JSON for "image" and "text".
    """
    c, model, (arm,) = encoder_config.data, encoder_config.model, encoder_config.arms
    scale = normalization(encoder_config, arm)
    # The normalisation has its own key.
    image = {
        k: v for k, v in model.image[arm].to_dict().items() if k != "normalization"
    }
    return {
        "image": {
            "encoder": image,
            "normalization": {name: list(values) for name, values in scale.items()},
            "size": c.image_size,
            "resize": c.resize,
        },
        "text": {
            "encoder": model.text.to_dict(),
            "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            "length": c.text_length,
            "pooling": model.arm.text_pooling,
        },
    }
