"""Uncertainty of a model about the training memes, for their curriculum."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import curriculum, datasets, parallel, scoring, steps
from memejax.metrics import AVERAGE
from memejax.stages.parts import training
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.views import make_views, random_views
from memejax.steps.views import Views

Tree = Any
# Index of a seed's PRNG key for dropout passes.
_PASSES = 9


def make_uncertainty(
    config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh
) -> Callable[[Tree, int], np.ndarray]:
    """Make `(variables, step) -> uncertainty float32 [n]` of the training memes.

    Scores of disagreement (`curriculum.DISAGREEMENT`) compare the arms, or, if it is
    not 0, `curriculum.passes` passes of each arm with dropout before its classifier.
    All other scores are of the arms' mean.

    Args:
        config: the run's config; uses its section `curriculum`.
        data: memes.
        seed: seeds the dropout of the passes, together with the step.
        mesh: the devices.

    Raises:
        ValueError: see `curriculum.committee_uncertainty`.
    """
    c, train = config.curriculum, data.splits["train"]
    arms = fusion_arms(config, data.vocabulary, **training.device_options(config, mesh))
    views = make_views(config, random_views(config.augment), independent=True)
    feeder = training.scoring(config, mesh, batch=config.finetune.batch)(train)
    apply_fn = functools.partial(arms.apply, method="classify")
    predict = parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)
    # Raises errors now that would otherwise wait for the first refresh.
    members = len(config.arms) * max(c.passes, 1)
    curriculum.committee_uncertainty(c.score, np.full((members, 1), 0.5), np.array([0]))
    passes = None
    if c.passes and c.score in curriculum.DISAGREEMENT:
        passes = parallel.jit_predict(
            make_passes(arms, views=views, passes=c.passes), mesh
        )

    def uncertainty(variables: Tree, step: int) -> np.ndarray:
        if passes is None:
            proba = scoring.probabilities(predict, variables, feeder)
            members = np.stack([p for arm, p in proba.items() if arm != AVERAGE])
        else:
            key = jax.random.fold_in(jax.random.key(seed), _PASSES)
            given = (variables, jax.random.fold_in(key, step))
            members = scoring.score_dataset(passes, given, feeder).T
        return curriculum.committee_uncertainty(c.score, members, train.labels)

    return uncertainty


def make_passes(
    arms: Any, *, views: Callable[..., Views], passes: int
) -> Callable[..., jax.Array]:
    """Make `((variables, key), batch) -> P(hateful) [b, arms * passes]`.

    Features are computed once; each pass draws one mask for the dropout before the
    classifier, which all memes share (`curriculum.mc_dropout`).

    Args:
        arms: a `models.fusion.Arms`.
        views: see `steps.make_views`.
        passes: of each arm, at least 1.
    """

    def proba(given: tuple[Tree, jax.Array], batch: Mapping[str, jax.Array]):
        variables, key = given
        features = arms.apply(
            variables, views(None, batch, train=False), train=False, method="embeddings"
        )

        def head(features: Tree, key: jax.Array) -> jax.Array:
            logits = arms.apply(
                variables, features, rngs={"dropout": key}, method="mc_logits"
            )
            # Two classes: the log odds of "hateful" against 0.
            hateful = jnp.stack(list(logits.values()), axis=-1).reshape(-1)
            return jnp.stack([jnp.zeros_like(hateful), hateful], axis=-1)

        log_probs = curriculum.mc_dropout(
            lambda features: features, head, features, key=key, passes=passes
        )
        size = batch["weight"].shape[0]
        columns = jnp.exp(log_probs[:, :, 1]).reshape(passes, size, -1)
        return columns.transpose(1, 0, 2).reshape(size, -1)

    return proba
