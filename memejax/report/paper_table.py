"""A paper's table with our figures beside the published: Markdown, CSV and HTML.

Pure: dataclasses in, text out. Numbers are rounded for people, and exact in the CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from urllib.parse import quote

from memejax import logs
from memejax.report import markdown, render, tables


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over seeds; None for what is not known.

    Attributes:
        mean: over the seeds.
        std: sample standard deviation (n - 1).
        low: lower end of the 95 % interval of the mean.
        high: upper end.
    """

    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        method: first column.
        architecture: second column.
        size: third column, side of a picture in pixels.
        auroc: ours.
        accuracy: ours, at the threshold 0.5.
        published_auroc: mean and deviation, as far as published.
        published_accuracy: the same.
        finished: seeds that are done.
        seeds: seeds wanted; 0 for a row that is no run.
        collapsed: finished seeds whose pretraining collapsed; None without pretraining.
        seconds: mean duration of a seed's run, None before the first.
        pages: (seed, path relative to the table) of the page of each run.
        note: under the table.
    """

    method: str
    architecture: str = ""
    size: str = ""
    auroc: Spread = Spread()
    accuracy: Spread = Spread()
    published_auroc: Spread = Spread()
    published_accuracy: Spread = Spread()
    finished: int = 0
    seeds: int = 0
    collapsed: int | None = None
    seconds: float | None = None
    pages: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """The table.

    Attributes:
        name: "table1", ...
        title: for a person.
        preset: of every run in it.
        split: that the figures are of, and its data; None before a run is finished.
        lines: the rows, in order; those that are no run last.
        notes: sentences under the table.
        protocol: how checkpoints were chosen; "" before a run is finished.
    """

    name: str
    title: str
    preset: str
    split: str | None
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    protocol: str = ""

    @property
    def caption(self) -> str:
        """Title, preset, protocol and split."""
        split = "no run finished yet" if self.split is None else f"split {self.split}"
        parts = (f"preset {self.preset}", self.protocol, split)
        return f"{self.title}: {', '.join(part for part in parts if part)}"


HEAD = (
    "method",
    "architecture",
    "pixels",
    "AUROC",
    "accuracy",
    "published AUROC",
    "published accuracy",
    "seeds",
    "collapsed",
    "time per seed",
)
# Columns that are read from the left.
_LEFT = 3


def to_markdown(table: PaperTable) -> str:
    """Return the table as GitHub shows it, and its notes."""
    rows = [_cells(line) for line in table.lines]
    made = tables.Table(table.caption, HEAD, rows, notes=_notes(table), left=_LEFT)
    return markdown.table(made, level=2)


def to_csv(table: PaperTable) -> str:
    """Return the same with exact numbers; cells are empty for what is not known."""
    figures = ("mean", "std", "low", "high")
    head = ["table", "preset", "split", "method", "architecture", "pixels"]
    head += [f"{name}_{f}" for name in ("auroc", "accuracy") for f in figures]
    published = ("published_auroc", "published_accuracy")
    head += [name + end for name in published for end in ("", "_std")]
    head += ["seeds_finished", "seeds"]
    head += ["seeds_collapsed", "seconds_a_seed", "note"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for line in table.lines:
        spreads = (line.auroc, line.accuracy)
        theirs = (line.published_auroc, line.published_accuracy)
        writer.writerow(
            [
                *(table.name, table.preset, table.split),
                *(line.method, line.architecture, line.size),
                *(getattr(spread, f) for spread in spreads for f in figures),
                *(value for spread in theirs for value in (spread.mean, spread.std)),
                *((line.finished, line.seeds) if line.seeds else (None, None)),
                *(line.collapsed, line.seconds, line.note),
            ]
        )
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A cell of the page: lines of text, and links under them."""

    lines: Sequence[str]
    links: Sequence[tuple[str, str]] = ()
    is_warning: bool = False


def to_html(table: PaperTable) -> str:
    """Return the table as a page that needs no network; seeds link to their pages."""
    return render.template(
        "paper_table.html.j2",
        table=table,
        head=HEAD,
        left=_LEFT,
        rows=[_row(line) for line in table.lines],
        done=sum(line.finished for line in table.lines),
        wanted=sum(line.seeds for line in table.lines),
        notes=_notes(table),
    )


def _row(line: Line) -> list[_Cell]:
    row = []
    for name, text in zip(HEAD, _cells(line), strict=True):
        # An interval goes under its mean, or the table is wider than the page.
        mean, bracket, interval = text.partition(" [")
        row.append(
            _Cell(
                lines=[mean, f"[{interval}"] if bracket else [text],
                links=[(seed, quote(path)) for seed, path in line.pages]
                if name == "seeds"
                else (),
                is_warning=name == "collapsed" and bool(line.collapsed),
            )
        )
    return row


def _cells(line: Line) -> list[str]:
    """The row as text, one cell for each column of `HEAD`."""
    return [
        line.method,
        line.architecture,
        line.size,
        _spread(line.auroc),
        _spread(line.accuracy),
        _published(line.published_auroc),
        _published(line.published_accuracy),
        f"{line.finished}/{line.seeds}" if line.seeds else "",
        "" if line.collapsed is None else f"{line.collapsed}/{line.finished}",
        "" if line.seconds is None else logs.clock(line.seconds),
    ]


def _spread(spread: Spread) -> str:
    """Mean, standard deviation and interval, as far as known."""
    if not tables.is_number(spread.mean):
        return ""
    text = tables.number(spread.mean)
    if tables.is_number(spread.std):
        text += f" ± {spread.std:.4f}"
    if tables.is_number(spread.low) and tables.is_number(spread.high):
        text += f" [{spread.low:.3f}, {spread.high:.3f}]"
    return text


def _published(spread: Spread) -> str:
    """A published figure, to three digits or the four that some have."""
    if spread.mean is None:
        return ""
    text = f"{spread.mean:.4f}".removesuffix("0")
    return text if spread.std is None else f"{text} ± {spread.std:.3f}"


def _notes(table: PaperTable) -> list[str]:
    """The table's notes, then the rows'."""
    rows = {
        f"{' '.join(filter(None, (line.method, line.architecture)))}: {line.note}": None
        for line in table.lines
        if line.note
    }
    return [*table.notes, *rows]
