"""Tables of text from results.json, the same for the console and for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from memejax import metrics
from memejax.metrics import AVERAGE
from memejax.outcomes import evaluated, evaluated_seeds
from memejax.report import probed
from memejax.report.cells import Table as Table
from memejax.report.cells import count
from memejax.report.cells import is_number as is_number
from memejax.report.cells import number as number
from memejax.report.panel import MEASURES as MEASURES
from memejax.report.panel import PROTOTYPES as PROTOTYPES
from memejax.report.panel import dino as dino
from memejax.report.panel import pretraining as pretraining
from memejax.report.probed import representation as representation
from memejax.stages import STAGES

# Row of the predictor that knows only the share of positives.
CONSTANT = "constant"
_FIGURES = ("auroc", "accuracy", "threshold_accuracy", "f1")
# Line breaks keep a head from being wider than its numbers on the console.
_COLUMNS = ("", "AUROC", "accuracy\nat 0.5", "accuracy at\ndev threshold", "F1")
# Splits for the main result, the first that there is: test sets of the challenge.
_HEADLINE = ("test_unseen", "test_seen", "test")


def splits(results: Mapping[str, Any]) -> dict[str, Table]:
    """Return a table for each labelled split, the one that chose the checkpoint last.

    Args:
        results: content of results.json.

    Returns:
        Split -> rows of each arm, their average, the constant predictor and, for the
        built-in memes, the best possible.
    """
    names = sorted(results["summary"], key=lambda name: (name == results["dev"], name))
    return {name: _split(results, name) for name in names}


def stages(results: Mapping[str, Any]) -> Table | None:
    """Duration and best checkpoint of each stage of each seed; None without stages."""
    # results.json is sorted by name; a person reads in order of time.
    found = [
        (f"{stage}, seed {seed}", outcomes[stage])
        for seed, outcomes in results["seeds"].items()
        for stage, kind in STAGES.items()
        if kind.make is not None and stage in outcomes
    ]
    if not found:
        return None
    rows = [
        [
            name,
            str(outcome["steps"]),
            f"{outcome['seconds']:.1f}",
            number(outcome.get("best")),
            str(outcome.get("best_step") or "-"),
        ]
        for name, outcome in found
    ]
    columns = ("", "updates", "seconds", f"best AUROC\non {results['dev']}", "update")
    # Without labels no checkpoint is better than another.
    shown = 5 if any(outcome.get("best_step") for _, outcome in found) else 3
    return Table(
        title=f"Training (preset {results['preset']})",
        columns=columns[:shown],
        rows=[row[:shown] for row in rows],
    )


def _errors(results: Mapping[str, Any]) -> list[str]:
    """Error of each part over all seeds, one line each."""
    lines = []
    for part, errors in results["errors"].items():
        mean, std = metrics.mean_std(errors)
        spread = "" if math.isnan(std) else f" ± {std:.2%}"
        lines.append(f"{part} error {mean:.2%}{spread} ({len(errors)} seeds)")
    return lines


def sentence(results: Mapping[str, Any]) -> str:
    """Return the main result in plain words."""
    if "errors" in results:
        return "\n".join(_errors(results))
    split = headline(results)
    if split is None:
        return probed.sentence(results) or (
            "No labelled split was evaluated, so there is no figure to report."
        )
    figure = results["summary"][split][AVERAGE]["auroc"]
    reports = _reports(results, split, AVERAGE)
    mean, std = figure["mean"], figure["std"]
    low, high = (reports[0].get(f"auroc_{side}") for side in ("low", "high"))
    start, doubt = "The", ""
    own = shown_arms(results["summary"][split])
    subject = "average of the arms" if AVERAGE in own else f"arm {own[0]}"
    reached = number(mean)
    if len(reports) > 1:
        start = f"Over {len(reports)} seeds, the"
        if is_number(std):
            reached += f" ± {std:.4f}"
            doubt = " 0.5 is within one standard deviation." * (abs(mean - 0.5) <= std)
    elif is_number(low) and is_number(high):
        reached += f" (95 % interval {low:.3f} to {high:.3f})"
        if low <= 0.5 <= high:
            doubt = " The interval holds 0.5: this run shows no skill."
    text = (
        f"{start} {subject} reaches an AUROC of {reached} on {split} "
        f"({count(reports[0]['n'], 'meme')}); a constant predictor has 0.5.{doubt}"
    )
    if split == results["dev"]:
        text += " That split chose the checkpoint: the figure is optimistic."
    return text


def headline(results: Mapping[str, Any]) -> str | None:
    """Return the split of the main result; None without a labelled one."""
    names = list(splits(results))
    return next((name for name in _HEADLINE if name in names), next(iter(names), None))


def arms(rows: Mapping[str, Any]) -> list[str]:
    """Names of rows in the order of a table: arms, average, constant."""
    last = (AVERAGE, CONSTANT)
    own = sorted(name for name in rows if name not in last)
    return own + [name for name in last if name in rows]


def shown_arms(rows: Mapping[str, Any]) -> list[str]:
    """Return the names of `arms` without an average that equals the only arm."""
    own = metrics.shown_arms(name for name in rows if name != CONSTANT)
    return [name for name in arms(rows) if name in own or name == CONSTANT]


def _own_checkpoints(results: Mapping[str, Any]) -> bool:
    """Whether rows of some seed are of different checkpoints."""
    found = [evaluated(outcomes) for outcomes in results["seeds"].values()]
    return any(len(set((o or {}).get("checkpoints", {}).values())) > 1 for o in found)


def _split(results: Mapping[str, Any], split: str) -> Table:
    """The table of one split."""
    summary, dev = results["summary"][split], results["dev"]
    rows, many = [], 1
    for arm in shown_arms(summary):
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
    if _own_checkpoints(results):
        notes.append("Each arm and the average have their own best checkpoint.")
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
    title = f"{split}: {count(n, 'meme')}, preset {results['preset']}"
    if split == dev:
        title += " (chose the checkpoint: optimistic)"
        notes.insert(0, "This split also chose the threshold.")
    # An interval behind a number must not move it out of line with those above.
    return Table(title, _COLUMNS, rows, notes, left=2 if many == 1 else len(_COLUMNS))


def _reports(results: Mapping[str, Any], split: str, arm: str) -> list[dict[str, Any]]:
    """Figures of an arm, one report for each evaluated seed."""
    return [splits[split][arm] for splits in evaluated_seeds(results)]


def _cell(figure: Mapping[str, float | None] | None, *, spread: bool) -> str:
    """The mean, and the standard deviation if there is one."""
    if figure is None:
        return "-"
    text, std = number(figure["mean"]), figure["std"]
    return f"{text} ± {std:.4f}" if spread and std is not None else text


def _interval(report: Mapping[str, Any]) -> str:
    """Interval of the AUROC in brackets; "" if it is not known."""
    low, high = report.get("auroc_low"), report.get("auroc_high")
    return f" [{low:.3f}, {high:.3f}]" if is_number(low) and is_number(high) else ""
