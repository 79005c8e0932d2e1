"""Look up the outcomes of a seed's stages (folder -> JSON) by their content.

Readers of results.json need not name the stage that wrote an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Outcomes = Mapping[str, Mapping[str, Any]]


def evaluated(outcomes: Outcomes) -> Mapping[str, Any] | None:
    """Return the outcome with figures for every labelled split, None without one.

    Its keys: `stage`, the folder of the evaluated checkpoints; `checkpoint`, the step
    of the average's; `checkpoints`, that of each arm's; `splits`, name -> arm ->
    report.
    """
    return next((o for o in outcomes.values() if "splits" in o), None)


def watched(outcomes: Outcomes) -> Mapping[str, Any] | None:
    """Return the outcome with a collapse panel, None without one.

    Its keys: `panel`, `collapsed` and `why_collapsed`.
    """
    return next((o for o in outcomes.values() if "collapsed" in o), None)


def evaluated_seeds(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the `splits` of every evaluated seed of a results.json."""
    found = map(evaluated, results["seeds"].values())
    return [outcome["splits"] for outcome in found if outcome is not None]
