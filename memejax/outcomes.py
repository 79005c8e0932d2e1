"""Outcomes of a seed's stages, by what they hold: name of the folder -> JSON.

Whoever reads results.json finds here what a stage left, whichever stage it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Outcomes = Mapping[str, Mapping[str, Any]]


def evaluated(outcomes: Outcomes) -> Mapping[str, Any] | None:
    """Return the outcome with figures of every labelled split; None without one.

    It holds `stage`, the folder of the evaluated checkpoint; `checkpoint`, its step;
    `splits`, name -> arm -> report.
    """
    return next((o for o in outcomes.values() if "splits" in o), None)


def watched(outcomes: Outcomes) -> Mapping[str, Any] | None:
    """Return the outcome of the stage with a collapse panel; None without one.

    It holds `panel`, `collapsed` and `why_collapsed`.
    """
    return next((o for o in outcomes.values() if "collapsed" in o), None)


def evaluated_seeds(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the splits of every evaluated seed of a results.json."""
    found = map(evaluated, results["seeds"].values())
    return [outcome["splits"] for outcome in found if outcome is not None]
