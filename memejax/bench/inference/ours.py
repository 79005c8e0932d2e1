"""Our side: the functions behind extraction, predictions and evaluation."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax import feeders, parallel, scoring, steps
from memejax.bench.inference.problem import Problem
from memejax.config import load_config
from memejax.data import images, pipeline, plans, text
from memejax.data.inputs import Item
from memejax.data.ocr import CaptionReader
from memejax.data.records import Meme
from memejax.extract.encoders import make_encoders
from memejax.extract.entities import no_entities
from memejax.extract.features import Options, columns_of
from memejax.extract.sources import Source, random_encoders
from memejax.models import distilbert
from memejax.predict.moderator import Moderator, stream
from memejax.predict.predictor import Predictor
from memejax.stages.parts.encoders import one_arm
from memejax.stages.parts.meme_scorer import make_probability
from memejax.stages.parts.models import fusion_arms, gains_by_shortening
from memejax.stages.parts.views import make_views

ARMS = {"resnet": "cnn", "vit": "vit"}


class Runner:
    """A case that is compiled.

    Attributes:
        parameters: number of parameters of its networks.
    """

    def __init__(self, given: Problem):
        """Make the networks with random parameters."""
        self._count = len(given.captions)
        make = _scorer if given.scores else _extractor
        self.parameters, self._run = make(given, _config(given))

    def run(self) -> float:
        """Go through all memes once; return memes per second."""
        began = time.perf_counter()
        found = self._run()
        seconds = time.perf_counter() - began
        if len(found) != self._count or not np.isfinite(found).all():
            raise ValueError(f"got {len(found)} results of {self._count} memes")
        return self._count / seconds


def _config(given: Problem) -> ConfigDict:
    """Return a config with the sizes of the case."""
    config, own = load_config("configs/cass_mm.py:full").unlock(), given.networks
    for kind, arm in ARMS.items():
        sizes = dict(getattr(own, kind))
        config.model.image[arm] = ConfigDict(
            dict(name=kind, normalization="imagenet", **sizes)
        )
    words = dict(vocab_size=distilbert.DistilBert.vocab_size) | dict(own.text)
    config.model.text = ConfigDict(dict(name="transformer", **words))
    config.model.arm.update(
        {k: v for k, v in own.arm.items() if k != "dropout"} | {"normalize": False}
    )
    config.model.dtype = own.dtype
    config.data.update(image_size=own.pixels, text_length=own.tokens)
    return config


def _extractor(given: Problem, config: ConfigDict) -> tuple[int, Callable[[], Any]]:
    """Return a function to the features of all memes, as an extraction has them."""
    config = one_arm(config, ARMS[given.image or "resnet"])
    variables = random_encoders(config, text.vocabulary_size(given.tokenizer))
    image, words = (
        {k: tree[part] for k, tree in variables.items() if part in tree}
        for part in ("image_encoder", "text_encoder")
    )
    source = Source(config, given.tokenizer, image, words, names={})
    encoders = make_encoders(source, mesh=parallel.mesh(1), batch=given.batch)
    used = [image, words] if given.paths else [words]
    if not given.paths:
        return _count(used), lambda: encoders.text(given.captions).pooled
    memes = _memes(given)

    def run() -> np.ndarray:
        found = [
            columns_of(
                memes[start : start + given.batch],
                encoders,
                finder=no_entities(),
                options=Options(),
            )
            for start in range(0, len(memes), given.batch)
        ]
        return np.concatenate([one["image"] for one in found])

    return _count(used), run


def _scorer(given: Problem, config: ConfigDict) -> tuple[int, Callable[[], Any]]:
    """Return a function to P(hateful) of all memes, as `predict` or a run has it."""
    vocabulary = text.vocabulary_size(given.tokenizer)
    arms = fusion_arms(config, vocabulary)
    views = make_views(config, lambda _, pictures: pictures, independent=True)
    apply_fn = functools.partial(arms.apply, method="classify")
    batch = {
        "image": np.zeros((2, given.networks.pixels, given.networks.pixels, 3), "u1"),
        **{
            name: np.ones((2, given.networks.tokens), np.int32)
            for name in ("input_ids", "attention_mask")
        },
    }
    init = functools.partial(arms.init, method="classify", train=False)
    variables = jax.jit(lambda key: init(key, views(None, batch, train=False)))(
        jax.random.key(0)
    )
    count = _count([variables])
    if given.case == "evaluate":
        return count, _evaluation(given, config, apply_fn, views, variables)
    predictor = Predictor(
        apply=jax.jit(make_probability(config, vocabulary)),
        variables=variables,
        tokenizer=given.tokenizer,
        size=config.data.image_size,
        resize=config.data.resize,
        max_pixels=images.MAX_PIXELS,
        length=config.data.text_length,
        modalities="both",
        threshold=None,
        batch=given.batch,
        shorten=gains_by_shortening(config, vocabulary),
    )
    moderator = Moderator(predictor, None, CaptionReader()).for_many()
    items = [Item(meme.id, meme.image, meme.text) for meme in _memes(given)]

    def run() -> np.ndarray:
        rows = [row for part in stream(moderator, items) for row in part]
        return np.array([row.raw_proba for row in rows], float)

    return count, run


def _evaluation(
    given: Problem, config: ConfigDict, apply_fn: Any, views: Any, variables: Any
) -> Callable[[], np.ndarray]:
    """Return a function that scores a split as the stage `evaluate` does."""
    mesh = parallel.mesh(1)
    predict = parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)
    tokens = text.encode(
        given.tokenizer, given.captions, length=config.data.text_length
    )
    source = pipeline.image_columns(
        given.paths,
        size=config.data.image_size,
        resize=config.data.resize,
        max_pixels=images.MAX_PIXELS,
        cache="none",
        folder="",
        threads=2,
    )
    columns: Any = {
        **source,
        "input_ids": tokens.input_ids,
        "attention_mask": tokens.attention_mask,
    }
    plan = plans.sequential(len(given.captions), batch=given.batch)
    feeder = feeders.StreamFeeder(columns, plan, mesh=mesh, threads=2, workers=0)
    return lambda: scoring.probabilities(predict, variables, feeder)["average"]


def _memes(given: Problem) -> list[Meme]:
    return [
        Meme(str(i), path, caption, -1, "", "", 0)
        for i, (path, caption) in enumerate(
            zip(given.paths, given.captions, strict=True)
        )
    ]


def _count(trees: Any) -> int:
    """Count parameters, without the statistics of BatchNorms."""
    params = [tree["params"] for tree in trees]
    return sum(leaf.size for leaf in jax.tree.leaves(params))
