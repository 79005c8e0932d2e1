"""Calibration: from a model's probabilities to those that hold on memes like these.

`choose` fits every kind on labelled examples that the model was not trained on, and
takes the one with the lowest cross-validated log loss. `calibration_report` measures
what is gained. Labels are 0 or 1, probabilities those of the label 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from memejax.metrics.reports import check_scores

# Probabilities are kept so far from 0 and 1, whose logits and log losses are infinite.
EPS = 1e-12
# Isotonic regression overfits smaller samples (scikit-learn's guide to calibration).
ISOTONIC_FROM = 1000
KINDS = ("none", "temperature", "platt", "isotonic")
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A monotone map from probability to probability.

    Attributes:
        kind: "none", "temperature" (`sigmoid(z / T)` of the logit z), "platt"
            (`sigmoid(slope * z + intercept)`) or "isotonic" (a step function,
            linear between its knots).
        slope: of the logit; 1 / T of "temperature".
        intercept: of the logit.
        knots: probabilities before and after "isotonic", two tuples of one length.
    """

    kind: str = "none"
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    def apply(self, proba: ArrayLike) -> np.ndarray:
        """Calibrate probabilities of any shape, float64 of the same shape."""
        proba = np.asarray(proba, np.float64)
        if self.kind == "none":
            return proba
        if self.kind == "isotonic":
            return np.interp(proba, *self.knots)
        return special.expit(self.slope * _logit(proba) + self.intercept)

    def as_json(self) -> dict[str, Any]:
        """Return the map as plain numbers, for `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Calibration:
        """Return the map that `as_json` described."""
        before, after = saved["knots"]
        return cls(**{**saved, "knots": (tuple(before), tuple(after))})


def fit(proba: ArrayLike, labels: ArrayLike, *, kind: str) -> Calibration:
    """Fit one kind of calibration by scikit-learn.

    Platt's targets are (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), as in his paper.

    Args:
        proba: `[n]`, in [0, 1].
        labels: `[n]`, 0 or 1, both present.
        kind: one of `KINDS`.

    Raises:
        ValueError: for an unknown kind, one label alone, or what is no probability.

    References:
        Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599. Platt,
        Probabilistic Outputs for Support Vector Machines (1999). Zadrozny and Elkan,
        Transforming Classifier Scores into Accurate Multiclass Probability Estimates,
        KDD 2002.
    """
    proba, labels = _both_labels(proba, labels)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: choose one of {list(KINDS)}")
    if kind == "none":
        return Calibration()
    method = {"platt": "sigmoid"}.get(kind, kind)
    # Isotonic regression depends on the order alone, and keeps its knots readable.
    scores = proba if kind == "isotonic" else _logit(proba)
    # One "fold" of everything: there is nothing to train but the calibrator.
    everything = np.arange(len(labels))
    # scikit-learn takes a second to import, which applying a calibration need not wait.
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    from memejax.metrics.fixed_scores import FixedScores

    fitted = CalibratedClassifierCV(
        FrozenEstimator(FixedScores()), method=method, cv=[(everything, everything)]
    )
    fitted.fit(scores[:, None], labels)
    (inner,) = fitted.calibrated_classifiers_
    (found,) = inner.calibrators
    if kind == "temperature":
        # scikit-learn's logits of the two classes are -z and z, 2 z apart.
        return Calibration(kind, slope=2 * float(found.beta_))
    if kind == "platt":
        return Calibration(kind, slope=-float(found.a_), intercept=-float(found.b_))
    before, after = found.X_thresholds_, found.y_thresholds_
    # One block of labels of a kind is no certainty.
    after = np.clip(after, 1 / (len(labels) + 2), 1 - 1 / (len(labels) + 2))
    return Calibration(kind, knots=(tuple(before.tolist()), tuple(after.tolist())))


def choose(
    proba: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> tuple[Calibration, dict[str, float]]:
    """Fit the kind with the lowest cross-validated log loss to all examples.

    Folds keep a group together; "isotonic" takes part from 1,000 examples on.

    Args:
        proba: `[n]`, in [0, 1], of examples that the model was not trained on.
        labels: `[n]`, 0 or 1.
        groups: `[n]`, such as the number of each caption; None: each example is its
            own.
        seed: of the division into folds.

    Returns:
        The calibration, and kind -> cross-validated log loss of each.

    Raises:
        ValueError: as for `fit`; with fewer than 5 groups of either label no kind can
            be compared.
    """
    proba, labels = _both_labels(proba, labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    least = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    if least < FOLDS:
        raise ValueError(
            f"got {least} captions of one label to calibrate on, expected at least "
            f"{FOLDS} of each"
        )
    kinds = KINDS if len(labels) >= ISOTONIC_FROM else KINDS[:-1]
    found = {kind: np.zeros(len(labels)) for kind in kinds}
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, fold in folds.split(proba, labels, groups):
        for kind in kinds:
            fitted = fit(proba[rest], labels[rest], kind=kind)
            found[kind][fold] = fitted.apply(proba[fold])
    losses = {kind: log_loss(values, labels) for kind, values in found.items()}
    # The simplest of equals.
    best = min(kinds, key=lambda kind: losses[kind])
    return fit(proba, labels, kind=best), losses


def log_loss(proba: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log of the true label's probability, which is at least 1e-12."""
    proba, labels = check_scores(proba, labels, probability=True)
    p = np.clip(proba, EPS, 1 - EPS)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))


