"""Empty charts and rows of pictures in the style of the page, as data URIs.

A chart is an SVG, with its fonts as outlines and ids that clash with no others; a grid
is a PNG. Figures are made without pyplot, which would keep them alive. Shape suffixes:
`k` pictures, `h`, `w` height and width, `c` channels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from memejax.explain.pictures import COLOURS, DPI
from memejax.report.plots import INK, MUTED

# Black is kept for the reference.
HUES = tuple(colour for colour in COLOURS if colour != "#000000")
# Inches.
CHART = (4.9, 3.4)
LEGEND = {
    "frameon": False,
    "fontsize": 7.5,
    "handlelength": 1.6,
    "labelcolor": INK,
    "labelspacing": 0.3,
}


def charts(
    size: tuple[float, float] = CHART, *, rows: int = 1, columns: int = 1, **look: Any
) -> tuple[Any, Sequence[Any]]:
    """Make a figure and its empty axes, `[rows * columns]`, row by row.

    Args:
        size: width and height in inches.
        rows: of axes.
        columns: of axes.
        **look: options of matplotlib's `subplots`, as `sharey`.
    """
    # Imported here: that takes half a second, which a run without a page need not pay.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    found = figure.subplots(rows, columns, squeeze=False, **look).ravel()
    for axes in found:
        axes.set_facecolor("none")
        axes.tick_params(which="both", labelsize=7.5, length=2.5, colors=INK, width=0.6)
        axes.xaxis.label.set(fontsize=8, color=INK)
        axes.yaxis.label.set(fontsize=8, color=INK)
        axes.title.set(fontsize=8.5, color=INK)
        axes.grid(color="#e4e7eb", lw=0.6)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set(visible=side in ("left", "bottom"), color=MUTED, lw=0.6)
    return figure, found


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 5, not 5 x 10^0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    if decades < 0.7:
        steps = tuple(np.arange(1.0, 10.0))
    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def updates(axes: Any, last: float) -> None:
    """Make the x axis one of updates."""
    from matplotlib.ticker import FuncFormatter

    axes.set_xlim(0, last)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("update")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def svg(figure: Any) -> str:
    """Return the figure as an SVG in a data URI."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without the date, and with ids that are not random, the same study gives the same
    # picture.
    with rc_context({"svg.hashsalt": "memejax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri("svg+xml", buffer)


def png(figure: Any) -> str:
    """Return the figure as a PNG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return _uri("png", buffer)


def text(value: object) -> str:
    """Escape text: matplotlib reads $ as mathematics and hides labels with _."""
    return str(value).replace("$", r"\$").lstrip("_")


def row(images_khwc: ArrayLike, *, gap: int = 1) -> np.ndarray:
    """Lay pictures side by side on white.

    Args:
        images_khwc: uint8 `[k, h, w, 1 or 3]`, k at least 1.
        gap: white pixels between two.

    Returns:
        uint8 `[h, k (w + gap) - gap, 3]`.

    Raises:
        ValueError: if shape or dtype are others.
    """
    images = np.asarray(images_khwc)
    fits = images.ndim == 4 and images.shape[-1] in (1, 3) and len(images)
    if images.dtype != np.uint8 or not fits:
        raise ValueError(
            f"got pictures {images.dtype}{list(images.shape)}, expected uint8 [k, h, "
            "w, 1 or 3], k >= 1"
        )
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    wide = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(wide), axis=1)[:, : -gap or None]


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
