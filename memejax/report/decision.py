"""The section on a run's decision: its rule, its threshold, and its calibration."""

from __future__ import annotations

from typing import Any

from memejax import decisions
from memejax.decisions import Decision, Scored
from memejax.errors import UserError
from memejax.metrics.calibration import calibration_report
from memejax.report import plots
from memejax.report.blocks import Block, Facts, Figure, Gallery, Section, Text
from memejax.report.cells import Table
from memejax.report.finished import Finished

_MEASURES = {
    "log_loss": "log loss",
    "brier": "Brier",
    "slope": "slope",
    "intercept": "intercept",
    "ece": "calibration error",
    "ece_if_calibrated": "if perfect",
}


def section(run: Finished) -> Section | None:
    """Return what `python -m memejax.decide` found; None if it has not run."""
    decision = decisions.read(run.folder)
    if decision is None:
        return None
    blocks: list[Block] = [Facts(_facts(decision))]
    try:
        held = decisions.scored(
            run.folder, decision.split, seeds=decision.seeds, arm=decision.arm
        )
    except UserError as error:
        return Section("Decision", [*blocks, Text(f"No diagram: {error}.")])
    return Section("Decision", [*blocks, *_calibration(decision, held)])


def _facts(decision: Decision) -> dict[str, Any]:
    found = decision.certified
    promise = (
        f"kept with probability {1 - decision.delta:g}"
        if decision.rule.promises
        else "the best on these memes, nothing is promised"
    )
    between = decision.abstain and "{:g} to {:g}".format(*decision.abstain)
    return {
        "Rule": f"{decision.rule}, {promise}",
        "Threshold": f"{found.threshold:.4f} of the calibrated probability",
        "Found on": f"{decision.split}: {found.right} of {found.n} as the rule wants",
        "For a person": between,
        "Scores": f"{decision.arm} of seed {', '.join(decision.seeds)}",
        "Calibration": decision.calibration.kind,
    }


def _calibration(decision: Decision, held: Scored) -> list[Block]:
    """Measures and diagram of raw and calibrated probabilities."""
    sides = {
        "raw": held.proba,
        "calibrated": decision.calibration.apply(held.proba),
    }
    reports = {
        name: calibration_report(proba, held.labels) for name, proba in sides.items()
    }
    rows = [
        [name, *(f"{report[measure]:.4f}" for measure in _MEASURES)]
        for name, report in reports.items()
    ]
    notes = (
        "Slope and intercept of a logistic regression on the logit: 1 and 0 if "
        "calibrated; a slope below 1 is overconfident.",
        "The calibration error of so few memes is not 0 if they are calibrated "
        "perfectly: the last column has what it would be.",
    )
    title = f"Calibration on {decision.split}, {len(held.labels)} memes"
    table = Table(title, ("", *_MEASURES.values()), rows, notes=notes)
    picture = plots.reliability(
        {name: report["diagram"] for name, report in reports.items()}
    )
    caption = (
        "Share of hateful memes by probability, in ten groups of equally many memes, "
        "with the 95 % interval of the calibrated ones. On the diagonal a probability "
        "means what it says."
    )
    figure = Figure(picture, "Reliability", caption)
    return [table, Gallery([figure], size="medium")]
