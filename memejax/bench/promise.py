"""Promises of `python -m memejax.decide`: how often they are kept.

    python -m memejax.bench.promise --workdir=RUN

takes the labelled split of a finished run as the population. Each simulated moderator
draws memes from it at random, half of which calibrate and half of which find the
threshold, by the same function as the command. A promise is kept if it is true of the
memes that were not drawn. Most useful with built-in memes, of which there are as many
as one likes (`python -m memejax.data.synthetic_memes FOLDER --test=20000
--label-noise=0.05`).
"""

from __future__ import annotations

import csv
import pathlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.data.hateful_memes import SPLITS
from memejax.errors import command

if TYPE_CHECKING:
    from memejax.decisions import Scored
    from memejax.metrics.thresholds import Rule

OUTCOMES = KEPT, BROKEN, REFUSED = "kept", "broken", "refused"


@command
def main() -> None:
    """Run the simulation."""
    parser = Parser("promise", __doc__)
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="a run's folder"
    )
    parser.add_argument(
        "--split", default="test_unseen", choices=SPLITS, help="the population"
    )
    parser.add_argument("--rule", default="precision>=0.9", help="the promise")
    parser.number("--runs", 1000, text="simulated moderators")
    parser.number("--memes", 1000, text="labelled memes that each draws")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax import decisions, metrics
    from memejax.metrics import AVERAGE
    from memejax.metrics.thresholds import parse_rule

    rule = parse_rule(options.rule)
    if not rule.promises:
        parser.error(f"{rule} promises nothing: give a bound")
    population = decisions.scored(
        options.workdir, options.split, seeds=("0",), arm=AVERAGE
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = [
            simulate(
                options.workdir,
                population,
                rule,
                memes=options.memes,
                rng=np.random.default_rng(i),
                folder=pathlib.Path(folder),
            )
            for i in range(options.runs)
        ]
    rows = summary(found) | {
        "rule": str(rule),
        "memes drawn": options.memes,
        "population": len(population.ids),
        "AUROC": metrics.auroc(population.proba, population.labels),
        "seconds": round(time.perf_counter() - began, 1),
    }
    pairs.write("promise", {options.rule: rows}, options.out)


def simulate(
    workdir: str,
    population: Scored,
    rule: Rule,
    *,
    memes: int,
    rng: np.random.Generator,
    folder: pathlib.Path,
) -> tuple[str, float]:
    """Let one moderator draw memes, decide, and be judged by all the others.

    Args:
        workdir: the run's folder.
        population: its scores.
        rule: of the moderator.
        memes: to draw; half of them calibrate.
        rng: draws.
        folder: to write the moderator's copy of the run to.

    Returns:
        "kept", "broken" or "refused"; and the share that the rule bounds, of the memes
        that were not drawn: NaN if it is refused, or nothing is flagged.
    """
    from memejax import decisions
    from memejax.datasets.data import CERTIFY
    from memejax.metrics.thresholds import CannotCertifyError
    from memejax.restored import read_finished
    from memejax.stages import evaluate

    config, _ = read_finished(workdir)
    order = rng.permutation(len(population.ids))
    drawn, rest = order[:memes], order[memes:]
    for name in ("config.json", "environment.json", "results.json"):
        shutil.copy(pathlib.Path(workdir) / name, folder / name)
    for split, rows in ((config.data.dev, drawn[::2]), (CERTIFY, drawn[1::2])):
        _write(folder / "0" / evaluate.NAME, split, population, rows)
    try:
        decision = decisions.make(folder, rule, split=CERTIFY)
    except CannotCertifyError:
        return REFUSED, float("nan")
    proba = decision.calibration.apply(population.proba[rest])
    flagged = decision.decide(proba) == decisions.HATEFUL
    value = rate(rule, flagged, population.labels[rest])
    kept = value <= rule.bound if rule.kind == "fpr" else value >= rule.bound
    return KEPT if kept else BROKEN, value


def rate(rule: Rule, flagged: np.ndarray, truth: np.ndarray) -> float:
    """Return the share that a promise bounds, of memes `[n]`; NaN of none."""
    of = {
        "precision": truth[flagged] == 1,
        "recall": flagged[truth == 1],
        "fpr": flagged[truth == 0],
    }[rule.kind]
    return float(of.mean()) if len(of) else float("nan")


def summary(found: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Count outcomes, with the share of the promises that were kept and its error."""
    count = {name: sum(one == name for one, _ in found) for name in OUTCOMES}
    made = count[KEPT] + count[BROKEN]
    values = [value for _, value in found if not np.isnan(value)]
    share = count[KEPT] / made if made else float("nan")
    return count | {
        "kept of those made": share,
        "standard error": float(np.sqrt(share * (1 - share) / made)) if made else None,
        "lowest, median, highest": (
            np.percentile(values, [0, 50, 100]).tolist() if values else None
        ),
    }


def _write(folder: pathlib.Path, split: str, population: Scored, rows: np.ndarray):
    """Write predictions and labels of some of the population as a run does."""
    from memejax import labels, metrics

    ids = [population.ids[row] for row in rows]
    for name in ("labels", "predictions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    metrics.write_predictions(
        folder / "predictions" / f"{split}.csv", ids, proba=population.proba[rows]
    )
    truth = zip(ids, population.labels[rows], population.captions[rows], strict=True)
    with open(folder / "labels" / f"{split}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(labels.HEADER)
        writer.writerows(truth)


if __name__ == "__main__":
    main()
