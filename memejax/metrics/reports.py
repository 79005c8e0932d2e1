"""Metrics of binary classifiers, with intervals; on the host.

Labels are 0 or 1 (leave out unknown ones, -1, before), scores are larger for 1, and an
example is predicted positive if its probability is *above* the threshold, which at 0.5
is the argmax of (1 - p, p). Every report is a dict of plain numbers.
"""

# No `from __future__ import annotations` here: clu's metrics read annotations.
import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import clu.metrics
import numpy as np
from numpy.typing import ArrayLike

from memejax import atomic
from memejax.metrics import AVERAGE

# Bootstrap replicates are made in blocks of about this many draws (16 MB per copy).
_BLOCK = 2_000_000

# Outputs collected in an evaluation: `Scores.from_model_output(logits=, weight=,
# index=)` for each batch, merged on the host; `compute()` goes to `by_index`.
Scores = clu.metrics.CollectingMetric.from_outputs(("logits", "weight", "index"))


def by_index(scores: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Return collected scores with each example once, in the order of the source.

    Args:
        scores: arrays `[n, ...]`, among them `index` and `weight`; rows with weight 0
            are padding.

    Returns:
        The same names without padding, sorted by index. Only the first row of a
        repeated index is kept (a last batch may be filled up from the start).
    """
    arrays = {name: np.asarray(value) for name, value in scores.items()}
    real = np.flatnonzero(arrays["weight"] > 0)
    _, first = np.unique(arrays["index"][real], return_index=True)
    return {name: value[real[first]] for name, value in arrays.items()}


def auroc(
    scores: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Area under the ROC curve, from ranks.

    `P(s+ > s-) + P(s+ = s-) / 2` for a positive and a negative example drawn by
    weight.

    Args:
        scores: `[n]`, any real numbers, infinite ones too.
        labels: `[n]`, 0 or 1.
        weights: `[n]`, at least 0 (all 1 if None).

    Returns:
        A number in [0, 1]; NaN if only one class has weight.

    Raises:
        ValueError: if a score is NaN, a label is not 0 or 1, or the shapes differ.
    """
    scores, labels = check_scores(scores, labels)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    if weights.shape != scores.shape or not (weights >= 0).all():
        raise ValueError(
            f"got weights of shape {weights.shape}, expected {scores.shape} numbers "
            "that are at least 0"
        )
    _, group = np.unique(scores, return_inverse=True)
    negative = np.bincount(group, weights * (1 - labels))
    return float(_area(negative, np.bincount(group, weights * labels)))


def best_threshold(proba: ArrayLike, labels: ArrayLike) -> float:
    """Threshold with the highest accuracy; choose it on validation data.

    Candidates are the midpoints between neighbouring probabilities, with 0 and 1 as
    the outer neighbours (-1, to predict only positives, if the lowest is 0). Ties go to
    the candidate nearest to 0.5, then to the lower one.

    Args:
        proba: probabilities of the label 1, `[n]`, n at least 1.
        labels: `[n]`, 0 or 1.

    Returns:
        The threshold: positive means `proba > threshold`.

    Raises:
        ValueError: if a probability is outside [0, 1] or NaN, a label is not 0 or 1,
            the shapes differ, or there are no examples.
    """
    proba, labels = check_scores(proba, labels, probability=True)
    if not len(proba):
        raise ValueError("got no examples, expected at least one")
    values, group = np.unique(proba, return_inverse=True)
    lower = np.concatenate([[0.0], values])
    upper = np.concatenate([values, [1.0]])
    candidates = (lower + upper) / 2
    # The midpoint of two neighbouring floats may round to the upper one.
    candidates = np.where(candidates >= upper, lower, candidates)
    candidates[0] = candidates[0] if values[0] > 0 else -1.0
    candidates[-1] = candidates[-1] if values[-1] < 1 else 1.0
    # With candidate k, the groups k, k + 1, ... are predicted positive.
    gain = np.bincount(group, weights=1.0 - 2.0 * labels, minlength=len(values))
    correct = labels.sum() + np.concatenate([[0.0], np.cumsum(gain)])
    best = candidates[correct == correct.max()]
    return float(min(best, key=lambda value: (abs(value - 0.5), value)))


def binary_report(
    proba: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: float = 0.5,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of one set of binary predictions.

    The interval of the AUROC is the 2.5 and 97.5 percentile over resamples of the
    examples with replacement (replicate r draws `rng.integers(0, n, n)`); resamples
    with one class are left out.

    Args:
        proba: probabilities of the label 1, `[n]`, n at least 1.
        labels: `[n]`, 0 or 1.
        threshold: threshold of f1, precision, recall and confusion, chosen elsewhere.
        bootstrap: number of resamples; the interval is NaN if 0.
        seed: seed of the resamples.

    Returns:
        n, positives, auroc, auroc_low, auroc_high, average_precision, accuracy (at
        0.5), threshold, threshold_accuracy, f1, precision, recall and confusion
        (`{"tn", "fp", "fn", "tp"}`), as floats and ints. AUROC, its interval and
        average precision are NaN with one class only; f1, precision and recall are 0
        instead of 0 / 0.

    Raises:
        ValueError: as in `best_threshold`.
    """
    # Takes a second to import, which a prediction need not wait for.
    from sklearn.metrics import average_precision_score

    proba, labels = check_scores(proba, labels, probability=True)
    if not len(proba):
        raise ValueError("got no examples, expected at least one")
    n, positives = len(labels), int(labels.sum())
    both = 0 < positives < n
    area, low, high = auroc(proba, labels), math.nan, math.nan
    if both and bootstrap:
        areas = _bootstrap_aurocs(proba, labels, bootstrap, seed)
        # A few resamples of a few examples may all have one class.
        areas = areas[~np.isnan(areas)]
        if len(areas):
            low, high = np.percentile(areas, [2.5, 97.5])
    return {
        "n": n,
        "positives": positives,
        "auroc": area,
        "auroc_low": float(low),
        "auroc_high": float(high),
        "average_precision": (
            float(average_precision_score(labels, proba)) if both else math.nan
        ),
        "accuracy": float(((proba > 0.5) == (labels == 1)).mean()),
        "threshold": float(threshold),
        **_at_threshold(proba > threshold, labels == 1),
    }


def constant_report(labels: ArrayLike) -> dict[str, Any]:
    """Report of the constant predictor, whose probability is the share of positives.

    Its AUROC is 0.5 and its accuracy the share of the majority class: the baseline
    that a model must beat.

    Args:
        labels: `[n]`, 0 or 1, n at least 1.

    Returns:
        The entries of `binary_report`, with (0.5, 0.5) as the interval of the AUROC.

    Raises:
        ValueError: if a label is not 0 or 1 or there are no examples.
    """
    _, labels = check_scores(np.zeros(np.shape(labels)), labels)
    share = labels.mean() if len(labels) else 0.0
    report = binary_report(np.full(len(labels), share), labels, bootstrap=0)
    return report | {"auroc": 0.5, "auroc_low": 0.5, "auroc_high": 0.5}


def reports_by_arm(
    proba: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    thresholds: Mapping[str, float],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Reports of every arm and of the constant predictor on one split.

    Args:
        proba: arm -> P(hateful) [n].
        labels: int [n], 0 or 1.
        thresholds: arm -> threshold chosen on the dev split.
        seed: seed of the bootstrap.
    """
    rows = {
        arm: binary_report(values, labels, threshold=thresholds[arm], seed=seed)
        for arm, values in proba.items()
    }
    return rows | {"constant": constant_report(labels)}


def shown_arms(arms: Iterable[str]) -> list[str]:
    """Return the arms worth printing: "average" is not, beside the one arm it equals.

    >>> shown_arms(["cnn", "vit", "average"]), shown_arms(["gcn", "average"])
    (['cnn', 'vit', 'average'], ['gcn'])
    """
    names = list(arms)
    same = AVERAGE in names and len(names) == 2
    return [name for name in names if not (same and name == AVERAGE)]


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; NaN for one value) of `[n]` values."""
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"got values of shape {values.shape}, expected [n], n >= 1")
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return float(values.mean()), spread


def write_predictions(
    path: str | os.PathLike, ids: Sequence[Any], *, proba: ArrayLike
) -> None:
    """Write a submission to the challenge, a CSV file with columns `id,proba,label`.

    The label is the predicted one, the argmax: 1 if proba > 0.5.

    Args:
        path: the file; its folder must exist.
        ids: one per example, written with `str`.
        proba: probabilities of the label 1, `[n]`; read back bit for bit.

    Raises:
        ValueError: if a probability is outside [0, 1] or NaN, or lengths differ.
    """
    proba = np.asarray(proba, float)
    proba, predicted = check_scores(proba, proba > 0.5, probability=True)
    if len(ids) != len(proba):
        raise ValueError(
            f"got {len(ids)} ids and {len(proba)} probabilities, expected equally many"
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "proba", "label"])
    for row in zip(ids, proba.tolist(), predicted.tolist(), strict=True):
        writer.writerow([str(row[0]), repr(row[1]), row[2]])
    atomic.write_text(path, text.getvalue())


def read_predictions(
    path: str | os.PathLike,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read the file that `write_predictions` writes.

    Returns:
        `(ids, proba, labels)`: n strings, float64 `[n]`, int64 `[n]` (predicted).

    Raises:
        ValueError: if the columns are not `id,proba,label`.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != ["id", "proba", "label"]:
            raise ValueError(f"{path}: got columns {header}, expected id,proba,label")
        rows = list(reader)
    ids = [row[0] for row in rows]
    proba = np.array([float(row[1]) for row in rows], float)
    return ids, proba, np.array([int(row[2]) for row in rows], np.int64)


def check_scores(
    scores: ArrayLike, labels: ArrayLike, *, probability: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as `[n]` arrays, float64 and int64, or raise ValueError."""
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(
            f"got scores of shape {scores.shape} and labels of shape {labels.shape}, "
            "expected [n] for both"
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"got {np.isnan(scores).sum()} scores that are NaN, expected 0"
        )
    if probability and not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"got probabilities from {scores.min()} to {scores.max()}, expected [0, 1]"
        )
    other = set(np.unique(labels).tolist()) - {0, 1}
    if other:
        raise ValueError(f"got labels {sorted(other)}, expected 0 or 1 only")
    return scores, labels.astype(np.int64)


