"""Find the threshold of a finished run that keeps a rule.

    python -m memejax.decide --workdir RUN --rule "precision>=0.9"

calibrates the run's probabilities on its dev split, finds the threshold on labelled
memes that chose nothing, by Learn then Test, and writes both to the run's
decision.json, which python -m memejax.predict uses. No network is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from memejax import command_line
from memejax.errors import reported, user_errors
from memejax.metrics import AVERAGE


def main(argv: Sequence[str] | None = None) -> None:
    """Decide by the arguments."""
    options = _parser().parse_args(argv)
    command_line.prepare()
    with reported(), user_errors():
        # Imported here, so that --help and a misspelt flag answer at once.
        from memejax.decide.command import decide

        decide(options)


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
        "--rule",
        required=True,
        help="precision>=P, recall>=R, fpr<=F, cost=FN:FP or accuracy, in quotes",
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