def reliability(
    proba: ArrayLike, labels: ArrayLike, *, bins: int = 10
) -> list[dict[str, float]]:
    """Compare mean probability and share of positives in bins of equal numbers.

    Args:
        proba: `[n]`, in [0, 1].
        labels: `[n]`, 0 or 1.
        bins: number of bins; fewer if there are fewer examples.

    Returns:
        For each bin: `n`, `proba` (mean), `positive` (share), and `low` and `high`, its
        95 % Clopper-Pearson interval.
    """
    proba, labels = check_scores(proba, labels, probability=True)
    order = np.argsort(proba, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        n, k = len(part), int(labels[part].sum())
        rows.append(
            {
                "n": n,
                "proba": float(proba[part].mean()),
                "positive": k / n,
                "low": float(special.betaincinv(k, n - k + 1, 0.025)) if k else 0.0,
                "high": float(special.betaincinv(k + 1, n - k, 0.975))
                if k < n
                else 1.0,
            }
        )
    return rows


def expected_calibration_error(
    proba: ArrayLike, labels: ArrayLike, *, bins: int = 10
) -> float:
    """Mean distance of probability and share of positives over bins, by size.

    Of the label 1, in bins of equal numbers: `sum_b n_b / n |mean p - mean y|`. It is
    above 0 in a small sample even for a perfectly calibrated model:
    `calibration_report` says by how much.
    """
    proba, labels = check_scores(proba, labels, probability=True)
    order = np.argsort(proba, kind="stable")
    return float(_errors(proba[order], labels[order][None], bins)[0])


def calibration_report(
    proba: ArrayLike, labels: ArrayLike, *, bins: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Measure how well probabilities are calibrated.

    Args:
        proba: `[n]`, in [0, 1].
        labels: `[n]`, 0 or 1, both present.
        bins: of the expected calibration error and the diagram.
        seed: of the simulated labels.

    Returns:
        `log_loss`, `brier`; `slope` and `intercept` of a logistic regression of the
        label on the logit (1 and 0 if calibrated; a slope below 1 is overconfident);
        `ece`, and `ece_if_calibrated`, the mean of what 1,000 samples of labels drawn
        from these very probabilities show; `diagram`, see `reliability`.
    """
    proba, labels = _both_labels(proba, labels)
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, max_iter=1000)
    model.fit(_logit(proba)[:, None], labels)
    ordered = np.sort(proba)
    drawn = np.random.default_rng(seed).random((1000, len(proba))) < ordered
    return {
        "log_loss": log_loss(proba, labels),
        "brier": float(np.mean((proba - labels) ** 2)),
        "slope": float(model.coef_[0, 0]),
        "intercept": float(model.intercept_[0]),
        "ece": expected_calibration_error(proba, labels, bins=bins),
        "ece_if_calibrated": float(_errors(ordered, drawn, bins).mean()),
        "diagram": reliability(proba, labels, bins=bins),
    }


def shift_prior(proba: ArrayLike, *, old: float, new: float) -> np.ndarray:
    """Carry calibrated probabilities over to another share of positives.

    `logit' = logit + logit(new) - logit(old)`: exact if only the share differs, and
    not what a positive or a negative looks like.

    Args:
        proba: any shape, in [0, 1].
        old: share of positives where the probabilities were calibrated, in (0, 1).
        new: share of positives where they are used, in (0, 1).

    Returns:
        float64, same shape.

    Raises:
        ValueError: if a share is not in (0, 1).

    References:
        Saerens et al., Adjusting the Outputs of a Classifier to New a Priori
        Probabilities, Neural Computation 14 (2002).
    """
    for name, share in (("old", old), ("new", new)):
        if not 0 < share < 1:
            raise ValueError(f"got {name}={share}, expected a share in (0, 1)")
    offset = special.logit(new) - special.logit(old)
    with np.errstate(divide="ignore"):
        return special.expit(special.logit(np.asarray(proba, np.float64)) + offset)


def _logit(proba: np.ndarray) -> np.ndarray:
    return special.logit(np.clip(proba, EPS, 1 - EPS))


def _both_labels(proba: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, or raise ValueError if a label is missing."""
    proba, labels = check_scores(proba, labels, probability=True)
    if len(np.unique(labels)) != 2:
        raise ValueError("calibration needs examples of both labels")
    return proba, labels


def _errors(ordered: np.ndarray, labels: np.ndarray, bins: int) -> np.ndarray:
    """Expected calibration errors `[s]` of sorted `[n]` and their labels `[s, n]`."""
    n = len(ordered)
    edges = np.linspace(0, n, min(bins, n) + 1).astype(int)[:-1]
    gaps = np.add.reduceat(ordered[None] - labels, edges, axis=1)
    return np.abs(gaps).sum(axis=1) / n
