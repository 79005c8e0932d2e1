"""The work of `python -m memejax.decide`."""

from __future__ import annotations

import argparse

import numpy as np

from memejax import decisions, logs
from memejax.decisions import Decision, Scored
from memejax.metrics import calibration, thresholds
from memejax.report import write as write_page


def decide(options: argparse.Namespace) -> None:
    """Make the decision, describe it and write it."""
    decision = decisions.make(
        options.workdir,
        thresholds.parse_rule(options.rule),
        seed=options.seed,
        arm=options.arm,
        split=options.certify,
        delta=options.delta,
        abstain=options.abstain,
    )
    held = decisions.scored(
        options.workdir, decision.split, seeds=decision.seeds, arm=decision.arm
    )
    lines = report(decision, held)
    if options.subgroup is not None:
        lines += _subgroups(options, decision, held)
    for line in lines:
        logs.say(line)
    path = decisions.write(options.workdir, decision)
    logs.say(f"written to {path}, which memejax.predict uses")
    page = write_page(options.workdir)
    logs.say(f"calibration and reliability diagram: {page}, section Decision")


def report(decision: Decision, held: Scored) -> list[str]:
    """Describe a decision and what it does on the memes that it was found on.

    Args:
        decision: of a run.
        held: raw scores of those memes.
    """
    proba = decision.calibration.apply(held.proba)
    before, after = (
        calibration.calibration_report(p, held.labels) for p in (held.proba, proba)
    )
    seeds = ", ".join(decision.seeds)
    lines = [
        f"{decision.arm} of seed {seeds}, calibration: {decision.calibration.kind} "
        f"(of {', '.join(f'{k} {v:.4f}' for k, v in decision.losses.items())}, "
        "cross-validated log loss)",
        f"on {decision.split}, {len(proba)} memes, raw and calibrated: log loss "
        f"{before['log_loss']:.4f} and {after['log_loss']:.4f}, Brier "
        f"{before['brier']:.4f} and {after['brier']:.4f}, slope {before['slope']:.2f} "
        f"and {after['slope']:.2f}, calibration error {before['ece']:.3f} and "
        f"{after['ece']:.3f} ({after['ece_if_calibrated']:.3f} if perfect)",
    ]
    found = decision.certified
    promise = (
        f" with probability {1 - decision.delta:g}" if decision.rule.promises else ""
    )
    lines.append(f"{decision.rule}{promise}: threshold {found.threshold:.4f}")
    decided = decision.decide(proba)
    flagged, truth = decided == decisions.HATEFUL, held.labels == 1
    line = (
        f"{int(flagged.sum())} of {len(truth)} memes are flagged, "
        f"{int((flagged & truth).sum())} of them hateful: precision "
        f"{_share(truth[flagged])}, recall {_share(flagged[truth])}, false positive "
        f"rate {_share(flagged[~truth])}"
    )
    reviewed = int((decided == decisions.REVIEW).sum())
    if decision.abstain is not None:
        low, high = decision.abstain
        line += f"; {reviewed} from {low:g} to {high:g} go to a person"
    return [*lines, line]


def _subgroups(
    options: argparse.Namespace, decision: Decision, held: Scored
) -> list[str]:
    """Return the table of subgroups."""
    values = decisions.column(options.workdir, options.subgroup, root=options.root)
    groups = [values.get(one, "") for one in held.ids]
    proba = decision.calibration.apply(held.proba)
    flagged = decision.decide(proba) == decisions.HATEFUL
    table = decisions.by_group(held._replace(proba=proba), flagged, groups)
    names = list(next(iter(table.values())))
    width = max(len(options.subgroup), *map(len, table))
    lines = [" ".join([f"{options.subgroup:<{width}}", *(f"{n:>9}" for n in names)])]
    for group, row in table.items():
        cells = [
            f"{v:>9}" if isinstance(v, int) else f"{v:>9.3f}" for v in row.values()
        ]
        lines.append(" ".join([f"{group or '(none)':<{width}}", *cells]))
    return lines


def _share(values: np.ndarray) -> str:
    return f"{values.mean():.3f}" if len(values) else "-"
