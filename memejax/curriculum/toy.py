"""A toy problem that separates BALD from scores of the decision boundary."""

from typing import NamedTuple

import numpy as np
from scipy import special

from memejax.curriculum.bald import bald
from memejax.curriculum.scores import aadt, entropy

# Of the Gaussian process: the standard deviation of its logits far from data, and its
# length scale. The data lie within [-REACH, REACH]; the grid is three times as wide, so
# that its ends are independent of them.
AMPLITUDE, LENGTH, REACH = 8.0, 1.0, 2.0


class Disagreement(NamedTuple):
    """Predictions of an ensemble on a line, and the scores of its points.

    Attributes:
        train_inputs: float64 `[200]`: positions of the observations, all in [-2, 2].
        train_labels: int64 `[200]`, 0 or 1; both occur around the boundary.
        inputs: float64 `[n]`: the grid, from -6 to 6.
        probs_mnc: float32 `[M, n, 2]`: the prediction of each member.
        aadt: float32 `[n]`, of the mean prediction.
        entropy: float32 `[n]`, of the mean prediction.
        member_entropy: float32 `[n]`: the mean of the members' own entropies, as
            expected of a single model; `entropy - bald`.
        bald: float32 `[n]`.
    """

    train_inputs: np.ndarray
    train_labels: np.ndarray
    inputs: np.ndarray
    probs_mnc: np.ndarray
    aadt: np.ndarray
    entropy: np.ndarray
    member_entropy: np.ndarray
    bald: np.ndarray


def disagreement_example(
    *, members: int = 64, points: int = 201, seed: int = 0
) -> Disagreement:
    """An ensemble that agrees on a boundary but disagrees far from its data.

    The members are draws from the posterior of a Gaussian process classifier (Laplace's
    approximation) of points on a line, where label 1 has the probability
    `sigmoid(3 x)`. Around x = 0 the labels themselves are uncertain and all members
    agree on that: entropy and AADT are high, BALD is almost 0, and more data would not
    help. Far from the data each member is certain, but of different labels: BALD is
    high. Entropy and AADT of the mean prediction are high in both regions and cannot
    separate them; those of a single member are high only in the first.

    Args:
        members: M, at least 2.
        points: n, the size of the grid, at least 2.
        seed: seed of the labels and the draws.

    Returns:
        A `Disagreement`: arrays to plot.

    Raises:
        ValueError: if members or points is less than 2.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equations (4.2), (4.4) and (4.6). Rasmussen and Williams, Gaussian
        Processes for Machine Learning, 2006, algorithms 3.1 and 3.2.

    >>> toy = disagreement_example()
    >>> boundary, far = 100, 0  # x = 0 and x = -6
    >>> print(bool(toy.entropy[boundary] > 0.6), bool(toy.entropy[far] > 0.6))
    True True
    >>> print(bool(toy.bald[boundary] < 0.05), bool(toy.bald[far] > 0.4))
    True True
    """
    if members < 2 or points < 2:
        raise ValueError(
            f"got members {members} and points {points}, expected at least 2 of each"
        )
    rng = np.random.default_rng(seed)
    train = np.linspace(-REACH, REACH, 200)
    labels = (rng.uniform(size=train.size) < special.expit(3 * train)).astype(np.int64)
    grid = np.linspace(-3 * REACH, 3 * REACH, points)
    logits = _posterior_draws(train, labels, grid, rng.normal(size=(points, members)))
    positive = special.expit(logits).T.astype(np.float32)
    probs_mnc = np.stack([1 - positive, positive], axis=-1)
    mean = probs_mnc.mean(axis=0)
    return Disagreement(
        train_inputs=train,
        train_labels=labels,
        inputs=grid,
        probs_mnc=probs_mnc,
        aadt=np.asarray(aadt(mean)),
        entropy=np.asarray(entropy(mean)),
        member_entropy=np.asarray(entropy(probs_mnc)).mean(axis=0),
        bald=np.asarray(bald(probs_mnc)),
    )


def _posterior_draws(
    train: np.ndarray, labels: np.ndarray, grid: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Draw logits on the grid, `[points, members]` like the noise."""
    within = _covariance(train, train)
    mode = np.zeros(train.size)
    # Newton's method; with these data 10 steps reach the mode to rounding.
    for _ in range(12):
        probs = special.expit(mode)
        weight = probs * (1 - probs)
        target = weight * mode + labels - probs
        mode = within @ (target - _weighted_solve(within, weight, within @ target))
    probs = special.expit(mode)
    across = _covariance(train, grid)
    explained = across.T @ _weighted_solve(within, probs * (1 - probs), across)
    covariance = _covariance(grid, grid) - explained
    # Jitter: rounding makes the covariance of nearly equal points indefinite.
    root = np.linalg.cholesky(covariance + 1e-6 * AMPLITUDE**2 * np.eye(grid.size))
    return (across.T @ (labels - probs))[:, None] + root @ noise


def _covariance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Prior covariance of the logits at two sets of points."""
    distance = (left[:, None] - right[None, :]) / LENGTH
    return AMPLITUDE**2 * np.exp(-(distance**2) / 2)


def _weighted_solve(
    covariance: np.ndarray, weight: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Return `(weight^-1 + covariance)^-1 right` by a well-conditioned matrix."""
    root = np.sqrt(weight)
    matrix = np.eye(weight.size) + root[:, None] * covariance * root[None, :]
    scale = root if right.ndim == 1 else root[:, None]
    return scale * np.linalg.solve(matrix, scale * right)
