"""A table of text, and figures as a person reads them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeGuard


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for a person.

    Attributes:
        title: says of what, of how many and of which preset.
        columns: the head; the first column names the row.
        rows: as many cells as columns, numbers as they are to be read.
        notes: sentences under the table.
        left: so many columns are read from the left, the others from the right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether a figure is there: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def number(value: float | None, *, digits: int = 4) -> str:
    """A figure to some digits, "-" where there is none."""
    return f"{value:.{digits}f}" if is_number(value) else "-"


def count(things: Any, noun: str) -> str:
    """1 seed, 2 seeds."""
    n = things if isinstance(things, int) else len(things)
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