def _at_threshold(predicted: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Metrics from the confusion matrix; 0 if a share is 0 / 0."""
    tp, fp = int((predicted & true).sum()), int((predicted & ~true).sum())
    fn, tn = int((~predicted & true).sum()), int((~predicted & ~true).sum())
    return {
        "threshold_accuracy": (tp + tn) / len(true),
        "f1": 2 * tp / max(2 * tp + fp + fn, 1),
        "precision": tp / max(tp + fp, 1),
        "recall": tp / max(tp + fn, 1),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
    }


def _area(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """AUROC `[...]` from the weight of each class at each score, `[..., scores]`."""
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    # One class only: NaN without the warning of 0 / 0.
    return (positive * below).sum(axis=-1) / np.where(pairs > 0, pairs, np.nan)


def _bootstrap_aurocs(
    proba: np.ndarray, labels: np.ndarray, replicates: int, seed: int
) -> np.ndarray:
    """AUROCs `[replicates]` of resamples, each a count at (score, label)."""
    rng, n = np.random.default_rng(seed), len(proba)
    values, group = np.unique(proba, return_inverse=True)
    cell, cells = 2 * group + labels, 2 * len(values)
    block = max(_BLOCK // n, 1)
    areas = []
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = cell[rng.integers(0, n, (rows, n))] + cells * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * cells)
        counts = counts.reshape(rows, len(values), 2)
        areas.append(_area(counts[..., 0], counts[..., 1]))
    return np.concatenate(areas)
