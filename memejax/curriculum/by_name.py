"""Active scores by name.

A network with dropout and a committee of networks have the same attributes
(`Predictions`), so that each score is written once for both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from memejax.curriculum import scores
from memejax.curriculum.bald import bald, predictive_variance, vote_entropy


class Predictions(Protocol):
    """Predictions of m examples in C classes; each is computed when it is used."""

    @property
    def log_probs(self) -> jax.Array:
        """Log-probabilities `[m, C]`."""
        ...

    @property
    def probs(self) -> jax.Array:
        """Probabilities `[m, C]`."""
        ...

    @property
    def passes(self) -> jax.Array:
        """Log-probabilities `[M, m, C]` of M passes or members."""
        ...

    @property
    def labels(self) -> jax.Array:
        """Labels, int `[m]`."""
        ...

    @property
    def gradient_length(self) -> jax.Array:
        """Expected length of the last layer's gradient `[m]`."""
        ...


# Name -> uncertainty [m], high = hard.
SCORES: dict[str, Callable[[Predictions], jax.Array]] = {
    "aadt": lambda p: scores.aadt(p.probs),
    "aadt_squared": lambda p: scores.aadt(p.probs, squared=True),
    "entropy": lambda p: scores.entropy(p.log_probs, log=True),
    "least_confidence": lambda p: scores.least_confidence(p.probs),
    "margin": lambda p: scores.margin(p.probs),
    "loss": lambda p: scores.cross_entropy(p.log_probs, p.labels),
    "bald": lambda p: bald(p.passes, log=True),
    "variance": lambda p: predictive_variance(jnp.exp(p.passes)),
    "votes": lambda p: vote_entropy(p.passes),
    "gradient_length": lambda p: p.gradient_length,
}
# Scores that measure the disagreement of passes or members.
DISAGREEMENT = ("bald", "variance", "votes")


@dataclasses.dataclass(frozen=True)
class Committee:
    """Several networks' predictions; `probs` is their mean.

    Attributes:
        passes: log-probabilities `[M, m, C]`, one row of the leading axis per network.
        labels: int `[m]`.
    """

    passes: jax.Array
    labels: jax.Array

    @functools.cached_property
    def probs(self) -> jax.Array:
        """Probabilities `[m, C]`, the mean over the networks."""
        return jnp.exp(self.passes).mean(0)

    @functools.cached_property
    def log_probs(self) -> jax.Array:
        """Log-probabilities `[m, C]` of that mean."""
        return jnp.log(self.probs)

    @property
    def gradient_length(self) -> jax.Array:
        """Unavailable without a network.

        Raises:
            ValueError: always.
        """
        raise ValueError("gradient_length needs a network, not a committee's outputs")


def committee_uncertainty(
    score: str, positive: Sequence[np.ndarray] | np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Uncertainty of a committee of binary classifiers, per example.

    Args:
        score: one of `SCORES`.
        positive: P(label 1) `[n]` of each member.
        labels: int `[n]`, 0 or 1.

    Returns:
        float32 `[n]`, high = hard.

    Raises:
        ValueError: if the score is unknown, measures disagreement but there is only one
            member, or needs a network.
    """
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}: choose one of {sorted(SCORES)}")
    if len(positive) < 2 and score in DISAGREEMENT:
        raise ValueError(
            f"{score} measures whether arms disagree: it needs two of them, got one; "
            "curriculum.passes compares dropout passes of one"
        )
    # Kept away from 0 and 1, whose logarithms no sampler can use.
    clipped = np.clip(np.asarray(positive), 1e-7, 1 - 1e-7)
    passes = np.log(np.stack([1 - clipped, clipped], -1))
    committee = Committee(jnp.asarray(passes, jnp.float32), jnp.asarray(labels))
    return np.asarray(SCORES[score](committee))
