"""Scores of a model over a split, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from memejax import feeders, metrics

Tree = Any
# The mean of the arms' probabilities, reported beside each arm.
AVERAGE = "average"


def probabilities(
    predict: Callable[..., Mapping[str, jax.Array]],
    variables: Tree,
    feeder: feeders.Feeder,
) -> dict[str, np.ndarray]:
    """P(hateful) of every example of a split, an arm and their average.

    Args:
      predict: `(variables, batch) -> {arm: logits [b]}`.
      variables: params and batch_stats.
      feeder: one pass over the split in order; weight 0 marks padding.

    Returns:
      Arm -> float64 [n], in the split's order.
    """
    collected, waiting, arms = metrics.Scores.empty(), metrics.Scores.empty(), []
    for _, batch in feeder.chunks(0):
        outputs = predict(variables, batch)
        arms = list(outputs)
        # One batch late: the device works on this one while the last is fetched.
        collected = collected.merge(waiting)
        waiting = metrics.Scores.from_model_output(
            logits=jnp.stack(list(outputs.values()), axis=-1),
            weight=batch["weight"],
            index=batch["index"],
        )
    scores = metrics.by_index(collected.merge(waiting).compute())
    logits = dict(zip(arms, scores["logits"].T.astype(np.float64), strict=True))
    proba = {arm: special.expit(values) for arm, values in logits.items()}
    return proba | {AVERAGE: np.mean(list(proba.values()), axis=0)}


def reports(
    proba: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Every arm's figures on one split, and the constant predictor's row.

    Args:
      proba: arm -> P(hateful) [n].
      labels: int [n], 0 or 1.
      thresholds: arm -> threshold chosen on the dev split.
      seed: of the bootstrap.
    """
    rows = {
        arm: metrics.binary_report(values, labels, threshold=thresholds[arm], seed=seed)
        for arm, values in proba.items()
    }
    return rows | {"constant": metrics.constant_report(labels)}
