"""What the stages of a run logged, as plots for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memejax.report import markup, plots, tables
from memejax.report.finished import Finished

_TITLES = {
    "loss": "Loss",
    "cass": "CASS term",
    "variance": "Variance term",
    "covariance": "Covariance term",
    "bce": "Cross-entropy by arm",
    "lr": "Learning rate",
    "auroc": "AUROC",
}
# What a line of metrics.jsonl holds that is no curve of the page.
_NOT_DRAWN = ("step", "split", "clock", "grad_norm")
# Room for the threshold and for the healthy value.
_HEIGHTS = {"std": (0.0, 1.1), "mean_cosine": (None, 1.05), "effective_rank": (0, None)}


def figures(run: Finished, stage: str) -> list[str]:
    """HTML figures of a stage's metrics, every seed in each; [] without the stage."""
    logged = _logged(run, stage)
    last = max((c.x[-1] for curves in logged.values() for c in curves), default=1)
    return [
        _plot(run, stage, group, curves, last)
        for group, curves in sorted(logged.items(), key=_order)
    ]


def _logged(run: Finished, stage: str) -> dict[tuple[str, str], list[plots.Line]]:
    """(Split, group of metrics) -> curves, a metric and seed each."""
    found: dict[tuple[str, str], list[plots.Line]] = {}
    for seed in run.seeds:
        own: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
        for line in run.lines(seed, stage):
            for name, value in line.items():
                if name in _NOT_DRAWN or not tables.is_number(value):
                    continue
                # "collapse/ARM/std" is of the group std, "bce/ARM" of bce.
                group, _, arm = name.removeprefix("collapse/").partition("/")
                if arm in tables.MEASURES:
                    group, arm = arm, group
                x, y = own.setdefault((line["split"], group, arm), ([], []))
                x.append(line["step"])
                y.append(value)
        styles = plots.styles(arm for _, _, arm in own)
        for (split, group, arm), (x, y) in own.items():
            curve = plots.Line(arm, x, y, styles[arm])
            found.setdefault((split, group), []).append(curve)
    return found


def _order(item: tuple[tuple[str, str], Any]) -> tuple[bool, int, str]:
    """The loss, its parts, the panel, the learning rates; then the dev split."""
    (split, group), _ = item
    first = ("loss", "", *tables.MEASURES, "lr")
    place = first.index(group) if group in first else first.index("")
    return split != "train", place, group


def _plot(
    run: Finished,
    stage: str,
    key: tuple[str, str],
    curves: Sequence[plots.Line],
    last: float,
) -> str:
    """One group of metrics against the stage's updates."""
    split, group = key
    measure, bounds, marks = tables.MEASURES.get(group), {}, []
    title = _TITLES.get(group, group)
    if measure:
        title = measure.name.capitalize()
        bounds = {f"collapsed {measure.collapsed}": measure.bound}
    if split != "train":
        title += f" on {split}"
    if group == "auroc":
        bounds = {"constant 0.5": 0.5}
        outcomes = (run.results["seeds"][seed].get(stage, {}) for seed in run.seeds)
        marks = [
            (outcome["best_step"], outcome["best"])
            for outcome in outcomes
            if outcome.get("best_step") and tables.is_number(outcome.get("best"))
        ]
    picture = plots.lines(
        curves, last=last, bounds=bounds, marks=marks, ylim=_HEIGHTS.get(group)
    )
    ends: dict[str, list[float]] = {}
    for curve in curves:
        ends.setdefault(curve.label, []).append(curve.y[-1])
    said = "; ".join(f"{arm} {_range(last)}".strip() for arm, last in ends.items())
    chosen = " A ring: the checkpoint that was chosen." if marks else ""
    return markup.figure(picture, title, f"At the end: {said}.{chosen}")


def _range(values: Sequence[float]) -> str:
    """The least and the greatest of a figure, or the only one."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
