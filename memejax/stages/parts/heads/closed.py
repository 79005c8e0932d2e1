"""Heads that are fitted without a learning rate: linear, by a kernel, by prompts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from memejax import metrics
from memejax.models.feature_heads import KernelFit, fit_kernel_logistic, summed_rbf
from memejax.stages.parts.heads.scaling import FEATURES, scaled, statistics
from memejax.stages.parts.heads.training import Fitted, Job, average

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Tree = Any
# Iterations of logistic regression; a fit that needs more is an error.
MOST = 2000
# Training memes of a kernel machine, whose kernel is a matrix of all pairs: 3.2 GB.
LARGEST = 20_000


def fit(
    columns: Mapping[str, np.ndarray], labels: np.ndarray, job: Job, section: ConfigDict
) -> Fitted:
    """Fit the linear head or the kernel that the section `heads` of a config describes.

    Args:
        columns: `image` and `text`, float32 `[n, d]` each.
        labels: int32 `[n]`.
        job: the rows to train on, and to choose by.
        section: its `head` is "linear" or "kernel".

    Raises:
        ValueError: as `fit_logistic` and `fit_kernel` do.
    """
    c = section
    if c.head == "kernel":
        return fit_kernel(
            columns,
            labels,
            job,
            gammas=c.gammas,
            penalties=c.penalties,
            shares=c.shares,
        )
    return fit_logistic(
        columns,
        labels,
        job,
        strengths=c.strengths,
        shares=c.shares,
        balance=c.balance,
        scaling=c.scaling,
    )


def fit_logistic(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    job: Job,
    *,
    strengths: Sequence[float],
    shares: Sequence[float],
    balance: bool,
    scaling: str,
    names: Sequence[str] = FEATURES,
) -> Fitted:
    """Fit logistic regression, its L2 penalty chosen on the held-out memes.

        min_w sum_i c_i log(1 + exp(-z_i (w x_i + b))) + |w|^2 / (2 C)

    x holds both features, each scaled and divided by its mean length, times the square
    roots of the picture's share and of the caption's, so that C does not depend on the
    encoders. The first of the settings that are best is taken.

    Args:
        columns: `image` and `text`, float32 `[n, d]` each.
        labels: int32 `[n]`.
        job: the rows to train on, and to choose by.
        strengths: values of C, from the strongest penalty on.
        shares: of the pictures, each in [0, 1].
        balance: whether both classes have the same weight c in all.
        scaling: one of `scaling.SCALINGS`.
        names: of the columns; a single one is for comparison only.

    Returns:
        Variables of a `LinearHead`; `step` is the place of the chosen setting, from 1,
        and `curve` has the rating of each, share by share.

    Raises:
        ValueError: if a fit does not converge.
    """
    scales = statistics(columns, job.train, scaling=scaling)
    blocks = {name: _scaled(columns, scales, name) for name in names}
    lengths = {
        name: np.sqrt(np.mean(np.sum(block[job.train] ** 2, axis=1)))
        for name, block in blocks.items()
    }
    best, curve = None, {}
    settings = itertools.product(shares if len(names) > 1 else (0.5,), strengths)
    for place, (share, strength) in enumerate(settings, start=1):
        parts = {"image": share, "text": 1 - share}
        factors = {name: np.sqrt(parts[name]) / lengths[name] for name in names}
        x = np.concatenate([factors[name] * blocks[name] for name in names], axis=1)
        model = _logistic(
            x[job.train], labels[job.train], strength=strength, balance=balance
        )
        logits = model.decision_function(x)
        curve[place] = metrics.auroc(logits[job.held_out], labels[job.held_out])
        if best is None or curve[place] > best.rating:
            # Of the scaled features: the factors go into the weights.
            widths = [np.full(blocks[name].shape[1], factors[name]) for name in names]
            weights = model.coef_.T * np.concatenate(widths)[:, None]
            logit = {"kernel": weights, "bias": model.intercept_}
            params = {"logit": {k: v.astype(np.float32) for k, v in logit.items()}}
            variables = {"params": params, "batch_stats": scales}
            best = Fitted(variables, {"head": logits}, place, curve[place], curve)
    if best is None:
        raise ValueError("got no strengths or shares, expected at least one of each")
    return best


def _logistic(
    x: np.ndarray, labels: np.ndarray, *, strength: float, balance: bool
) -> LogisticRegression:
    """Fit one logistic regression; an error if it does not converge."""
    # Takes a second to import, which a prediction need not wait for.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = "balanced" if balance else None
    # On 2,400 rows of 1,280 features a tenth of the time of L-BFGS, and nearer to the
    # minimum in float32.
    model = LogisticRegression(
        C=strength,
        class_weight=weight,
        solver="newton-cg",
        max_iter=MOST,
        tol=1e-6,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(x, labels)
        except ConvergenceWarning as error:
            raise ValueError(
                f"logistic regression with C={strength} does not converge: leave out "
                "such a weak penalty"
            ) from error


def fit_kernel(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    job: Job,
    *,
    gammas: Sequence[float],
    penalties: Sequence[float],
    shares: Sequence[float],
) -> Fitted:
    """Fit kernel logistic regression, its settings chosen on the held-out memes.

    Features are centred and have length 1; see `feature_heads.summed_rbf` and
    `fit_kernel_logistic`. The first of the settings that are best is taken.

    Args:
        columns: `image` and `text`, float32 `[n, d]` each.
        labels: int32 `[n]`.
        job: the rows to train on, and to choose by.
        gammas: of the kernels.
        penalties: from the strongest on.
        shares: of the pictures, each in [0, 1].

    Returns:
        Variables with the params `alpha` and `bias`, and as batch_stats what scales
        the inputs, `kernel` (gamma and share) and `support`: the training memes.
        `step` is the place of the chosen setting, from 1, and `curve` has the rating of
        each, gamma by gamma, share by share.

    Raises:
        ValueError: for more than `LARGEST` training memes, or a fit that does not
            converge.
    """
    if len(job.train) > LARGEST:
        raise ValueError(
            f"heads.head='kernel' keeps a matrix of all pairs of the {len(job.train):,}"
            f" training memes, at most {LARGEST:,}: choose another head"
        )
    scales = statistics(columns, job.train, scaling="unit")
    blocks = {name: _scaled(columns, scales, name) for name in FEATURES}
    support = {name: block[job.train] for name, block in blocks.items()}
    best, curve, place = None, {}, 0
    for gamma, share in itertools.product(gammas, shares):
        setting = {"gamma": np.float32(gamma), "image_share": np.float32(share)}
        whole = np.asarray(_rbf(blocks, support, setting), np.float64)
        fit: KernelFit | None = None
        for penalty in penalties:
            place += 1
            fit = fit_kernel_logistic(
                whole[job.train], labels[job.train], penalty=penalty, start=fit
            )
            logits = whole @ fit.alpha + fit.bias
            curve[place] = metrics.auroc(logits[job.held_out], labels[job.held_out])
            if best is None or curve[place] > best.rating:
                params = {
                    "alpha": fit.alpha.astype(np.float32),
                    "bias": np.float32(fit.bias),
                }
                stats = {**scales, "kernel": setting, "support": support}
                variables = {"params": params, "batch_stats": stats}
                best = Fitted(variables, {"head": logits}, place, curve[place], curve)
    if best is None:
        raise ValueError("got no gammas, shares or penalties, expected one of each")
    return best


def kernel_scores(variables: Tree, columns: Mapping[str, Any]) -> Any:
    """Return the logits of a kernel machine, `[b]`; variables as of `fit_kernel`."""
    params, stats = variables["params"], variables["batch_stats"]
    blocks = {name: scaled(columns[name], **stats[name]) for name in FEATURES}
    kernel = _rbf(blocks, stats["support"], stats["kernel"])
    return kernel @ params["alpha"] + params["bias"]


def _rbf(blocks: Mapping[str, Any], support: Mapping[str, Any], setting: Tree) -> Any:
    return summed_rbf(
        jnp.asarray(blocks["image"]),
        jnp.asarray(blocks["text"]),
        image_nd=jnp.asarray(support["image"]),
        text_nd=jnp.asarray(support["text"]),
        **setting,
    )


def _scaled(columns: Mapping[str, np.ndarray], scales: Tree, name: str) -> np.ndarray:
    if name not in scales:
        return columns[name]
    return np.asarray(scaled(jnp.asarray(columns[name]), **scales[name]))


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
    rating = metrics.auroc(average(scores)[job.held_out], labels[job.held_out])
    return Fitted(variables, scores, 1, rating, {1: rating})
