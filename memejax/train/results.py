"""A run's results: read, put together, summed up over seeds, shown."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import classify, folder, metrics, parallel, report


def read(path: pathlib.Path) -> Any:
    """What a JSON file holds, None if there is none; the same in all processes."""
    # A folder on a network shows a new file to one machine before the other.
    return parallel.from_first(folder.read_json(path))


def gather(
    config: ConfigDict,
    facts: Mapping[str, Any],
    *,
    found: Mapping[str, Any],
    taken: Mapping[str, float],
) -> dict[str, Any]:
    """What results.json holds.

    `seconds` are those of all starts of the run. What a start that was killed had not
    saved is not in `taken`: they are at least what the stages took together, which
    count themselves from checkpoint to checkpoint.

    Args:
      config: the run's.
      facts: of the data.
      found: what the stages found.
      taken: `seconds` and `peak_memory_gb`, as `Starts` knows them.
    """
    by_seed = found.get("seeds", {}).values()
    outcomes = [o for seed in by_seed for o in seed.values()] or [found]
    stages = round(sum(o.get("seconds", 0.0) for o in outcomes), 2)
    return {
        "config": config.name,
        "preset": config.preset,
        "data": dict(facts),
        **found,
        "seconds": max(taken["seconds"], stages),
        "peak_memory_gb": taken["peak_memory_gb"],
    }


def summary(by_seed: dict[str, Any]) -> dict[str, Any]:
    """Split -> arm -> figure -> {"mean", "std"} over the seeds, None for NaN."""
    evaluated = [s["evaluate"]["splits"] for s in by_seed.values() if "evaluate" in s]
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


def show(results: dict[str, Any]) -> None:
    """Results on the console."""
    if not parallel.is_first():
        return
    if "errors" in results:
        classify.tell(results)
    else:
        report.console(results)
