"""Tables for the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Format rows under the names of their columns.

    Args:
        lines: at least one, all with the same keys; floats are shown with four digits,
            and None (not measured) as a dash.
    """
    cells = [list(lines[0])] + [[_cell(v) for v in line.values()] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
