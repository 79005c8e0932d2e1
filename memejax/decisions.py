"""Decisions of a finished run: calibrated probabilities and a threshold by a rule.

The dev split, which chose the checkpoint, calibrates; the threshold is found on memes
that did neither. Only the run's own files are read, and no network is needed.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from memejax import folder, labels, metrics, strict_json
from memejax.data import hateful_memes
from memejax.datasets.data import CERTIFY
from memejax.errors import UserError
from memejax.metrics import AVERAGE, calibration, thresholds
from memejax.metrics.calibration import Calibration
from memejax.metrics.thresholds import Certified, Rule
from memejax.restored import read_finished, seeds_of
from memejax.stages import evaluate

FILE = "decision.json"
# Decisions on a meme.
HATEFUL, NOT_HATEFUL, REVIEW = "hateful", "not hateful", "review"


class Scored(NamedTuple):
    """Scores of a labelled split.

    Attributes:
        proba: P(hateful), the mean over the seeds, float64 `[n]`.
        labels: int64 `[n]`.
        captions: digests, `[n]`.
        ids: `[n]`.
    """

    proba: np.ndarray
    labels: np.ndarray
    captions: np.ndarray
    ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Decision:
    """A way from a raw probability to a decision.

    Attributes:
        arm: one of the run's arms, or "average".
        seeds: whose probabilities are averaged.
        calibration: of the raw probability.
        prevalence: share of hateful memes where it was found.
        losses: kind of calibration -> cross-validated log loss on the dev split.
        rule: that the threshold keeps.
        certified: the threshold, of calibrated probabilities, and its evidence.
        delta: probability that a promise is not kept.
        split: that the threshold was found on.
        abstain: calibrated probabilities from the first to the second go to a person,
            and the rule is kept on all others; None: none.
    """

    arm: str
    seeds: tuple[str, ...]
    calibration: Calibration
    prevalence: float
    losses: Mapping[str, float]
    rule: Rule
    certified: Certified
    delta: float
    split: str
    abstain: tuple[float, float] | None = None

    def decide(self, proba: np.ndarray) -> np.ndarray:
        """Return the decision for each calibrated probability, str `[n]`."""
        above = np.asarray(proba) > self.certified.threshold
        found = np.where(above, HATEFUL, NOT_HATEFUL).astype(object)
        found[_between(proba, self.abstain)] = REVIEW
        return found

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, for `read`."""
        made = dataclasses.asdict(self)
        return made | {
            "rule": str(self.rule),
            "calibration": self.calibration.as_json(),
        }


def _between(proba: np.ndarray, abstain: tuple[float, float] | None) -> np.ndarray:
    """Return which probabilities go to a person, bool `[n]`."""
    if abstain is None:
        return np.zeros(len(proba), bool)
    return (proba >= abstain[0]) & (proba <= abstain[1])


def scored(
    workdir: str | os.PathLike[str], split: str, *, seeds: Sequence[str], arm: str
) -> Scored:
    """Read the probabilities and labels of a split of a finished run.

    Args:
        workdir: the run's folder.
        split: with labels.
        seeds: whose probabilities are averaged.
        arm: one of the run's arms, or "average".

    Raises:
        UserError: if there are no such predictions, or no labels beside them.
    """
    path = pathlib.Path(workdir)
    found, truth = [], None
    for seed in seeds:
        stage = path / seed / evaluate.NAME
        file = stage / "labels" / f"{split}.csv"
        if not file.exists():
            have = sorted(one.stem for one in (stage / "labels").glob("*.csv"))
            raise UserError(
                f"the run in {path} has no labels of a split {split!r}"
                + (f": it has {', '.join(have)}" if have else "")
            )
        truth = labels.read(file)
        suffix = "" if arm == AVERAGE else f".{arm}"
        predicted = stage / "predictions" / f"{split}{suffix}.csv"
        if not predicted.exists():
            raise UserError(f"the run in {path} has no arm {arm!r}: no {predicted}")
        ids, proba, _ = metrics.read_predictions(predicted)
        if ids != truth.ids:
            raise UserError(f"{predicted} and {file} have different memes")
        found.append(proba)
    assert truth is not None
    mean = np.mean(found, axis=0)
    return Scored(mean, truth.labels, truth.captions, truth.ids)


