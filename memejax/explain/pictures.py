"""PNG figures: explanation maps over pictures, and scatter plots of embeddings.

The palette suits the colour-blind, and classes differ by their markers as well.
Figures are made without pyplot, which would keep them in memory. Shape suffixes: `n`
pictures, `h`, `w` height and width, `c` channels.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DPI = 120
# In inches: a cell of a grid, margins for names of columns and rows, and for the scale.
CELL, HEAD, SIDE, FOOT = 1.5, 0.45, 0.9, 0.55
SCATTER = (5.2, 4.6)
# Okabe and Ito's colours, the most distinct first and yellow darkened for white paper,
# then two that remain distinct.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#56b4e9",
    "#cc79a7",
    "#000000",
    "#b8ab00",
    "#882255",
    "#999999",
)
MARKERS = "o^sDvPX*<>"
INK = "#1f2933"
UNKNOWN = "#c3c9d0"
# Rec. 601: perceived brightness of red, green and blue.
LUMA = np.array([0.299, 0.587, 0.114])
# Perceptually uniform from dark (least important) to light, for any eye.
SCALE = "inferno"


def overlay_grid(
    images_nhwc: ArrayLike,
    maps: Mapping[str, ArrayLike],
    *,
    heads: bool = False,
    rows: Sequence[str] | None = None,
    opacity: float = 0.6,
) -> bytes:
    """Draw one row per picture: the picture, then each of its maps over the picture.

    A map is stretched over the grey picture, patch by patch. Its colours run from its
    own smallest to its own largest value: they compare regions, not pictures.

    Args:
        images_nhwc: uint8 `[n, h, w, 3]`.
        maps: name -> `[n, gh, gw]` of any size, or `[n, heads, gh, gw]` for the
            attention of several heads. Finite numbers.
        heads: whether to draw one column per head; else one of their mean.
        rows: one name per picture, drawn beside it; no names if None.
        opacity: opacity of the maps, in (0, 1].

    Returns:
        A PNG with `DPI` pixels per inch: `CELL` inches per picture, and margins.

    Raises:
        ValueError: if shapes, dtypes or numbers do not fit.
    """
    from matplotlib.figure import Figure

    images = np.asarray(images_nhwc)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"got images {images.dtype}{list(images.shape)}, expected uint8 [n, h, w, "
            "3]"
        )
    n, height, width, _ = images.shape
    if not n or (rows is not None and len(rows) != n) or not 0 < opacity <= 1:
        raise ValueError(
            f"got {n} images, {rows and len(rows)} names of rows and opacity "
            f"{opacity}, expected at least one image, one name each, and (0, 1]"
        )
    columns = _columns(maps, n=n, heads=heads)

    side = SIDE if rows is not None else 0.1
    cell_height = CELL * height / width
    size = (side + CELL * (1 + len(columns)), HEAD + cell_height * n + FOOT)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    for i in range(n):
        bottom = FOOT + cell_height * (n - 1 - i)
        for j, name in enumerate(["picture", *columns]):
            # Cells are placed by hand: a layout engine takes a second per grid.
            box = (side + CELL * j + 0.03, bottom + 0.03)
            box = _fractions((*box, CELL - 0.06, cell_height - 0.06), size)
            cell = _cell(
                figure.add_axes(box),
                images[i],
                columns[name][i] if j else None,
                opacity=opacity,
            )
            if i == 0:
                cell.set_title(_lines(name, 18), fontsize=9, color=INK, pad=4)
        if rows is not None:
            x, y = (side - 0.08) / size[0], (bottom + cell_height / 2) / size[1]
            name = _lines(rows[i], 12)
            figure.text(x, y, name, fontsize=8, color=INK, ha="right", va="center")
    if columns:
        _scale(figure, size, left=side)
    return _png(figure)


def scatter(
    points: ArrayLike,
    labels: ArrayLike,
    *,
    title: str,
    class_names: Sequence[str] | None = None,
) -> bytes:
    """Draw points in the plane with one colour and marker per label, and a legend.

    Args:
        points: `[m, 2]`, finite, as returned by `memejax.metrics.probes.embedding_map`.
        labels: ints `[m]`: 0 to 9, or -1 if unknown.
        title: title above the plot.
        class_names: one name per class, of label 0 first; the labels if None.

    Returns:
        A PNG of `SCATTER` inches with `DPI` pixels per inch.

    Raises:
        ValueError: if shapes or labels do not fit, or a point is not finite.
    """
    from matplotlib.figure import Figure

    points, labels = np.asarray(points, float), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(
            f"got points {list(points.shape)} and labels {list(labels.shape)}, "
            "expected [m, 2] and [m]"
        )
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("got no points or non-finite ones, expected [m, 2], m >= 1")
    names = range(len(COLOURS)) if class_names is None else class_names
    names = [str(name) for name in names][: len(COLOURS)]
    present = np.unique(labels).tolist()
    known = set(present) <= set(range(-1, len(names)))
    if not known or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"got labels {present}, expected ints from 0 to {len(names) - 1}, or -1"
        )

    figure = Figure(figsize=SCATTER, dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    # Many points are small and transparent.
    area, alpha = (36, 0.9) if len(points) <= 300 else (12, 0.65)
    for label in present:
        axes.scatter(
            *points[labels == label].T,
            s=area,
            alpha=alpha,
            color=UNKNOWN if label < 0 else COLOURS[label],
            marker="." if label < 0 else MARKERS[label],
            linewidths=0,
            label="unknown" if label < 0 else _plain(names[label]),
        )
    # The axes of such a map have no unit and no meaning; distances do.
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set(color=UNKNOWN, linewidth=0.8)
    axes.set_title(_plain(title), fontsize=10.5, color=INK, loc="left")
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handletextpad=0.2,
    )
    for handle in legend.legend_handles:
        handle.set(alpha=1.0, sizes=[40])
    return _png(figure)


def _columns(
    maps: Mapping[str, ArrayLike], *, n: int, heads: bool
) -> dict[str, np.ndarray]:
    """Maps `[n, gh, gw]`, one per picture, for the name of each column."""
    columns: dict[str, np.ndarray] = {}
    for name, values in maps.items():
        array = np.asarray(values, float)
        if array.ndim not in (3, 4) or len(array) != n or 0 in array.shape:
            raise ValueError(
                f"got map {name!r} of shape {list(array.shape)}, expected [{n}, gh, "
                f"gw] or [{n}, heads, gh, gw]"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"got map {name!r} with NaN or inf, expected numbers")
        if array.ndim == 3:
            columns[name] = array
        elif heads:
            for k in range(array.shape[1]):
                columns[f"{name}, head {k + 1}"] = array[:, k]
        else:
            columns[f"{name}, mean of {array.shape[1]} heads"] = array.mean(axis=1)
    return columns


def _cell(
    axes: Any, image_hwc: np.ndarray, overlay: np.ndarray | None, *, opacity: float
) -> Any:
    """Draw a picture, in grey under a map if there is one."""
    extent = (0, image_hwc.shape[1], image_hwc.shape[0], 0)
    axes.axis("off")
    if overlay is None:
        axes.imshow(image_hwc, extent=extent)
    else:
        # In grey, so that all colour comes from the map.
        grey = image_hwc @ LUMA
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
        axes.imshow(
            _stretch(overlay),
            cmap=SCALE,
            vmin=0,
            vmax=1,
            alpha=opacity,
            extent=extent,
            interpolation="nearest",
        )
    return axes


def _stretch(values: np.ndarray) -> np.ndarray:
    """Values rescaled to [0, 1]; constant ones to 0."""
    span = np.ptp(values)
    return (values - values.min()) / (span if span > 0 else 1.0)


def _scale(figure: Any, size: tuple[float, float], *, left: float) -> None:
    """Draw the colour scale below the grid."""
    from matplotlib.cm import ScalarMappable

    axes = figure.add_axes(_fractions((left + 0.03, 0.32, CELL - 0.06, 0.12), size))
    bar = figure.colorbar(
        ScalarMappable(cmap=SCALE), cax=axes, orientation="horizontal", ticks=[0, 1]
    )
    bar.outline.set_visible(False)
    bar.ax.set_xticklabels(["least", "most"], fontsize=8, color=INK)
    bar.ax.tick_params(length=0, pad=2)
    x, y = (left + CELL + 0.1) / size[0], 0.38 / size[1]
    figure.text(x, y, "of each map by itself", fontsize=8, color=INK, va="center")
    # Labels stay within the bar: the edge of the picture lies beyond it.
    for text, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        text.set_horizontalalignment(side)


def _fractions(
    box: tuple[float, float, float, float], size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Convert (left, bottom, width, height) from inches to fractions of the figure."""
    left, bottom, width, height = box
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def _lines(text: str, width: int) -> str:
    """Wrap text to lines of at most `width` characters."""
    return _plain("\n".join(textwrap.wrap(text, width)))


def _plain(text: str) -> str:
    """Escape text: matplotlib reads $ as mathematics and hides labels with _."""
    return text.replace("$", r"\$").lstrip("_")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # Without matplotlib's version, equal figures give equal files.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
