"""Encoders of pictures and captions: of a finished run, or of checkpoints."""

import copy
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from memejax import build, logs, predict
from memejax.build.modules import arm_names
from memejax.data import text

Tree = Any
Variables = Mapping[str, Tree]


class Source(NamedTuple):
    """Where encoders come from.

    Attributes:
        config: with the sections `model` and `data` that they are of, and one arm.
        tokenizer: of the captions.
        image: variables of the image encoder.
        text: variables of the text encoder.
        names: of both, for people.
    """

    config: ConfigDict
    tokenizer: Tokenizer
    image: Variables
    text: Variables
    names: Mapping[str, str]


def find_source(
    config: ConfigDict, *, captions: Sequence[str], folder: pathlib.Path
) -> Source:
    """The encoders that a config names: of its run, or of its checkpoints.

    Args:
        config: an experiment's; `extract`, and without a run `weights`, say which.
        captions: for training; a tokenizer learns from them where none is named.
        folder: where such a tokenizer is kept.

    Raises:
        ValueError: if what is named is not there or does not fit, or an encoder would
            stay random and `extract.allow_random` does not allow it.
    """
    if config.extract.run is not None:
        return _of_run(config)
    return _of_weights(config, captions, folder)


def _of_run(config: ConfigDict) -> Source:
    """The encoders of a finished run."""
    run, arm = config.extract.run, config.extract.arm
    restored = predict.restore(run)
    theirs = copy.deepcopy(restored.config).unlock()
    if arm not in theirs.arms:
        raise ValueError(
            f"extract.arm={arm!r}: the run in {run} has the arms "
            f"{', '.join(theirs.arms)}"
        )
    found = {}
    for part in ("image_encoder", "text_encoder"):
        # A text encoder that arms share lies under the first of them.
        for holder in dict.fromkeys((arm, *theirs.arms)):
            found[part] = _subtree(restored.variables, holder, part)
            if found[part] or part == "image_encoder" or not theirs.model.share_text:
                break
        if not found[part]:
            raise ValueError(
                f"the run in {run} has no {part} in its arm {arm!r}: features need one "
                "with model.arm.modalities=both"
            )
    theirs.arms = (arm,)
    names = {part: f"{part}, {arm}, of the run {run}" for part in found}
    return Source(
        theirs.lock(),
        restored.tokenizer,
        found["image_encoder"],
        found["text_encoder"],
        names,
    )


def _of_weights(
    config: ConfigDict, captions: Sequence[str], folder: pathlib.Path
) -> Source:
    """The encoders of the section `model`, with what `weights` names in them."""
    c = copy.deepcopy(config).unlock()
    arm = c.extract.arm
    c.arms = (arm,)
    arm_names(c)
    named = {"image_encoder": c.weights[f"image_{arm}"], "text_encoder": c.weights.text}
    random = [part for part, path in named.items() if path is None]
    if random and not c.extract.allow_random:
        raise ValueError(
            f"{' and '.join(random)} would stay random: name a finished run in "
            f"extract.run, or checkpoints in weights.image_{arm} and weights.text"
        )
    c = build.adopt(c.lock(), logs.say)
    if c.data.tokenizer is not None:
        tokenizer = text.load_tokenizer(c.data.tokenizer)
    else:
        tokenizer = text.train_wordpiece(captions, vocab_size=c.data.vocabulary)
    text.save_tokenizer(tokenizer, os.fspath(folder / "tokenizer"))
    found = build.load_weights(c, _init(c, tokenizer.get_vocab_size()))
    names = {
        part: f"{part}, " + ("RANDOM" if path is None else f"of {path}")
        for part, path in named.items()
    }
    return Source(
        c,
        tokenizer,
        _subtree(found, arm, "image_encoder"),
        _subtree(found, arm, "text_encoder"),
        names,
    )


def _init(config: ConfigDict, vocabulary: int) -> dict[str, Tree]:
    """Random variables of both encoders, in a run's places."""
    (name,) = config.arms
    arm = build.fusion_arms(config, vocabulary).arms[name]
    side, length = config.data.image_size, config.data.text_length

    def init(key: jax.Array) -> dict[str, Variables]:
        one, two = jax.random.split(key)
        images = jnp.zeros((2, side, side, 3), jnp.float32)
        ids = jnp.zeros((2, length), jnp.int32)
        return {
            "image_encoder": arm.image_encoder.init(one, images, train=False),
            "text_encoder": arm.text_encoder.init(two, ids, ids, train=False),
        }

    # Runs once: compiling it takes longer than anything that optimising could save.
    options = {"xla_backend_optimization_level": 0}
    made = jax.jit(init, compiler_options=options)(jax.random.key(config.seed))
    return {
        collection: {
            f"arms_{name}": {
                part: trees[collection]
                for part, trees in made.items()
                if collection in trees
            }
        }
        for collection in ("params", "batch_stats")
    }


def _subtree(variables: Variables, arm: str, part: str) -> dict[str, Tree]:
    """The collections of one encoder; none where it is not there."""
    found = {
        collection: tree.get(f"arms_{arm}", {}).get(part)
        for collection, tree in variables.items()
    }
    return {collection: tree for collection, tree in found.items() if tree}
