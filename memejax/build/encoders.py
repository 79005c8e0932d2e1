"""The encoders that a feature store was extracted with, to go on training them."""

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
from orbax.checkpoint import v1 as ocp
from tokenizers import Tokenizer

from memejax import folder
from memejax.build.modules import arm_names, normalization
from memejax.build.pretrained import adopt
from memejax.build.variables import load_weights
from memejax.data import text
from memejax.graphs.store import Store

Tree = Any
PARTS = ("image_encoder", "text_encoder")


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
      ValueError: if there is no such run or arm, or the store was extracted with other
        encoders, by all that is known of them but their parameters.
    """
    run, arm = config.extract.run, config.extract.arm
    if run is None:
        theirs = copy.deepcopy(config).unlock()
        theirs.arms = (arm,)
        arm_names(theirs)
        theirs = adopt(theirs.lock())
        where = theirs.data.tokenizer or store.folder / "tokenizer"
    else:
        theirs = ConfigDict(_read(run, "config.json"))
        if arm not in theirs.arms:
            raise ValueError(
                f"extract.arm={arm!r}: the run in {run} has the arms "
                f"{', '.join(theirs.arms)}"
            )
        theirs.arms = (arm,)
        where = pathlib.Path(run) / "tokenizer"
    tokenizer = text.load_tokenizer(os.fspath(where))
    _check(theirs, tokenizer, store, f"extract.run={run}, extract.arm={arm}")
    return theirs, tokenizer


def _check(theirs: ConfigDict, tokenizer: Tokenizer, store: Store, named: str) -> None:
    """Raises ValueError where a store is of other encoders than these."""
    c, model, (arm,) = theirs.data, theirs.model, theirs.arms
    mine = {
        "image": {
            "encoder": _described(model.image[arm]),
            "normalization": normalization(theirs, arm),
            "size": c.image_size,
            "resize": c.resize,
        },
        "text": {
            "encoder": _described(model.text),
            "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            "length": c.text_length,
            "pooling": model.arm.text_pooling,
        },
    }
    parts = store.facts.get("parts", {})
    different = [
        f"{part}.{name}"
        for part, values in json.loads(json.dumps(mine)).items()
        for name, value in values.items()
        if parts.get(part, {}).get(name) != value
    ]
    if different:
        raise ValueError(
            f"the store in {store.folder} was not extracted with the encoders of "
            f"{named}: they differ in {', '.join(different)}; name those that it was "
            "extracted with, or extract anew to another folder"
        )


def _described(section: ConfigDict) -> dict[str, Any]:
    """An encoder's section as a store's key has it."""
    return {k: v for k, v in section.to_dict().items() if k != "normalization"}


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
      ValueError: if the run is not finished, or the encoders have other shapes; if one
        would stay random and `extract.allow_random` does not allow it.
    """
    (arm,) = theirs.arms
    if config.extract.run is None:
        named = (theirs.weights[f"image_{arm}"], theirs.weights.text)
        if None in named and not config.extract.allow_random:
            raise ValueError(
                "an encoder would stay random: name a finished run in extract.run, or "
                f"checkpoints in weights.image_{arm} and weights.text"
            )
        placed = {k: {f"arms_{arm}": dict(tree)} for k, tree in variables.items()}
        found = load_weights(theirs, placed)
        return {k: tree[f"arms_{arm}"] for k, tree in found.items()}
    return _replaced(variables, _of_run(config.extract.run, arm), config.extract.run)


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


def _of_run(run: str, arm: str) -> dict[str, Tree]:
    """The collections of both encoders of a finished run's first seed.

    Those of the checkpoint that gave its test scores.
    """
    theirs, results = _read(run, "config.json"), _read(run, "results.json")
    try:
        step = results["seeds"]["0"]["evaluate"]["checkpoint"]
    except KeyError as error:
        raise ValueError(
            f"the run in {run} has no seed 0 with finetune and evaluate in its stages"
        ) from error
    saved = pathlib.Path(run).absolute() / "0/finetune/checkpoints" / str(step)
    variables = _variables(saved)
    found = {}
    for part in PARTS:
        # A text encoder that arms share lies under the first of them.
        holders = [arm]
        if part == "text_encoder" and theirs["model"]["share_text"]:
            holders += theirs["arms"]
        trees = [
            {
                k: tree.get(f"arms_{holder}", {}).get(part)
                for k, tree in variables.items()
            }
            for holder in holders
        ]
        found[part] = next((t for t in trees if t["params"]), None)
        if found[part] is None:
            raise ValueError(
                f"the run in {run} has no {part} in its arm {arm!r}: expected one with "
                "model.arm.modalities=both"
            )
    return found


def _variables(saved: pathlib.Path) -> dict[str, Tree]:
    """The variables that a checkpoint evaluates with, as numpy arrays."""
    if not saved.is_dir():
        raise ValueError(f"{saved}, which gave the run's test scores, is not there")
    found = ocp.checkpointables_metadata(saved).metadata
    if not found or not found["state"].get("params"):
        raise ValueError(f"{saved} is no checkpoint of a run, or is damaged")
    state = found["state"]
    # An average of the parameters, where one was kept, is what was evaluated.
    source = "average" if state.get("average") else "params"

    def wanted(name: str, leaf: Any) -> Any:
        if name in (source, "batch_stats"):
            return np.empty(leaf.shape, leaf.dtype)
        return ocp.PLACEHOLDER

    like = {
        name: jax.tree.map(lambda leaf, name=name: wanted(name, leaf), tree)
        for name, tree in state.items()
    }
    loaded = ocp.load_checkpointables(saved, {"state": like})["state"]
    return {"params": loaded[source], "batch_stats": loaded.get("batch_stats") or {}}


def _read(run: str, name: str) -> Any:
    """A file of a finished run's folder."""
    found = folder.read_json(pathlib.Path(run) / name)
    if found is None:
        raise ValueError(f"no finished run in {run}: there is no {name}")
    return found
