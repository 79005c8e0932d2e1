"""Scores of a model over a split, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
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
    pieces: list[Mapping[str, jax.Array]] = []
    for _, batch in feeder.chunks(0):
        pieces.append(predict(variables, batch))
        if len(pieces) > 1:
            # One batch late: the device works on while this one is fetched.
            pieces[-2] = jax.device_get(pieces[-2])
    real = feeder.plan.weight.reshape(-1) > 0
    logits = {
        arm: np.concatenate([np.asarray(p[arm], np.float64) for p in pieces])[real]
        for arm in pieces[0]
    }
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
