"""A measured table: rows for people, and everything behind them as JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from memejax import folder
from memejax.bench import pairs
from memejax.report import markdown, render
from memejax.report.blocks import Facts, Page, Section, Text
from memejax.report.cells import Table


@dataclasses.dataclass(frozen=True)
class Measured:
    """A table of performance.

    Attributes:
        name: "table4", ...
        title: readable.
        preset: what it was measured with.
        protocol: sentence on what was timed, and how; the table's first line.
        columns: names.
        rows: text, one cell per column.
        figures: JSON behind the rows, with the settings of the measurement.
        machine: JSON, where it was measured.
        notes: sentences under the table.
    """

    name: str
    title: str
    preset: str
    protocol: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, Any]
    machine: Mapping[str, Any]
    notes: Sequence[str] = ()


def machine() -> dict[str, Any]:
    """Return the machine and its software, for the JSON of a measurement."""
    environment = folder.environment()
    return {
        "processor": pairs.cpu(),
        "cores": os.cpu_count(),
        "packages": {
            name: environment["packages"][name] for name in ("memejax", "jax", "jaxlib")
        },
    }


def clock(seconds: float | None) -> str:
    """Format seconds as the paper does, "8 min 51.0 s"; "-" for None.

    >>> clock(531.0), clock(7.25), clock(0.0492), clock(None)
    ('8 min 51.0 s', '7.25 s', '0.049 s', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(seconds, 60)
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        return f"{hours:.0f} h {minutes:.0f} min"
    return f"{minutes:.0f} min {rest:.1f} s" if minutes else f"{rest:.3g} s"


def share(value: float | None) -> str:
    """Format a share as a percentage; "-" for None."""
    return "-" if value is None else f"{100 * value:.2f} %"


def to_markdown(table: Measured) -> str:
    """Return the table as GitHub shows it, and its notes."""
    return markdown.table(_table(table), level=2)


def to_csv(table: Measured) -> str:
    """Return the rows as shown; the exact figures are in the JSON."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "preset", *table.columns])
    writer.writerows([table.name, table.preset, *row] for row in table.rows)
    return file.getvalue()


def to_html(table: Measured) -> str:
    """Return the table as a page that needs no network."""
    facts = {
        "Processor": table.machine["processor"],
        "Cores": table.machine["cores"],
        **{name: v for name, v in table.machine["packages"].items()},
    }
    return render.page(
        Page(
            title=f"{table.title}, preset {table.preset}",
            heading=table.title,
            preset=table.preset,
            head=[Text(table.protocol, style="lead"), Facts(facts)],
            sections=[Section("Measured and published", [_table(table)])],
            is_wide=True,
        )
    )


def _table(table: Measured) -> Table:
    caption = f"{table.title}: preset {table.preset}, {table.protocol}"
    return Table(caption, table.columns, table.rows, notes=table.notes)
