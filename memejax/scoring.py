"""Scores of a model over a split, one batch at a time on all devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from memejax import feeders, metrics
from memejax.errors import NotFiniteError
from memejax.metrics import AVERAGE

Tree = Any


def probabilities(
    predict: Callable[..., Mapping[str, jax.Array]],
    variables: Tree,
    feeder: feeders.Feeder,
) -> dict[str, np.ndarray]:
    """Compute P(hateful) for every example of a split, per arm and averaged.

    Args:
        predict: `(variables, batch) -> {arm: logits [b]}`.
        variables: params and batch_stats.
        feeder: one pass over the split in order; weight 0 marks padding.

    Returns:
        Arm -> float64 [n], in the split's order.

    Raises:
        NotFiniteError: if a score is NaN.
    """
    arms: list[str] = []

    def logits(variables: Tree, batch: Mapping[str, jax.Array]) -> jax.Array:
        outputs = predict(variables, batch)
        arms[:] = outputs
        return jnp.stack(list(outputs.values()), axis=-1)

    columns = score_dataset(logits, variables, feeder).T.astype(np.float64)
    lost = np.isnan(columns.sum(axis=0))
    if lost.any():
        raise NotFiniteError(
            f"the network gives {int(lost.sum())} of {len(lost)} memes a score that is "
            "not a number: its parameters have diverged. A lower learning rate, a "
            "longer warm-up or clipping (optimizer.groups.*.clip) are what helps most"
        )
    proba = {
        arm: special.expit(column) for arm, column in zip(arms, columns, strict=True)
    }
    return proba | {AVERAGE: np.mean(list(proba.values()), axis=0)}


def score_dataset(
    score: Callable[[Tree, Mapping[str, jax.Array]], jax.Array],
    variables: Tree,
    feeder: feeders.Feeder,
) -> np.ndarray:
    """Compute a score for every example of a split, one batch at a time.

    Args:
        score: `(variables, batch) -> values [b, ...]`, compiled, for a batch without
            augmentation. `curriculum` has scores of probabilities.
        variables: params and batch_stats.
        feeder: one pass over the split, one batch per chunk; weight 0 marks padding.

    Returns:
        [n, ...], in the source's order.
    """
    collected, waiting = metrics.Scores.empty(), metrics.Scores.empty()
    for step, (_, batch) in enumerate(feeder.chunks(0)):
        values = score(variables, batch)
        # The plan's row, not the batch's: a process has only a part of the batch.
        row = feeder.plan.row(step)
        # One batch late: the device computes this one while the last is fetched.
        collected = collected.merge(waiting)
        waiting = metrics.Scores.from_model_output(
            logits=values, weight=row["weight"], index=row["index"]
        )
    return metrics.by_index(collected.merge(waiting).compute())["logits"]
