"""results.json as tables of text, the same for the console and for the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from memejax.scores import AVERAGE
from memejax.losses import collapse

# The row of the predictor that knows only the share of positives.
CONSTANT = "constant"
_FIGURES = ("auroc", "accuracy", "threshold_accuracy", "f1")
# The breaks are the console's: a head may not be wider than its numbers.
_COLUMNS = ("", "AUROC", "accuracy\nat 0.5", "accuracy at\ndev threshold", "F1")
# The split a headline speaks of, if it is there: the challenge's last test set first.
_HEADLINE = ("test_unseen", "test_seen", "test")


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure of collapse, and how to read it.

    Attributes:
      name: for a person.
      healthy: what it is where nothing is wrong.
      collapsed: what it is in a collapse.
      bound: the number in `collapsed`.
      digits: to print.
    """

    name: str
    healthy: str
    collapsed: str
    bound: float
    digits: int


def _measure(name: str, healthy: str, side: str, bound: float, digits: int) -> Measure:
    return Measure(name, healthy, f"{side} {bound:g}", bound, digits)


MEASURES = {
    "std": _measure("std", "near 1", "below", collapse.MIN_STD, 3),
    "mean_cosine": _measure(
        "mean cosine", "near 0", "above", collapse.MAX_MEAN_COSINE, 3
    ),
    "effective_rank": _measure(
        "effective rank", "tens or more", "below", collapse.MIN_EFFECTIVE_RANK, 1
    ),
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for a person.

    Attributes:
      title: says of what, of how many and of which preset.
      columns: the head; the first column names the row.
      rows: as many cells as columns, numbers as they are to be read.
      notes: sentences under the table.
      left: so many columns are read from the left, the others from the right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1


def splits(results: Mapping[str, Any]) -> dict[str, Table]:
    """A table for each labelled split, the one that chose the checkpoint last.

    Args:
      results: what results.json holds.

    Returns:
      Split -> rows of each arm, their average, the constant predictor and, for the
      built-in memes, the best possible.
    """
    names = sorted(results["summary"], key=lambda name: (name == results["dev"], name))
    return {name: _split(results, name) for name in names}


def pretraining(results: Mapping[str, Any]) -> Table | None:
    """What the collapse panel of each seed and arm last said; None without one."""
    panels = {
        seed: stages["pretrain"]
        for seed, stages in results["seeds"].items()
        if stages.get("pretrain", {}).get("panel")
    }
    if not panels:
        return None
    rows, collapsed = [], []
    for seed, outcome in panels.items():
        reasons = outcome.get("why_collapsed", [])
        if outcome.get("collapsed"):
            collapsed.append(f"Seed {seed}: {'; '.join(reasons)}.")
        for arm in sorted({name.split("/")[0] for name in outcome["panel"]}):
            figures = [
                number(outcome["panel"].get(f"{arm}/{key}"), digits=measure.digits)
                for key, measure in MEASURES.items()
            ]
            bad = any(reason.startswith(f"{arm}:") for reason in reasons)
            verdict = "COLLAPSED" if bad else "not collapsed"
            rows.append([f"{arm}, seed {seed}", *figures, verdict])
    rows.append(["healthy", *(m.healthy for m in MEASURES.values()), ""])
    rows.append(["collapsed", *(m.collapsed for m in MEASURES.values()), ""])
    verdict = (
        f"COLLAPSED in {len(collapsed)} of {_count(panels, 'seed')}"
        if collapsed
        else "not collapsed"
    )
    return Table(
        title=f"Pretraining: {verdict} (preset {results['preset']})",
        columns=("", *(m.name for m in MEASURES.values()), "verdict"),
        rows=rows,
        notes=collapsed,
    )


def stages(results: Mapping[str, Any]) -> Table:
    """How long each stage of each seed took, and its best checkpoint."""
    # results.json is sorted by name; a person reads in the order of time.
    rows = [
        [
            f"{stage}, seed {seed}",
            str(stages[stage]["steps"]),
            f"{stages[stage]['seconds']:.1f}",
            number(stages[stage].get("best")),
            str(stages[stage].get("best_step") or "-"),
        ]
        for seed, stages in results["seeds"].items()
        for stage in ("pretrain", "finetune")
        if stage in stages
    ]
    return Table(
        title=f"Training (preset {results['preset']})",
        columns=(
            "",
            "updates",
            "seconds",
            f"best AUROC\non {results['dev']}",
            "update",
        ),
        rows=rows,
    )


def sentence(results: Mapping[str, Any]) -> str:
    """The main result in plain words."""
    split = headline(results)
    if split is None:
        return "No labelled split was evaluated, so there is no figure to report."
    figure = results["summary"][split][AVERAGE]["auroc"]
    reports = _reports(results, split, AVERAGE)
    mean, std = figure["mean"], figure["std"]
    low, high = (reports[0].get(f"auroc_{side}") for side in ("low", "high"))
    start, doubt = "The", ""
    shown = number(mean)
    if len(reports) > 1:
        start = f"Over {len(reports)} seeds, the"
        if is_number(std):
            shown += f" ± {std:.4f}"
            doubt = " 0.5 is within one standard deviation." * (abs(mean - 0.5) <= std)
    elif is_number(low) and is_number(high):
        shown += f" (95 % interval {low:.3f} to {high:.3f})"
        if low <= 0.5 <= high:
            doubt = " The interval holds 0.5: this run shows no skill."
    text = (
        f"{start} average of the arms reaches an AUROC of {shown} on {split} "
        f"({_count(reports[0]['n'], 'meme')}); a constant predictor has 0.5.{doubt}"
    )
    if split == results["dev"]:
        text += " That split chose the checkpoint: the figure is optimistic."
    return text


def headline(results: Mapping[str, Any]) -> str | None:
    """The split that the main result is read from; None without a labelled one."""
    names = list(splits(results))
    return next((name for name in _HEADLINE if name in names), next(iter(names), None))


def arms(rows: Mapping[str, Any]) -> list[str]:
    """The rows' names in the order of a table: arms, average, constant."""
    last = (AVERAGE, CONSTANT)
    own = sorted(name for name in rows if name not in last)
    return own + [name for name in last if name in rows]


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether a figure is there: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def number(value: float | None, *, digits: int = 4) -> str:
    """A figure to some digits, "-" where there is none."""
    return f"{value:.{digits}f}" if is_number(value) else "-"


def _split(results: Mapping[str, Any], split: str) -> Table:
    """The table of one split."""
    summary, dev = results["summary"][split], results["dev"]
    rows, many = [], 1
    for arm in arms(summary):
        reports = _reports(results, split, arm)
        many = len(reports)
        cells = [_cell(summary[arm].get(f), spread=arm != CONSTANT) for f in _FIGURES]
        if many == 1 and arm != CONSTANT:
            cells[0] += _interval(reports[0])
        rows.append([arm, *cells])
    n = _reports(results, split, rows[0][0])[0]["n"]
    notes = []
    if many > 1:
        notes.append(f"± is the standard deviation over {many} seeds.")
    elif any("[" in row[1] for row in rows):
        notes.append("In brackets: 95 % interval over resampled memes.")
    bayes = results["data"].get("bayes")
    if bayes:
        both = bayes["both"]
        best = [number(both["auroc"]), number(both["accuracy"]), "-", "-"]
        rows.append(["Bayes (possible)", *best])
        notes.append(
            "Bayes: the best possible on these built-in memes; its AUROC from the "
            f"image alone is {number(bayes['image']['auroc'])}, from the caption alone "
            f"{number(bayes['text']['auroc'])}."
        )
    title = f"{split}: {_count(n, 'meme')}, preset {results['preset']}"
    if split == dev:
        title += " (chose the checkpoint: optimistic)"
        notes.insert(0, "This split also chose the threshold.")
    # What follows a number must not move it out of line with those above it.
    return Table(title, _COLUMNS, rows, notes, left=2 if many == 1 else len(_COLUMNS))


def _reports(results: Mapping[str, Any], split: str, arm: str) -> list[dict[str, Any]]:
    """What each evaluated seed says of an arm."""
    return [
        outcomes["evaluate"]["splits"][split][arm]
        for outcomes in results["seeds"].values()
        if "evaluate" in outcomes
    ]


def _cell(figure: Mapping[str, float | None] | None, *, spread: bool) -> str:
    """The mean, and the standard deviation where there is one to show."""
    if figure is None:
        return "-"
    text, std = number(figure["mean"]), figure["std"]
    return f"{text} ± {std:.4f}" if spread and std is not None else text


def _interval(report: Mapping[str, Any]) -> str:
    """The AUROC's interval in brackets, nothing where there is none."""
    low, high = report.get("auroc_low"), report.get("auroc_high")
    return f" [{low:.3f}, {high:.3f}]" if is_number(low) and is_number(high) else ""


def _count(things: Any, noun: str) -> str:
    """1 seed, 2 seeds."""
    n = things if isinstance(things, int) else len(things)
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
