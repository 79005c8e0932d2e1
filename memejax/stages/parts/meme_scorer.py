"""P(hateful) of pictures and tokens, as a pure function of a run's variables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from memejax import steps
from memejax.metrics import AVERAGE
from memejax.stages.parts.heads.kinds import HEADS
from memejax.stages.parts.heads.scores import make_scores, score_names
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.views import make_views

Tree = Any


def make_probability(
    config: ConfigDict, vocabulary: int, *, arm: str = AVERAGE
) -> Callable[..., jax.Array]:
    """Make `(variables, image, input_ids, attention_mask) -> P(hateful) [b]`, pure.

        sigmoid(y_arm), or its mean over the arms

    Args:
        config: the run's config; of a head, that of its `restored.Restored`.
        vocabulary: number of tokens.
        arm: one of the run's arms, or of a head's scores, or "average".

    Raises:
        ValueError: for an unknown arm.
    """
    known = score_names(config.heads) if "heads" in config else tuple(config.arms)
    if arm not in (AVERAGE, *known):
        expected = ", ".join((AVERAGE, *known))
        raise ValueError(f"unknown arm {arm!r}: expected one of {expected}")
    if "heads" in config:
        logits_fn = _by_head(config, vocabulary)
    else:
        arms = fusion_arms(config, vocabulary)
        logits_fn = steps.make_predict(
            functools.partial(arms.apply, method="classify"),
            views=make_views(config, _no_augmentation, independent=True),
        )

    def probability(
        variables: Mapping[str, Tree],
        image: jax.Array,
        input_ids: jax.Array,
        attention_mask: jax.Array,
    ) -> jax.Array:
        batch = dict(image=image, input_ids=input_ids, attention_mask=attention_mask)
        proba = {
            name: jax.nn.sigmoid(logits.astype(jnp.float32))
            for name, logits in logits_fn(variables, batch).items()
        }
        return jnp.stack(list(proba.values())).mean(0) if arm == AVERAGE else proba[arm]

    return probability


def _by_head(config: ConfigDict, vocabulary: int) -> Callable[..., Any]:
    """Make `(variables, batch) -> {score: logits [b]}` of a head behind its encoders.

    Variables are those of `restored.Restored`.
    """
    # Here, as the extraction uses other parts of the stages.
    from memejax.extract.encoders import encoder_functions

    image_fn, text_fn = encoder_functions(config, vocabulary)
    scores, kind = make_scores(config.heads), HEADS[config.heads.head]
    column = "shared" if kind.image == "image_shared" else "pooled"

    def logits(variables: Mapping[str, Tree], batch: Mapping[str, jax.Array]):
        encoders = variables["encoders"]
        columns = {
            "image": image_fn(encoders["image_encoder"], batch)[column],
            "text": text_fn(encoders["text_encoder"], batch)["pooled"],
        }
        return scores(variables["head"], columns)

    return logits


def _no_augmentation(_: jax.Array, pictures: jax.Array) -> jax.Array:
    """Return the pictures unchanged."""
    return pictures
