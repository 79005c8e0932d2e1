"""Drawings of meme graphs: entities on the picture, and the graph with its attention.

Figures are made without pyplot, which would keep them in memory.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from memejax.explain.pictures import COLOURS, DPI, INK
from memejax.graphs.meme_graph import KINDS

# In inches: height of a row, widths of the picture and of the graph.
ROW, PICTURE, GRAPH = 2.6, 3.2, 4.0
# Width of the thickest line, in points.
THICKEST = 6.0


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One meme to draw: its picture, k entities, and graph of n nodes and e edges.

    Attributes:
        title: title above the drawing.
        picture_hwc: uint8 `[h, w, 3]`, of any resolution.
        size: height and width of the coordinates of the boxes, in pixels.
        boxes: `[k, 4]`, (x1, y1, x2, y2).
        where: bool `[k]`, True for entities that exist.
        masks: uint8 `[k, m, m]` over the boxes, 255 is the entity; None if unknown.
        kinds: int `[n]`, indices into `graphs.meme_graph.KINDS`.
        places: int `[n]`, index of an entity or token within its meme.
        senders: int `[e]`.
        receivers: int `[e]`.
        weights: `[e]` in [0, 1]; None if edges have no weights.
    """

    title: str
    picture_hwc: np.ndarray
    size: tuple[int, int]
    boxes: np.ndarray
    where: np.ndarray
    masks: np.ndarray | None
    kinds: np.ndarray
    places: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    weights: np.ndarray | None


def graph_grid(memes: Sequence[Drawing]) -> bytes:
    """Draw one row per meme: the picture with its entities, then its graph.

    An entity has the same number and colour in both. An edge is an arc that bends to
    the right, seen from its sender, with a width proportional to its weight.

    Args:
        memes: at least one.

    Returns:
        A PNG with `DPI` pixels per inch.

    Raises:
        ValueError: if there is no meme, or arrays do not match.
    """
    from matplotlib.figure import Figure

    if not memes:
        raise ValueError("got no memes, expected at least one")
    for meme in memes:
        _check(meme)
    size = (PICTURE + GRAPH, ROW * len(memes))
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    grid = figure.add_gridspec(len(memes), 2, width_ratios=(PICTURE, GRAPH))
    for i, meme in enumerate(memes):
        _draw_picture(figure.add_subplot(grid[i, 0]), meme)
        _draw_graph(figure.add_subplot(grid[i, 1]), meme)
    buffer = io.BytesIO()
    # Without matplotlib's version, equal figures give equal files.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _check(meme: Drawing) -> None:
    k, n, e = len(meme.where), len(meme.kinds), len(meme.senders)
    first = {
        "boxes": (meme.boxes, k),
        "masks": (meme.masks, k),
        "places": (meme.places, n),
        "receivers": (meme.receivers, e),
        "weights": (meme.weights, e),
    }
    for name, (array, expected) in first.items():
        if array is not None and len(array) != expected:
            raise ValueError(
                f"got {len(array)} {name}, expected {expected} for {k} entities, {n} "
                f"nodes and {e} edges"
            )


def _colour(entity: int) -> str:
    return COLOURS[entity % len(COLOURS)]


def _draw_picture(axes: Any, meme: Drawing) -> None:
    """Draw the picture with boxes and masks."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    height, width = meme.size
    axes.imshow(meme.picture_hwc, extent=(0, width, height, 0))
    for entity in np.flatnonzero(meme.where).tolist():
        x1, y1, x2, y2 = map(float, meme.boxes[entity])
        colour = _colour(entity)
        if meme.masks is not None:
            mask = meme.masks[entity].astype(float) / 255
            shade = np.empty((*mask.shape, 4))
            shade[..., :3], shade[..., 3] = to_rgb(colour), 0.5 * mask
            axes.imshow(shade, extent=(x1, x2, y2, y1), interpolation="bilinear")
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.4)
        axes.add_patch(box)
        axes.text(
            x1,
            y1,
            str(entity + 1),
            fontsize=7,
            color="white",
            va="top",
            bbox=dict(facecolor=colour, edgecolor="none", pad=1.0),
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(meme.title, fontsize=8, color=INK, loc="left", parse_math=False)


def _draw_graph(axes: Any, meme: Drawing) -> None:
    """Draw the graph: image at the top, text at the bottom, other nodes between."""
    from matplotlib.patches import FancyArrowPatch

    names = [KINDS[kind] for kind in meme.kinds]
    positions = _node_positions(names)
    for i in range(len(meme.senders)):
        weight = 0.2 if meme.weights is None else float(meme.weights[i])
        start, end = positions[meme.senders[i]], positions[meme.receivers[i]]
        # Edges from image to text go around the nodes between them.
        bow = 0.5 if abs(start[1] - end[1]) > 1.5 else 0.12
        arrow = FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bow}",
            arrowstyle="-",
            lw=THICKEST * weight,
            color=INK,
            alpha=0.55,
            zorder=1,
        )
        axes.add_patch(arrow)
    for (x, y), name, place in zip(positions, names, meme.places, strict=True):
        entity = name == "entity"
        axes.text(
            x,
            y,
            str(place + 1) if entity else name if name != "token" else f"t{place + 1}",
            fontsize=8,
            color="white",
            ha="center",
            va="center",
            zorder=2,
            bbox=dict(
                boxstyle="round,pad=0.35",
                facecolor=_colour(int(place)) if entity else INK,
                edgecolor="white",
            ),
        )
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.25, 1.25))
    axes.axis("off")


def _node_positions(names: Sequence[str]) -> list[tuple[float, float]]:
    """Position (x, y) of each node, both in [-1, 1]."""
    fixed = {"image": (0.0, 1.0), "text": (0.0, -1.0)}
    rest = [i for i, name in enumerate(names) if name not in fixed]
    across = np.linspace(-1, 1, len(rest)) if len(rest) > 1 else np.zeros(len(rest))
    positions = [fixed.get(name, (0.0, 0.0)) for name in names]
    for turn, (i, x) in enumerate(zip(rest, across, strict=True)):
        # Not on one line, where edges between entities would hide each other.
        positions[i] = (float(x), 0.18 if turn % 2 else -0.18)
    return positions
