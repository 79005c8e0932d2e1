"""Charts of a study: errors over updates and ratios, probabilities over updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memejax.report.plots import INK, MUTED
from memejax.report.study import canvas
from memejax.report.study.arms import Arm, Correlations, Toy, score_title
from memejax.report.study.outcomes import differences, interval

# Means that differ by more than this factor are drawn on a log axis.
_LOG_FROM = 3.0
# Quantiles of a fan: outermost, middle and innermost band, and the line.
_FAN = ((0.0, 1.0), (0.05, 0.95), (0.25, 0.75))
# n p below this is drawn here: on a logarithmic axis 0 is infinitely far down.
FLOOR = 1e-3
# What a line favours -> its dashes, marker, hue.
_LOOKS = {"easy": ("-", "o", 0), "hard": ("--", "s", 1), None: (":", "D", 2)}


def learning_curves(arms: Sequence[Arm], *, reference: Arm) -> str:
    """Draw test errors against updates, and their differences to the reference.

    Left the means over seeds, on a logarithmic axis if they span more than a
    factor of three; right the means of the differences to the reference, seed by
    seed, at the updates at which both were evaluated. Bands are 95 % t intervals.

    Args:
        arms: at most as many as hues; those without errors are left out.
        reference: black; it or an arm must have errors.

    Returns:
        A data URI.
    """
    figure, (left, right) = canvas.charts((11.4, 3.3), columns=2)
    shown = [reference, *(arm for arm in arms if arm.name != reference.name)]
    shown = [arm for arm in shown if np.size(arm.test_error)]
    means, apart, last = [], [], 1
    for i, arm in enumerate(shown):
        own = arm.name == reference.name
        colour = INK if own else canvas.HUES[(i - 1) % len(canvas.HUES)]
        look: dict[str, Any] = {
            "color": colour,
            "lw": 1.6 if own else 1.2,
            "ls": "-" if arm.finished else ":",
            "zorder": 3 if own else 2,
        }
        label = arm.title + ("" if arm.finished else " (not finished)")
        steps = np.asarray(arm.steps)
        errors = 100 * np.asarray(arm.test_error, float)
        means.append(_band(left, steps, errors, label=label, **look))
        last = max(last, int(steps[-1]))
        if not own:
            common, points = differences(arm, reference)
            if len(common):
                middle = _band(right, common, 100 * points, **look)
                apart.append(middle[common >= 0.5 * common[-1]])
    everything = np.concatenate(means)
    least, most = float(np.nanmin(everything)), float(np.nanmax(everything))
    if least > 0 and most > _LOG_FROM * least:
        # An interval below 0 is cut by the axis, which the means choose.
        left.set(yscale="log", ylim=(0.9 * least, 1.1 * most))
        canvas.plain_ticks(left.yaxis)
    right.axhline(0.0, color=INK, lw=1.4)
    # Early differences are large and would flatten the late ones, which matter.
    late = np.concatenate([np.zeros(1), *apart])
    room = max(0.6 * np.ptp(late), 0.05)
    right.set_ylim(late.min() - room, late.max() + room)
    left.set_ylabel("test error, %")
    right.set_ylabel("difference to the reference, points")
    for axes in (left, right):
        canvas.updates(axes, 1.02 * last)
    figure.legend(loc="outside right upper", **canvas.LEGEND)
    return canvas.svg(figure)


def learning_curve(arm: Arm) -> str:
    """Draw validation and test error of one arm against updates.

    Args:
        arm: with errors.

    Returns:
        A data URI.
    """
    figure, (axes,) = canvas.charts((7.4, 3.3))
    steps = np.asarray(arm.steps)
    for name, errors, colour in (
        ("test", arm.test_error, INK),
        ("validation", arm.validation_error, canvas.HUES[0]),
    ):
        percent = 100 * np.asarray(errors, float)
        _band(axes, steps, percent, label=name, color=colour, lw=1.4)
    axes.set_ylabel("error, %")
    canvas.updates(axes, 1.02 * int(steps[-1]))
    figure.legend(loc="outside right upper", **canvas.LEGEND)
    return canvas.svg(figure)


def by_ratio(arms: Sequence[Arm], *, reference: Arm) -> str:
    """Draw the last test error against the maximum ratio, one panel per score.

    Args:
        arms: finished ones with a score and a ratio, at least one.
        reference: finished; its mean and 95 % t interval are a band across.

    Returns:
        A data URI.
    """
    scores = list(dict.fromkeys(arm.score for arm in arms))
    ratios = sorted({float(arm.ratio) for arm in arms if arm.ratio is not None})
    place = {ratio: i for i, ratio in enumerate(ratios)}
    size = (max(3.6, 1.0 + 2.3 * len(scores)), 3.0)
    figure, panels = canvas.charts(size, columns=len(scores), sharey=True)
    mean, low, high = (
        float(v) for v in interval(100 * np.asarray(reference.test_error, float)[:, -1])
    )
    for axes, score in zip(panels, scores, strict=True):
        axes.axhspan(low, high, color=INK, alpha=0.1, lw=0)
        axes.axhline(mean, color=INK, lw=1.0, label=canvas.text(reference.title))
        own = [arm for arm in arms if arm.score == score]
        favours = list(dict.fromkeys(arm.favour for arm in own))
        for i, favour in enumerate(favours):
            # Side by side, or one would hide the other.
            beside = 0.12 * (i - (len(favours) - 1) / 2)
            line = [arm for arm in own if arm.favour == favour]
            _favoured(axes, line, place=place, beside=beside)
        axes.set_title(canvas.text(score_title(score or "")), fontsize=8.5)
        axes.set_xticks(range(len(ratios)), [_ratio(ratio) for ratio in ratios])
        axes.set_xlim(-0.4, len(ratios) - 0.6)
        axes.set_xlabel("maximum ratio")
    panels[0].set_ylabel("test error at the last update, %")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=len(handles),
        **canvas.LEGEND,
    )
    return canvas.svg(figure)


def fan(arm: Arm) -> str:
    """Draw quantiles of n p, the probability over a uniform one, against updates.

    Args:
        arm: one with refreshes.

    Returns:
        A data URI.
    """
    figure, (axes,) = canvas.charts((4.6, 2.7))
    # A distribution holds until the next refresh, the last until the end.
    steps = np.array([*(step for step, _ in arm.refreshes), arm.updates])
    relative = [np.asarray(p, float) * np.size(p) for _, p in arm.refreshes]
    relative = [np.maximum(r, FLOOR) for r in [*relative, relative[-1]]]
    for (low, high), alpha in zip(_FAN, (0.15, 0.25, 0.4), strict=True):
        ends = np.array([np.quantile(r, (low, high)) for r in relative]).T
        axes.fill_between(
            steps, *ends, step="post", color=canvas.HUES[0], alpha=alpha, lw=0
        )
    middle = [float(np.median(r)) for r in relative]
    axes.step(steps, middle, where="post", color=canvas.HUES[0], lw=1.4)
    axes.axhline(1.0, color=INK, lw=0.8, ls=(0, (4, 3)))
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # A fan of width 0 becomes a line in the middle instead of magnified noise.
    axes.set_ylim(min(low, 0.5), max(high, 2.0))
    canvas.plain_ticks(axes.yaxis)
    axes.set_ylabel("probability x n")
    canvas.updates(axes, 1.02 * arm.updates)
    return canvas.svg(figure)


def class_shares(arm: Arm, labels: np.ndarray, *, class_names: Sequence[str]) -> str:
    """Draw each class's share of the probability against updates.

    Args:
        arm: one with refreshes of as many examples as labels.
        labels: ints `[n]`, -1 unknown.
        class_names: in the order of the labels; () to use the labels.

    Returns:
        A data URI.
    """
    figure, (axes,) = canvas.charts((4.6, 2.7))
    steps = [*(step for step, _ in arm.refreshes), arm.updates]
    probs = [np.asarray(p, float) for _, p in arm.refreshes]
    present = np.unique(labels[labels >= 0]).tolist()
    for i, label in enumerate(present):
        share = [100 * p[labels == label].sum() for p in [*probs, probs[-1]]]
        name = class_names[label] if label < len(class_names) else label
        colour = canvas.HUES[i % len(canvas.HUES)]
        look = {"color": colour, "ls": "-" if i < len(canvas.HUES) else "--"}
        axes.step(steps, share, where="post", lw=1.2, label=canvas.text(name), **look)
    even = 100 / max(len(present), 1)
    axes.axhline(even, color=INK, lw=0.8, ls=(0, (4, 3)))
    low, high = axes.get_ylim()
    # Similar shares must look similar.
    axes.set_ylim(min(low, 0.6 * even), max(high, 1.4 * even))
    axes.set_ylabel("share of the class, %")
    canvas.updates(axes, 1.02 * arm.updates)
    figure.legend(loc="outside right center", **canvas.LEGEND)
    return canvas.svg(figure)


def heat_map(correlations: Correlations) -> str:
    """Draw rank correlations as colours with their numbers."""
    names, matrix = correlations.names, np.asarray(correlations.matrix, float)
    side = 1.4 + 0.55 * len(names)
    figure, (axes,) = canvas.charts((side + 0.6, side))
    axes.grid(False)
    axes.imshow(np.nan_to_num(matrix), cmap="RdBu", vmin=-1, vmax=1)
    for i, j in np.ndindex(*matrix.shape):
        value = matrix[i, j]
        axes.text(
            j,
            i,
            f"{value:.2f}" if np.isfinite(value) else "-",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if abs(value) > 0.65 else INK,
        )
    shown = [canvas.text(score_title(name)) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return canvas.svg(figure)


def toy(picture: Toy) -> str:
    """Draw curves along a line, each in a panel with its own scale."""
    n = len(picture.curves)
    figure, panels = canvas.charts((5.6, 0.5 + 1.0 * n), rows=n, sharex=True)
    x = np.asarray(picture.x, float)
    for i, (axes, (name, values)) in enumerate(
        zip(panels, picture.curves.items(), strict=True)
    ):
        axes.plot(x, np.asarray(values, float), color=canvas.HUES[i], lw=1.5)
        if picture.train is not None:
            places = np.asarray(picture.train, float)
            axes.plot(
                places,
                np.zeros_like(places),
                "|",
                color=MUTED,
                ms=6,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
        axes.set_title(canvas.text(name), loc="left", fontsize=8.5)
        axes.locator_params(axis="y", nbins=3)
    panels[-1].set_xlim(x.min(), x.max())
    panels[-1].set_xlabel("x")
    return canvas.svg(figure)


def _band(
    axes: Any, steps: np.ndarray, values: np.ndarray, *, label: str = "", **look: Any
) -> np.ndarray:
    """Draw the mean over seeds of `[seeds, k]` with its interval; return the mean."""
    mean, low, high = interval(values)
    axes.plot(
        steps,
        mean,
        marker="." if len(steps) <= 12 else None,
        label=canvas.text(label),
        **look,
    )
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.12, lw=0)
    return mean


def _favoured(
    axes: Any, arms: Sequence[Arm], *, place: Mapping[float, int], beside: float
) -> None:
    """Draw last errors of arms that differ only in their ratio."""
    arms = sorted(arms, key=lambda arm: arm.ratio or 0.0)
    finals = [100 * np.asarray(arm.test_error, float)[:, -1] for arm in arms]
    middle, below, above = np.array([interval(final) for final in finals]).T
    favour = arms[0].favour
    dashes, marker, hue = _LOOKS[favour]
    x = np.array([place[float(arm.ratio or 0.0)] for arm in arms]) + beside
    bounded = np.array([arm.ratio != math.inf for arm in arms])
    # No line leads to the ratio that was not controlled.
    for some, style in ((bounded, dashes), (~bounded, "none")):
        if some.any():
            axes.errorbar(
                x[some],
                middle[some],
                yerr=[(middle - below)[some], (above - middle)[some]],
                color=canvas.HUES[hue],
                ls=style,
                marker=marker,
                ms=4,
                lw=1.2,
                elinewidth=0.9,
                label=f"favours {favour}" if favour else "no direction",
            )


def _ratio(ratio: float) -> str:
    """Format a ratio for the axis."""
    return "not\ncontrolled" if ratio == float("inf") else f"{ratio:g}"
