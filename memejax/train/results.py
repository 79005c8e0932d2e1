"""A run's results: read, put together, summed up over seeds, shown."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import classify, folder, logs, metrics, parallel, report


def read(path: pathlib.Path) -> Any:
    """What a JSON file holds, None if there is none; the same in all processes."""
    # A folder on a network shows a new file to one machine before the other.
    return parallel.from_first(folder.read_json(path))


def gather(
    config: ConfigDict,
    facts: Mapping[str, Any],
    *,
    found: Mapping[str, Any],
    began: float,
) -> dict[str, Any]:
    """What results.json holds.

    Args:
      config: the run's.
      facts: of the data.
      found: what the stages found.
      began: when the run did, by `time.perf_counter`.
    """
    return {
        "config": config.name,
        "preset": config.preset,
        "data": dict(facts),
        **found,
        "seconds": round(time.perf_counter() - began, 2),
        "peak_memory_gb": round(logs.peak_memory(), 3),
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