def make(
    workdir: str | os.PathLike[str],
    rule: Rule,
    *,
    seed: str = "0",
    arm: str = AVERAGE,
    split: str | None = None,
    delta: float = 0.05,
    abstain: tuple[float, float] | None = None,
) -> Decision:
    """Calibrate a finished run, and find the threshold that keeps a rule.

    Args:
        workdir: the run's folder.
        rule: to keep.
        seed: one of its seeds, or "all" for the mean of all of them.
        arm: one of its arms, or "average".
        split: labelled, that chose neither checkpoint nor calibration; None: the part
            of the dev split that `data.certify` held back.
        delta: probability that a promise is not kept.
        abstain: calibrated probabilities that go to a person, from the first to the
            second; the rule is kept on the others.

    Raises:
        UserError: if the run is not finished, or lacks the seed, the arm or the split.
        metrics.thresholds.CannotCertifyError: if no threshold keeps the rule.
    """
    config, _ = read_finished(workdir)
    seeds = seeds_of(workdir, seed)
    if abstain is not None and not 0 <= abstain[0] < abstain[1] <= 1:
        raise UserError(
            f"abstain goes from {abstain[0]:g} to {abstain[1]:g}, expected two rising "
            "probabilities"
        )
    dev = config.data.dev
    if split is None:
        split = CERTIFY
        if not getattr(config.data, "certify", 0):
            raise UserError(
                f"all of {dev} chose the checkpoint of this run: name another labelled "
                "split with --certify"
                + (
                    ", or train with --config.data.certify=0.5, which holds half back"
                    if "certify" in config.data
                    else ""
                )
            )
    if split in (dev, "train"):
        raise UserError(
            f"{split} chose the parameters or the checkpoint: a threshold found on it "
            "would promise too much"
        )
    chose = scored(workdir, dev, seeds=seeds, arm=arm)
    fitted, losses = calibration.choose(
        chose.proba, chose.labels, groups=chose.captions
    )
    held = scored(workdir, split, seeds=seeds, arm=arm)
    proba, others = fitted.apply(held.proba), fitted.apply(chose.proba)
    # What goes to a person is not decided: the rule is kept on the rest.
    rest = ~_between(proba, abstain)
    others = others[~_between(others, abstain)]
    start = thresholds.best_start(others, rule, n=int(rest.sum()), delta=delta)
    certified = thresholds.certify(
        proba[rest], held.labels[rest], rule, delta=delta, start=start
    )
    return Decision(
        arm,
        seeds,
        fitted,
        float(chose.labels.mean()),
        losses,
        rule,
        certified,
        delta,
        split,
        abstain,
    )


def write(workdir: str | os.PathLike[str], decision: Decision) -> pathlib.Path:
    """Write a decision to its run's folder, where `predict` finds it."""
    path = pathlib.Path(workdir) / FILE
    folder.write_json(path, decision.as_json())
    return path


def read(workdir: str | os.PathLike[str]) -> Decision | None:
    """Return the decision of a run, None without one."""
    saved = folder.read_json(pathlib.Path(workdir) / FILE)
    if saved is None:
        return None
    if "prevalence" not in saved:
        raise UserError(
            f"the {FILE} in {workdir} is of an earlier memejax: run python -m "
            "memejax.decide again"
        )
    abstain = saved["abstain"]
    return Decision(
        saved["arm"],
        tuple(saved["seeds"]),
        Calibration.from_json(saved["calibration"]),
        saved["prevalence"],
        saved["losses"],
        thresholds.parse_rule(saved["rule"]),
        Certified(**saved["certified"]),
        saved["delta"],
        saved["split"],
        None if abstain is None else (abstain[0], abstain[1]),
    )


def column(
    workdir: str | os.PathLike[str], name: str, *, root: str | None = None
) -> dict[str, str]:
    """Read a field of a run's memes.

    Args:
        workdir: the run's folder.
        name: of the field in the jsonl files.
        root: their folder; None: the run's.

    Returns:
        Id -> value as text; memes without the field are left out.

    Raises:
        UserError: if there are no files, or no meme has the field.
    """
    if root is None:
        config, _ = read_finished(workdir)
        root = config.data.root or os.fspath(pathlib.Path(workdir) / "memes")
    values: dict[str, str] = {}
    for path in hateful_memes.find_splits(root).values():
        for line in pathlib.Path(path).read_text("utf-8").splitlines():
            record = strict_json.loads(line) if line.strip() else {}
            if name in record:
                values[str(record.get("id"))] = str(record[name])
    if not values:
        raise UserError(f"no meme in {root} has a field {name!r}")
    return values


def by_group(
    found: Scored, decided: np.ndarray, groups: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure a split's subgroups against all others of it.

    Args:
        found: with calibrated probabilities.
        decided: bool `[n]`, whether a meme is flagged.
        groups: of each meme, `[n]`.

    Returns:
        Group -> `n`; `positives`; `auroc` within it; `bpsn` and `bnsp`, the AUROC of
        the others' positives with its negatives and of the others' negatives with its
        positives; `fpr` and `fnr`; and `fpr_gap` and `fnr_gap` to all memes. NaN where
        a figure needs a label that is not there.

    References:
        Borkan et al., Nuanced Metrics for Measuring Unintended Bias with Real Data for
        Text Classification, arXiv 1903.04561.
    """
    proba, truth = found.proba, found.labels
    names = np.asarray(groups)

    def area(rows: np.ndarray) -> float:
        if len(np.unique(truth[rows])) < 2:
            return float("nan")
        return metrics.auroc(proba[rows], truth[rows])

    def share(rows: np.ndarray) -> float:
        return float(decided[rows].mean()) if rows.any() else float("nan")

    def rates(rows: np.ndarray) -> tuple[float, float]:
        return share(rows & (truth == 0)), 1 - share(rows & (truth == 1))

    everything = rates(np.ones(len(truth), bool))
    table = {}
    for name in sorted(set(names.tolist())):
        own = names == name
        fpr, fnr = rates(own)
        table[str(name)] = {
            "n": int(own.sum()),
            "positives": int(truth[own].sum()),
            "auroc": area(own),
            "bpsn": area((own & (truth == 0)) | (~own & (truth == 1))),
            "bnsp": area((own & (truth == 1)) | (~own & (truth == 0))),
            "fpr": fpr,
            "fnr": fnr,
            "fpr_gap": fpr - everything[0],
            "fnr_gap": fnr - everything[1],
        }
    return table
