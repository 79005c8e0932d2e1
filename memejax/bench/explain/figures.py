"""Parts of the studies of explanations: shares and areas, with intervals."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from scipy import stats

from memejax.data.synthetic_truth import Box
from memejax.restored import Restored

# Resamples of the memes for an interval.
RESAMPLES = 10_000
# Relative error that a complete attribution has at most.
COMPLETE = 0.01


class Found:
    """Figures of each meme, by name."""

    def __init__(self) -> None:
        self.hits: dict[str, list[tuple[bool, bool]]] = {}
        self.areas: dict[str, list[tuple[float, float]]] = {}
        self.gaps: dict[str, list[float]] = {}

    def hit(self, name: str, at: bool, elsewhere: bool = False) -> None:
        """Add whether the right thing was found first, or else the decoy."""
        self.hits.setdefault(name, []).append((at, elsewhere))

    def area(self, name: str, own: float, random: float) -> None:
        """Add the areas under the deletion curves of an order and of random orders."""
        self.areas.setdefault(name, []).append((own, random))

    def figures(self) -> dict[str, Any]:
        """Return all figures as rows."""
        found, deletion = [], []
        for name, values in self.hits.items():
            at, elsewhere = np.array(values).sum(0)
            test = stats.binomtest(int(at), len(values)).proportion_ci(0.95, "exact")
            found.append(
                {
                    "method": name,
                    "found": float(at / len(values)),
                    "low": float(test.low),
                    "high": float(test.high),
                    "decoy": float(elsewhere / len(values)),
                }
            )
        rng = np.random.default_rng(0)
        for name, values in self.areas.items():
            own, random = np.array(values).T
            rows = rng.integers(0, len(own), (RESAMPLES, len(own)))
            means = (random - own)[rows].mean(1)
            low, high = np.percentile(means, [2.5, 97.5])
            deletion.append(
                {
                    "order": name,
                    "area": float(own.mean()),
                    "random": float(random.mean()),
                    "difference": float((random - own).mean()),
                    "low": float(low),
                    "high": float(high),
                }
            )
        gaps = {
            name: {
                "median": float(np.median(values)),
                "within 1 %": float(np.mean(np.array(values) < COMPLETE)),
            }
            for name, values in self.gaps.items()
        }
        return {
            "memes": max(len(values) for values in self.hits.values()),
            "found": found,
            "deletion": deletion,
            "completeness": gaps,
        }


def shuffled(restored: Restored, seed: int = 0) -> Restored:
    """Return a run with the entries of each of its arrays in random order."""
    rng = np.random.default_rng(seed)

    def shuffle(leaf: Any) -> np.ndarray:
        flat = np.asarray(leaf).reshape(-1)
        return rng.permutation(flat).reshape(np.shape(leaf))

    return dataclasses.replace(
        restored, variables=jax.tree.map(shuffle, dict(restored.variables))
    )


def inside(at: np.ndarray, box: Box | None) -> bool:
    """Whether a place (x, y) lies in a box, which may be none."""
    if box is None:
        return False
    left, top, right, bottom = box
    return bool(left <= at[0] <= right and top <= at[1] <= bottom)
