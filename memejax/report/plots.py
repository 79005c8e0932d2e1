"""Small charts for the page, each an SVG in a data URI.

In an image of its own an SVG has its fonts as outlines, and its ids clash with no
others. Figures are made without pyplot, which would keep them alive.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from memejax.metrics import AVERAGE

# The page has one colour and greys: charts can be read in print and without colour.
ACCENT = "#0b6e8a"
INK = "#1f2933"
MUTED = "#8a94a0"
_STYLES = (
    (ACCENT, "-"),
    (INK, "-"),
    (MUTED, "-"),
    (INK, "--"),
    (MUTED, "--"),
    (INK, ":"),
    (MUTED, ":"),
)
_SMALL, _LARGE = (2.9, 2.15), (3.7, 3.1)
# Above the plot a legend hides no curve.
_ABOVE = {
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 0.98),
    "ncols": 3,
    "frameon": False,
    "fontsize": 7.5,
    "handlelength": 1.4,
    "columnspacing": 1.0,
}
# More points than this are averaged in blocks: they are finer than the plot.
_POINTS = 1000


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: in the legend; lines of one label (seeds) share an entry.
        x: `[n]`.
        y: `[n]`.
        style: 0 for the accent colour, others are greys.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0


def styles(arms: Iterable[str]) -> dict[str, int]:
    """Return a style for each arm; the average has the accent colour."""
    own = sorted(set(arms) - {AVERAGE, ""})
    return {AVERAGE: 0, "": 0} | {arm: i + 1 for i, arm in enumerate(own)}


def lines(
    curves: Sequence[Line],
    *,
    last: float,
    bounds: Mapping[str, float] | None = None,
    marks: Sequence[tuple[float, float]] = (),
    ylim: tuple[float | None, float | None] | None = None,
) -> str:
    """Draw curves against updates.

    Args:
        curves: at least one.
        last: end of the x axis.
        bounds: label -> height of a dashed line across the plot.
        marks: points to ring.
        ylim: lower and upper end of the y axis; None for a free end.

    Returns:
        A data URI.
    """
    figure, axes = _axes(_SMALL)
    _draw(axes, curves, marker=True)
    for x, y in marks:
        axes.plot([x], [y], "o", ms=6, mfc="none", mec=ACCENT, clip_on=False)
    for label, height in (bounds or {}).items():
        axes.axhline(height, color="#b42318", lw=0.9, ls=(0, (4, 2)))
        above = height > sum(axes.get_ylim()) / 2
        axes.annotate(
            _text(label),
            (0.99, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, -2 if above else 2),
            textcoords="offset points",
            ha="right",
            va="top" if above else "bottom",
            fontsize=7,
            color="#b42318",
        )
    if ylim is not None:
        axes.set_ylim(*ylim)
        if ylim[1] is None:
            # The curves alone, whose range may be tiny, set the room above.
            low, high = axes.get_ylim()
            axes.set_ylim(top=high + 0.05 * (high - low))
    axes.set_xlabel("update")
    # Room for half a marker.
    axes.set_xlim(0, 1.02 * last)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    _legend(axes, curves)
    return _uri(figure)


def roc(curves: Sequence[Line]) -> str:
    """Draw ROC curves: true against false positive rate."""
    figure, axes = _axes(_LARGE)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    _draw(axes, curves)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    _legend(axes, curves, loc="lower right", bbox_to_anchor=None, ncols=1)
    return _uri(figure)


def reliability(diagrams: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Draw shares of positives against probabilities.

    Args:
        diagrams: label -> bins, see `metrics.calibration.reliability`; the last one has
            the accent colour, and its intervals.

    Returns:
        A data URI.
    """
    figure, axes = _axes(_LARGE)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    *_, (last, bins) = diagrams.items()
    x = [one["proba"] for one in bins]
    axes.vlines(
        x,
        [one["low"] for one in bins],
        [one["high"] for one in bins],
        color=ACCENT,
        lw=1,
    )
    curves = [
        Line(
            label,
            [one["proba"] for one in rows],
            [one["positive"] for one in rows],
            0 if label == last else 2,
        )
        for label, rows in diagrams.items()
    ]
    _draw(axes, curves, marker=True)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="probability of hateful", ylabel="share of hateful memes")
    _legend(axes, curves, loc="lower right", bbox_to_anchor=None, ncols=1)
    return _uri(figure)


