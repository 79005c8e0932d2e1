"""Heads that are fitted without a learning rate: logistic regression and zero-shot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from memejax import metrics
from memejax.stages.parts.heads.training import FEATURES, Fitted, Job, statistics

Tree = Any
# Iterations of L-BFGS; a fit that needs more is an error.
MOST = 2000


def fit_logistic(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    job: Job,
    *,
    strengths: Sequence[float],
    balance: bool,
    standardize: bool,
    names: Sequence[str] = FEATURES,
) -> Fitted:
    """Fit logistic regression, its L2 penalty chosen on the held-out memes.

        min_w sum_i c_i log(1 + exp(-y_i (w x_i + b))) + |w|^2 / (2 C)

    x holds both features, each standardised and divided by the square root of its
    width, so that a picture and a caption have the same length on average, and C does
    not depend on the encoders. The first of the strengths that are best is taken.

    Args:
        columns: `image` and `text`, float32 `[n, d]` each.
        labels: int32 `[n]`.
        job: the rows to train on, and to choose by.
        strengths: values of C, from the strongest penalty on.
        balance: whether both classes have the same weight c in all.
        standardize: whether to standardise by the training memes.
        names: of the columns; a single one is for comparison only.

    Returns:
        Variables of a `LinearHead`; `step` is the place of the chosen strength, from 1,
        and `curve` has the rating of each.

    Raises:
        ValueError: if a fit does not converge.
    """
    found = statistics(columns, job, standardize=standardize)
    blocks = []
    for name in names:
        width = columns[name].shape[1]
        plain = {
            "mean": np.zeros(width, np.float32),
            "scale": np.ones(width, np.float32),
        }
        own = found.get(name, plain)
        own["scale"] = own["scale"] / np.float32(np.sqrt(width))
        found[name] = own
        blocks.append((columns[name] - own["mean"]) * own["scale"])
    x = np.concatenate(blocks, axis=1).astype(np.float64)
    best, curve = None, {}
    for place, strength in enumerate(strengths, start=1):
        model = LogisticRegression(
            C=strength,
            class_weight="balanced" if balance else None,
            max_iter=MOST,
            tol=1e-6,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(x[job.train], labels[job.train])
            except ConvergenceWarning as error:
                raise ValueError(
                    f"logistic regression with C={strength} does not converge: leave "
                    "out such a weak penalty"
                ) from error
        logits = model.decision_function(x)
        curve[place] = metrics.auroc(logits[job.held_out], labels[job.held_out])
        if best is None or curve[place] > best.rating:
            params = {
                "logit": {
                    "kernel": model.coef_.T.astype(np.float32),
                    "bias": model.intercept_.astype(np.float32),
                }
            }
            variables = {"params": params, "batch_stats": found}
            best = Fitted(variables, {"head": logits}, place, curve[place], curve)
    if best is None:
        raise ValueError("got no strengths, expected at least one value of C")
    return best


def unfitted(
    variables: Tree,
    logits: Mapping[str, Any],
    labels: np.ndarray,
    job: Job,
) -> Fitted:
    """Return the result of a head that learns nothing.

    Args:
        variables: of the head.
        logits: name of the score -> `[n]`, of all memes.
        labels: int32 `[n]`.
        job: the rows that it is rated on.
    """
    scores = {name: np.asarray(values, np.float64) for name, values in logits.items()}
    mean = np.mean(list(scores.values()), axis=0)
    rating = metrics.auroc(mean[job.held_out], labels[job.held_out])
    return Fitted(variables, scores, 1, rating, {1: rating})
