"""The contents of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import metrics
from memejax.outcomes import evaluated_seeds


def gather(
    config: ConfigDict,
    data: Any,
    *,
    by_seed: Mapping[str, Mapping[str, Any]],
    together: bool,
    taken: Mapping[str, float],
) -> dict[str, Any]:
    """Return the contents of results.json.

    `seconds` are those of all starts of the run. `taken` misses the time that a killed
    start had not saved. The stages save their time with every checkpoint: `seconds`
    is at least their sum.

    Args:
        config: the run's.
        data: with `facts` and, of seeds one by one, `dev`.
        by_seed: seed -> stage -> outcome.
        together: whether the only seed stands for all: its one outcome is the run's.
        taken: `seconds` and `peak_memory_gb` of all starts.
    """
    outcomes = [outcome for seed in by_seed.values() for outcome in seed.values()]
    stages = round(sum(outcome.get("seconds", 0.0) for outcome in outcomes), 2)
    if together:
        (whole,) = outcomes
        found = {"dev": None, "seeds": {}, "summary": {}, **whole}
    else:
        found = {"dev": data.dev, "seeds": by_seed, "summary": summary(by_seed)}
    return {
        "config": config.name,
        "preset": config.preset,
        "data": dict(data.facts),
        **found,
        "seconds": max(taken["seconds"], stages),
        "peak_memory_gb": taken["peak_memory_gb"],
    }


def summary(by_seed: Mapping[str, Any]) -> dict[str, Any]:
    """Return split -> arm -> figure -> {"mean", "std"} over seeds, None for NaN."""
    evaluated = evaluated_seeds({"seeds": by_seed})
    if not evaluated:
        return {}

    def over_seeds(split: str, arm: str, figure: str) -> dict[str, float | None]:
        spread = metrics.mean_std([e[split][arm][figure] for e in evaluated])
        values = zip(("mean", "std"), spread, strict=True)
        return {name: None if np.isnan(value) else value for name, value in values}

    figures = ("auroc", "accuracy", "threshold_accuracy", "f1")
    return {
        split: {
            arm: {f: over_seeds(split, arm, f) for f in figures if f in row}
            for arm, row in rows.items()
        }
        for split, rows in evaluated[0].items()
    }
