"""Find the threshold of a finished run that keeps a rule.

    python -m memejax.decide --workdir RUN --rule "precision>=0.9"

calibrates the run's probabilities on its dev split, finds the threshold on labelled
memes that chose nothing, by Learn then Test, and writes both to the run's
decision.json, which python -m memejax.predict uses. No network is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from memejax import command_line, decisions, logs
from memejax.decisions import Decision, Scored
from memejax.errors import reported, user_errors
from memejax.metrics import AVERAGE, calibration, thresholds
from memejax.report import write as write_page


def main(argv: Sequence[str] | None = None) -> None:
    """Decide by the arguments."""
    options = _parser().parse_args(argv)
    command_line.prepare()
    with reported(), user_errors():
        _decide(options)


def _decide(options: argparse.Namespace) -> None:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m memejax.decide",
        description="Calibrate a finished run, and find the threshold that keeps a "
        "rule, on memes that chose nothing.",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="the run's folder"
    )
    parser.add_argument(
        "--rule", required=True, help=f"one of {thresholds.FORMS}, in quotes"
    )
    parser.add_argument(
        "--seed", default="0", metavar="N", help='a seed, or "all" (default: 0)'
    )
    parser.add_argument(
        "--arm", default=AVERAGE, metavar="NAME", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--certify",
        metavar="SPLIT",
        help="labelled split that chose nothing (default: what data.certify held back)",
    )
    parser.add_argument(
        "--delta",
        type=float,
        default=0.05,
        metavar="P",
        help="probability that the promise is not kept (default: %(default)s)",
    )
    parser.add_argument(
        "--abstain",
        type=_interval,
        metavar="LOW:HIGH",
        help="probabilities that go to a person",
    )
    parser.add_argument(
        "--subgroup",
        metavar="COLUMN",
        help="field of the jsonl files by whose values figures are shown",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="of the jsonl files (default: the run's data.root)",
    )
    return parser


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    return float(low), float(high)


if __name__ == "__main__":
    main()
