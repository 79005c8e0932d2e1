"""Tables of text, and figures formatted for people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeGuard


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: split or stage, number of memes or seeds, preset.
        columns: the head; the first column names the row.
        rows: as many cells as columns, numbers formatted.
        notes: sentences under the table.
        left: number of columns aligned to the left; the others are to the right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether a figure is known: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def number(value: float | None, *, digits: int = 4) -> str:
    """Format a figure to some digits; "-" if it is not known."""
    return f"{value:.{digits}f}" if is_number(value) else "-"


def count(things: Any, noun: str) -> str:
    """Format a number of things: "1 seed", "2 seeds"."""
    n = things if isinstance(things, int) else len(things)
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
