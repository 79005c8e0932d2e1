"""Examples with the lowest and the highest scores, in named rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from memejax.report.plots import INK
from memejax.report.study import canvas

Pictures = Mapping[str, tuple[ArrayLike, ArrayLike]]
# Inches: side of a picture, room for names of rows, for heads, between the blocks.
_CELL, _SIDE, _HEAD, _GAP = 0.5, 1.3, 0.3, 0.2


def extremes(pictures: Pictures) -> str:
    """Draw two blocks of pictures side by side: lowest scores, highest scores.

    Args:
        pictures: name of a row -> (lowest, highest), uint8 `[k, h, w, 1 or 3]` each, in
            order; at least one row.

    Returns:
        A PNG in a data URI.

    Raises:
        ValueError: as `canvas.row`.
    """
    from matplotlib.figure import Figure

    rows = list(pictures)
    most = [max(len(np.asarray(pictures[r][side])) for r in rows) for side in (0, 1)]
    width = _SIDE + _CELL * sum(most) + _GAP
    height = _HEAD + _CELL * len(rows)
    figure = Figure(figsize=(width, height), facecolor="white")
    left = _SIDE
    for side, head in enumerate(("lowest scores", "highest scores")):
        for i, name in enumerate(rows):
            line = canvas.row(pictures[name][side])
            wide = _CELL * len(np.asarray(pictures[name][side])) - 0.04
            bottom = _CELL * (len(rows) - 1 - i) + 0.02
            # Cells are placed by hand: a layout engine takes a second per grid.
            axes = figure.add_axes(
                (left / width, bottom / height, wide / width, (_CELL - 0.04) / height)
            )
            axes.imshow(line, interpolation="nearest")
            axes.set_anchor("W")
            axes.axis("off")
        figure.text(
            left / width, 1 - 0.08 / height, head, fontsize=9, color=INK, va="top"
        )
        left += _CELL * most[side] + _GAP
    for i, name in enumerate(rows):
        middle = _CELL * (len(rows) - 0.5 - i)
        figure.text(
            (_SIDE - 0.08) / width,
            middle / height,
            name,
            fontsize=8,
            color=INK,
            ha="right",
            va="center",
        )
    return canvas.png(figure)
