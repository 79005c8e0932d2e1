"""Encoders of pictures and captions, from a finished run or from checkpoints."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from memejax import logs
from memejax.data import text
from memejax.frozen import Frozen
from memejax.parallel import xla
from memejax.restored import encoders_of, restore
from memejax.stages.parts.encoders import (
    arm_of_run,
    load_encoders,
    named_checkpoints,
    one_arm,
)
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.pretrained import adopt
from memejax.weights.checkpoint import read_similarity

Tree = Any
Variables = Mapping[str, Tree]


class Source(NamedTuple):
    """Encoders and their config.

    Attributes:
        config: with the sections `model` and `data` of the encoders, and one arm.
        tokenizer: of the captions.
        image: variables of the image encoder.
        text: variables of the text encoder.
        names: readable names of both.
        similarity: of a CLIP or SigLIP, factor and offset of the cosine of a picture
            and a caption in their logit; None of others.
    """

    config: ConfigDict
    tokenizer: Tokenizer
    image: Variables
    text: Variables
    names: Mapping[str, str]
    similarity: tuple[float, float] | None = None

    def frozen(self) -> Frozen:
        """Return what has to be kept to score new memes."""
        variables = {"image_encoder": dict(self.image), "text_encoder": dict(self.text)}
        return Frozen(self.config, self.tokenizer, variables, self.names)


def find_source(
    config: ConfigDict, *, captions: Sequence[str], folder: pathlib.Path
) -> Source:
    """Load the encoders of a config, from its run or from its checkpoints.

    Args:
        config: an experiment's; `extract.run` sets the run, otherwise `weights` the
            checkpoints.
        captions: of the training split, to train a tokenizer if none is named.
        folder: of that tokenizer.

    Raises:
        ValueError: if a run or checkpoint is missing or does not fit, or an encoder
            would stay random without `extract.allow_random`.
    """
    if config.extract.run is not None:
        return _of_run(config)
    return _of_weights(config, captions, folder)


def _of_run(config: ConfigDict) -> Source:
    """Load the encoders of a finished run."""
    run, arm = config.extract.run, config.extract.arm
    restored = restore(run, arm=arm)
    arm_config = arm_of_run(config, restored.config)
    found = encoders_of(restored, arm)
    names = {part: f"{part}, {arm}, of the run {run}" for part in found}
    return Source(
        arm_config,
        restored.tokenizer,
        found["image_encoder"],
        found["text_encoder"],
        names,
    )


def _of_weights(
    config: ConfigDict, captions: Sequence[str], folder: pathlib.Path
) -> Source:
    """Load the encoders of the section `model` with the checkpoints of `weights`."""
    c = one_arm(config, config.extract.arm)
    named = named_checkpoints(c)
    c = adopt(c, logs.say)
    if c.data.tokenizer is not None:
        tokenizer = text.load_tokenizer(c.data.tokenizer)
    else:
        tokenizer = text.train_wordpiece(captions, vocab_size=c.data.vocabulary)
    text.save_tokenizer(tokenizer, os.fspath(folder / "tokenizer"))
    found = load_encoders(c, random_encoders(c, text.vocabulary_size(tokenizer)))
    image, captioned = (
        {k: tree[part] for k, tree in found.items() if part in tree} for part in named
    )
    names = {
        part: f"{part}, " + ("RANDOM" if path is None else f"of {path}")
        for part, path in named.items()
    }
    path = named["image_encoder"]
    similarity = None if path is None else read_similarity(path)
    return Source(c, tokenizer, image, captioned, names, similarity)


def random_encoders(config: ConfigDict, vocabulary: int) -> dict[str, Tree]:
    """Initialise both encoders of a config with one arm.

    Returns:
        collection -> "image_encoder" and "text_encoder" -> variables.
    """
    (arm,) = fusion_arms(config, vocabulary).arms.values()
    side, length = config.data.image_size, config.data.text_length

    def init(key: jax.Array) -> dict[str, Variables]:
        one, two = jax.random.split(key)
        images = jnp.zeros((2, side, side, 3), jnp.float32)
        ids = jnp.zeros((2, length), jnp.int32)
        return {
            "image_encoder": arm.image_encoder.init(one, images, train=False),
            "text_encoder": arm.text_encoder.init(two, ids, ids, train=False),
        }

    # Runs once: compilation takes longer than optimisation could save.
    made = jax.jit(init, compiler_options=xla.RUN_ONCE)(jax.random.key(config.seed))
    return {
        collection: {
            part: trees[collection]
            for part, trees in made.items()
            if collection in trees
        }
        for collection in ("params", "batch_stats")
    }
