"""Charts of the metrics that the stages of a run logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from memejax.report import plots, tables
from memejax.report.blocks import Figure
from memejax.report.finished import Finished

_TITLES = {
    "loss": "Loss",
    "cass": "CASS term",
    "variance": "Variance term",
    "covariance": "Covariance term",
    "bce": "Cross-entropy by arm",
    "dino": "DINO's loss by arm",
    "cross_entropy": "DINO's loss by arm",
    "teacher_entropy": "Entropy of the teacher",
    "kl": "KL, student from teacher",
    "momentum": "Momentum of the teacher",
    "teacher_temperature": "Temperature of the teacher",
    "lr": "Learning rate",
    "auroc": "AUROC",
}
# Names in a line of metrics.jsonl that are no curve of the page.
_NOT_DRAWN = ("step", "split", "clock", "grad_norm")
# Order of the groups; any other takes the place of "".
_FIRST = ("loss", "dino", "teacher_entropy", "kl", "prototypes", "")
_LAST = ("momentum", "teacher_temperature", "lr")
_LOG_K = "log_k"
# Room for the threshold and for the healthy value.
_HEIGHTS = {
    "std": (0.0, 1.1),
    "mean_cosine": (None, 1.05),
    "effective_rank": (0, None),
    "teacher_entropy": (0, None),
    "kl": (0, None),
    "prototypes": (0, None),
}


def figures(run: Finished, stage: str) -> list[Figure]:
    """Figures of a stage's metrics, every seed in each; [] without the stage."""
    logged = _logged(run, stage)
    # Not a curve of its own, but the height of a line in others.
    log_k = next((c.y[-1] for c in logged.pop(("train", _LOG_K), [])), None)
    if any(group == "dino" for _, group in logged):
        # The same loss, but only for updates with a panel.
        logged.pop(("train", "cross_entropy"), None)
    last = max((c.x[-1] for curves in logged.values() for c in curves), default=1)
    return [
        _plot(run, stage, group, curves, last, log_k)
        for group, curves in sorted(logged.items(), key=_order)
    ]


def _logged(run: Finished, stage: str) -> dict[tuple[str, str], list[plots.Line]]:
    """(Split, group of metrics) -> curves, one for each metric and seed."""
    found: dict[tuple[str, str], list[plots.Line]] = {}
    for seed in run.seeds:
        own: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
        for line in run.lines(seed, stage):
            for name, value in line.items():
                if name in _NOT_DRAWN or not tables.is_number(value):
                    continue
                # "collapse/ARM/std" is of the group std, "bce/ARM" of bce.
                group, _, arm = name.removeprefix("collapse/").partition("/")
                if name.startswith("collapse/"):
                    group, arm = arm, group
                if group == "mean_entropy":
                    group, value = "prototypes", math.exp(value)
                x, y = own.setdefault((line["split"], group, arm), ([], []))
                x.append(line["step"])
                y.append(value)
        styles = plots.styles(arm for _, _, arm in own)
        for (split, group, arm), (x, y) in own.items():
            curve = plots.Line(arm, x, y, styles[arm])
            found.setdefault((split, group), []).append(curve)
    return found


def _order(item: tuple[tuple[str, str], Any]) -> tuple[bool, int, str]:
    """Sort key: loss, its parts, panel, learning rates; then the dev split."""
    (split, group), _ = item
    order = (*_FIRST, *tables.MEASURES, *_LAST)
    place = order.index(group if group in order else "")
    return split != "train", place, group


def _plot(
    run: Finished,
    stage: str,
    key: tuple[str, str],
    curves: Sequence[plots.Line],
    last: float,
    log_k: float | None,
) -> Figure:
    """One group of metrics against the stage's updates."""
    split, group = key
    measures = tables.MEASURES | {"prototypes": tables.PROTOTYPES}
    measure, bounds, marks = measures.get(group), {}, []
    title = _TITLES.get(group, group)
    if group in ("dino", "cross_entropy", "teacher_entropy") and log_k is not None:
        bounds = {f"uniform: ln K = {log_k:.3f}": log_k}
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
    listed = "; ".join(f"{arm} {_range(last)}".strip() for arm, last in ends.items())
    chosen = " A ring: the checkpoint that was chosen." if marks else ""
    return Figure(picture, title, f"At the end: {listed}.{chosen}")


def _range(values: Sequence[float]) -> str:
    """Smallest and largest value of a figure, or its only one."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