def roc_line(label: str, proba: ArrayLike, labels: ArrayLike, *, style: int) -> Line:
    """Compute the ROC curve of `[n]` probabilities and labels 0 or 1."""
    # Imported here: that takes a second.
    from sklearn.metrics import roc_curve

    x, y, _ = roc_curve(np.asarray(labels), np.asarray(proba))
    return Line(label, x.tolist(), y.tolist(), style)


def histogram(groups: Mapping[str, ArrayLike], *, threshold: float | None) -> str:
    """Draw a histogram of probabilities, one group (label) over another.

    Args:
        groups: label -> probabilities, `[n]`; one or two groups.
        threshold: to mark by a line; None for no line.

    Returns:
        A data URI.
    """
    figure, axes = _axes(_LARGE)
    edges = np.linspace(0.0, 1.0, 41)
    for i, (label, values) in enumerate(groups.items()):
        # The second group is an outline: it hides nothing of the first.
        look = {"color": MUTED, "alpha": 0.5, "histtype": "stepfilled"}
        if i:
            look = {"color": ACCENT, "lw": 1.5, "histtype": "step"}
        axes.hist(np.asarray(values), edges, label=_text(label), **look)
    if threshold is not None:
        axes.axvline(threshold, color=INK, lw=0.9, ls=(0, (4, 2)), label="threshold")
    axes.set(xlim=(0, 1), xlabel="probability of hateful", ylabel="memes")
    axes.locator_params(axis="y", integer=True)
    axes.legend(**_ABOVE)
    return _uri(figure)


def _axes(size: tuple[float, float]) -> tuple[Any, Any]:
    """Make an empty plot in the style of the page."""
    # Imported here: that takes half a second, which a run without a page need not pay.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(labelsize=7.5, length=2.5, colors=INK, width=0.6)
    axes.xaxis.label.set(fontsize=8, color=INK)
    axes.yaxis.label.set(fontsize=8, color=INK)
    axes.yaxis.get_offset_text().set_fontsize(7)
    axes.grid(color="#e4e7eb", lw=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, lw=0.6)
    return figure, axes


def _draw(axes: Any, curves: Sequence[Line], *, marker: bool = False) -> None:
    """Draw curves, the accent one on top."""
    several = len(curves) > len({curve.label for curve in curves})
    for curve in sorted(curves, key=lambda curve: -curve.style):
        colour, dashes = _STYLES[curve.style % len(_STYLES)]
        x, y = _thin(curve.x), _thin(curve.y)
        axes.plot(
            x,
            y,
            color=colour,
            ls=dashes,
            lw=1.1 if several else 1.5,
            alpha=0.65 if several else 1.0,
            # Few points are marked as such.
            marker="." if marker and len(x) <= 12 else None,
        )


def _legend(axes: Any, curves: Sequence[Line], **look: Any) -> None:
    """Add an entry for each label, unless all labels are empty."""
    from matplotlib.lines import Line2D

    labels = {curve.label: _STYLES[curve.style % len(_STYLES)] for curve in curves}
    if not any(labels):
        return
    handles = [
        Line2D([], [], color=colour, ls=dashes, lw=1.5)
        for colour, dashes in labels.values()
    ]
    axes.legend(handles, [_text(label) for label in labels], **{**_ABOVE, **look})


def _thin(values: Sequence[float]) -> np.ndarray:
    """Reduce to at most `_POINTS` values: means of neighbours."""
    values_ = np.asarray(values, float)
    if len(values_) <= _POINTS:
        return values_
    return np.array([block.mean() for block in np.array_split(values_, _POINTS)])


def _text(text: str) -> str:
    """Escape text: matplotlib reads $ as mathematics and hides labels with _."""
    return text.replace("$", r"\$").lstrip("_")


def _uri(figure: Any) -> str:
    """Return the figure as an SVG in a data URI."""
    buffer = io.BytesIO()
    # Without the date the same run gives the same picture.
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
