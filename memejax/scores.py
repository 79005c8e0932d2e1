"""Scores of a model over a split, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from memejax import curriculum, feeders, metrics

Tree = Any
# Name -> uncertainty [n], large where hard, of the arms' P(class) [arms, n, 2] and the
# labels. The arms are a committee: those scores that take several passes ask whether
# the arms disagree, the others look at their average.
UNCERTAINTIES: dict[str, Callable[..., jax.Array]] = {
    "aadt": lambda p, _: curriculum.aadt(p.mean(0)),
    "aadt_squared": lambda p, _: curriculum.aadt(p.mean(0), squared=True),
    "entropy": lambda p, _: curriculum.entropy(p.mean(0)),
    "least_confidence": lambda p, _: curriculum.least_confidence(p.mean(0)),
    "margin": lambda p, _: curriculum.margin(p.mean(0)),
    "loss": lambda p, labels: curriculum.cross_entropy(jnp.log(p.mean(0)), labels),
    "bald": lambda p, _: curriculum.bald(p),
    "variance": lambda p, _: curriculum.predictive_variance(p),
    "votes": lambda p, _: curriculum.vote_entropy(p),
}
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
    arms: list[str] = []

    def logits(variables: Tree, batch: Mapping[str, jax.Array]) -> jax.Array:
        outputs = predict(variables, batch)
        arms[:] = outputs
        return jnp.stack(list(outputs.values()), axis=-1)

    columns = score_dataset(logits, variables, feeder).T.astype(np.float64)
    proba = {
        arm: special.expit(column) for arm, column in zip(arms, columns, strict=True)
    }
    return proba | {AVERAGE: np.mean(list(proba.values()), axis=0)}


def score_dataset(
    score: Callable[[Tree, Mapping[str, jax.Array]], jax.Array],
    variables: Tree,
    feeder: feeders.Feeder,
) -> np.ndarray:
    """A score of every example of a split, a batch at a time, on all devices.

    Args:
      score: `(variables, batch) -> values [b, ...]`, compiled: of a batch as it is,
        without augmentation. `curriculum` has scores of probabilities.
      variables: params and batch_stats.
      feeder: one pass over the split, a batch a chunk; weight 0 marks padding.

    Returns:
      [n, ...], in the order of the source.
    """
    collected, waiting = metrics.Scores.empty(), metrics.Scores.empty()
    for step, (_, batch) in enumerate(feeder.chunks(0)):
        values = score(variables, batch)
        # The plan's row, not the batch's, of which a process has a part only.
        row = feeder.plan.row(step)
        # One batch late: the device works on this one while the last is fetched.
        collected = collected.merge(waiting)
        waiting = metrics.Scores.from_model_output(
            logits=values, weight=row["weight"], index=row["index"]
        )
    return metrics.by_index(collected.merge(waiting).compute())["logits"]


def uncertainty(
    score: str, proba: Mapping[str, np.ndarray], labels: np.ndarray
) -> np.ndarray:
    """How uncertain the arms are of each example.

    Args:
      score: one of `UNCERTAINTIES`.
      proba: arm -> P(hateful) [n], with their average.
      labels: int [n], 0 or 1.

    Returns:
      float32 [n], large where hard.

    Raises:
      ValueError: for an unknown score, or one of several arms where there is one.
    """
    if score not in UNCERTAINTIES:
        raise ValueError(
            f"unknown score {score!r}: choose one of {sorted(UNCERTAINTIES)}"
        )
    arms = [values for arm, values in proba.items() if arm != AVERAGE]
    if len(arms) < 2 and score in ("bald", "variance", "votes"):
        raise ValueError(f"{score} asks whether arms disagree: it needs two of them")
    # Away from 0 and 1, whose logarithms no sampler can use.
    positive = np.clip(np.stack(arms), 1e-7, 1 - 1e-7)
    probs_mnc = jnp.asarray(np.stack([1 - positive, positive], -1), jnp.float32)
    return np.asarray(UNCERTAINTIES[score](probs_mnc, jnp.asarray(labels)))


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
