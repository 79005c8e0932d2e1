"""The encoders of a feature store: what they are, and how to go on training them.

`encoders_config` and `start_encoders` are for graph networks whose encoders are trained
along; the rest serves the extraction too.
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
    """What encoders a store was extracted with: sections `model` and `data`, one arm.

    Those of the run `extract.run`; without one, of the config's own `model` with the
    checkpoints under `weights`, as the extraction has it.

    Args:
        config: a run's on graphs.
        store: the features.

    Returns:
        The config, whose `arms` is the one arm, and the tokenizer.

    Raises:
        ValueError: if there is no such run or arm, or the store was extracted with
            other encoders, by all that is known of them but their parameters.
    """
    run, arm = config.extract.run, config.extract.arm
    if run is None:
        theirs = adopt(one_arm(config, arm))
        where = theirs.data.tokenizer or store.folder / "tokenizer"
    else:
        theirs = arm_of_run(config, read_finished(run)[0])
        where = pathlib.Path(run) / "tokenizer"
    tokenizer = text.load_tokenizer(os.fspath(where))
    _check(theirs, tokenizer, store, f"extract.run={run}, extract.arm={arm}")
    return theirs, tokenizer


def _check(theirs: ConfigDict, tokenizer: Tokenizer, store: Store, named: str) -> None:
    """Raises ValueError where a store is of other encoders than these."""
    parts = store.facts.get("parts", {})
    mine = json.loads(json.dumps(described(theirs, tokenizer)))
    different = [
        f"{part}.{name}"
        for part, values in mine.items()
        for name, value in values.items()
        if parts.get(part, {}).get(name) != value
    ]
    if different:
        raise ValueError(
            f"the store in {store.folder} was not extracted with the encoders of "
            f"{named}: they differ in {', '.join(different)}; name those that it was "
            "extracted with, or extract anew to another folder"
        )


def start_encoders(config: ConfigDict, theirs: ConfigDict, variables: Tree) -> Tree:
    """Variables with those of the encoders that a store was extracted with.

    Args:
        config: a run's on graphs.
        theirs: the encoders', as `encoders_config` gives it.
        variables: random ones, which have `image_encoder` and `text_encoder` in their
            collections; encoders that nothing is named for stay random.

    Returns:
        The same tree, with copies.

    Raises:
        ValueError: if the run is not finished, or the encoders have other shapes; if
            one would stay random and `extract.allow_random` does not allow it.
    """
    run = config.extract.run
    if run is None:
        named_checkpoints(config)
        return load_encoders(theirs, variables)
    (arm,) = theirs.arms
    return _replaced(variables, encoders_of(restore(run), arm), run)


def _replaced(variables: Tree, found: Mapping[str, Tree], run: str) -> Tree:
    """The encoders' parts of every collection, of the shapes that were there."""
    new = {collection: dict(tree) for collection, tree in variables.items()}
    for part, collections in found.items():
        for collection in new:
            old, tree = new[collection].get(part), collections.get(collection)
            shapes = [jax.tree.map(np.shape, t) for t in (old, tree)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"the {part} of the run in {run} has other {collection} than its "
                    "config says"
                )
            if tree is not None:
                new[collection][part] = jax.tree.map(jnp.array, tree)
    return new


def one_arm(config: ConfigDict, arm: str) -> ConfigDict:
    """A copy of a config, locked, whose `arms` is one of those that it describes.

    Raises:
        ValueError: for an arm that it does not.
    """
    copied = copy.deepcopy(config).unlock()
    copied.arms = (arm,)
    arm_names(copied)
    return copied.lock()


def arm_of_run(config: ConfigDict, run: ConfigDict) -> ConfigDict:
    """The config of a finished run with the arm `extract.arm` alone.

    Args:
        config: names that run, in `extract.run`.
        run: its config.

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
    """What `weights` names for `image_encoder` and `text_encoder` of `extract.arm`.

    Raises:
        ValueError: if an encoder would stay random and `extract.allow_random` does not
            allow it.
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


def load_encoders(theirs: ConfigDict, variables: Tree) -> Tree:
    """Variables of encoders, with those of the checkpoints that `weights` names.

    Args:
        theirs: the encoders', of one arm.
        variables: with `image_encoder` and `text_encoder` in their collections.

    Returns:
        The same tree, with copies.

    Raises:
        ValueError: as `load_weights` does.
    """
    (arm,) = theirs.arms
    placed = {k: {f"arms_{arm}": dict(tree)} for k, tree in variables.items()}
    found = load_weights(theirs, placed)
    return {k: tree[f"arms_{arm}"] for k, tree in found.items()}


def described(theirs: ConfigDict, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """What features depend on, but for parameters and precision: of a store's key.

    Args:
        theirs: the encoders', of one arm.
        tokenizer: of the captions.

    Returns:
        JSON, of "image" and of "text".
    """
    c, model, (arm,) = theirs.data, theirs.model, theirs.arms
    scale = normalization(theirs, arm)
    # The normalisation has a place of its own.
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
