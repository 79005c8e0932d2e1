"""A paper's table with our figures beside the published: Markdown, CSV and HTML.

Pure: dataclasses in, text out. Numbers are rounded for people, and whole in the CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Sequence
from urllib.parse import quote

from memejax import logs
from memejax.report import markup, tables


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over seeds; None where it is not known.

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
        size: third column, a picture's side in pixels.
        auroc: ours.
        accuracy: ours, at the threshold 0.5.
        published_auroc: None where none was published.
        published_accuracy: the same.
        finished: seeds that are done.
        seeds: seeds asked for; 0 for a row that is no run.
        collapsed: finished seeds whose pretraining collapsed; None without pretraining.
        seconds: mean duration of a seed's run, None before the first.
        pages: (seed, path relative to the table) of each run's page.
        note: under the table.
    """

    method: str
    architecture: str = ""
    size: str = ""
    auroc: Spread = Spread()
    accuracy: Spread = Spread()
    published_auroc: float | None = None
    published_accuracy: float | None = None
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
        split: what the figures are of; None before the first run is finished.
        lines: the rows, in order; those that are no run last.
        notes: sentences under the table.
    """

    name: str
    title: str
    preset: str
    split: str | None
    lines: Sequence[Line]
    notes: Sequence[str] = ()

    @property
    def caption(self) -> str:
        """Title, preset and split."""
        split = "no run finished yet" if self.split is None else f"split {self.split}"
        return f"{self.title}: preset {self.preset}, {split}"


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
    "time a seed",
)
# So many columns are read from the left.
_LEFT = 3


def to_markdown(table: PaperTable) -> str:
    """The table as GitHub shows it, and its notes."""
    sides = [":--" if i < _LEFT else "--:" for i in range(len(HEAD))]
    lines = [_cells(line) for line in table.lines]
    rows = [
        "| " + " | ".join(cells) + " |"
        for cells in (HEAD, sides, *([_escaped(c) for c in line] for line in lines))
    ]
    notes = [f"- {_escaped(note)}" for note in _notes(table)]
    return "\n".join([f"## {_escaped(table.caption)}", "", *rows, "", *notes]) + "\n"


def to_csv(table: PaperTable) -> str:
    """The same with whole numbers; what is not known is empty."""
    figures = ("mean", "std", "low", "high")
    head = ["table", "preset", "split", "method", "architecture", "pixels"]
    head += [f"{name}_{f}" for name in ("auroc", "accuracy") for f in figures]
    head += ["published_auroc", "published_accuracy", "seeds_finished", "seeds"]
    head += ["seeds_collapsed", "seconds_a_seed", "note"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for line in table.lines:
        spreads = (line.auroc, line.accuracy)
        writer.writerow(
            [
                *(table.name, table.preset, table.split),
                *(line.method, line.architecture, line.size),
                *(getattr(spread, f) for spread in spreads for f in figures),
                *(line.published_auroc, line.published_accuracy),
                *((line.finished, line.seeds) if line.seeds else (None, None)),
                *(line.collapsed, line.seconds, line.note),
            ]
        )
    return file.getvalue()


def to_html(table: PaperTable) -> str:
    """One page that needs no network; each seed links to its run's page."""
    side = [' class="left"' if i < _LEFT else "" for i in range(len(HEAD))]
    head = "".join(
        f'<th scope="col"{kind}>{markup.escape(name)}</th>'
        for name, kind in zip(HEAD, side, strict=True)
    )
    rows = []
    for line in table.lines:
        first, *cells = _cells(line)
        # An interval goes under its mean, or the table is wider than the page.
        shown = [markup.escape(cell).replace(" [", "<br>[") for cell in cells]
        if line.pages:
            place = HEAD.index("seeds") - 1
            shown[place] += f"<br>{_links(line.pages)}"
        if line.collapsed:
            place = HEAD.index("collapsed") - 1
            shown[place] = f'<b class="warn">{shown[place]}</b>'
        tds = "".join(
            f"<td{kind}>{cell}</td>" for kind, cell in zip(side[1:], shown, strict=True)
        )
        rows.append(f'<tr><th scope="row">{markup.escape(first)}</th>{tds}</tr>')
    done = sum(line.finished for line in table.lines)
    asked = sum(line.seeds for line in table.lines)
    return markup.document(
        table.caption,
        [
            # Ten columns: smaller, and on a wider page than text wants.
            "<style>main { max-width: 80rem } table { font-size: .85rem }</style>",
            markup.paragraph(f"preset {table.preset}", kind="preset"),
            f"<h1>{markup.escape(table.title)}</h1>",
            markup.paragraph(f"{done} of {asked} seeds are in.", kind="lead"),
            '<div class="scroll"><table>',
            f"<caption>{markup.escape(table.caption)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody></table></div>",
            *map(markup.paragraph, _notes(table)),
        ],
    )


def _cells(line: Line) -> list[str]:
    """The row as text, a cell a column of `HEAD`."""
    return [
        line.method,
        line.architecture,
        line.size,
        _spread(line.auroc),
        _spread(line.accuracy),
        _figure(line.published_auroc),
        _figure(line.published_accuracy),
        f"{line.finished}/{line.seeds}" if line.seeds else "",
        "" if line.collapsed is None else f"{line.collapsed}/{line.finished}",
        "" if line.seconds is None else logs.clock(line.seconds),
    ]


def _spread(spread: Spread) -> str:
    """Mean, deviation and interval, as much as is known."""
    if not tables.is_number(spread.mean):
        return ""
    text = tables.number(spread.mean)
    if tables.is_number(spread.std):
        text += f" ± {spread.std:.4f}"
    if tables.is_number(spread.low) and tables.is_number(spread.high):
        text += f" [{spread.low:.3f}, {spread.high:.3f}]"
    return text


def _figure(value: float | None) -> str:
    """A published figure, to three digits or the four that some have."""
    return "" if value is None else f"{value:.4f}".removesuffix("0")


def _notes(table: PaperTable) -> list[str]:
    """The table's notes, then the rows'."""
    rows = {
        f"{' '.join(filter(None, (line.method, line.architecture)))}: {line.note}": None
        for line in table.lines
        if line.note
    }
    return [*table.notes, *rows]


def _links(pages: Sequence[tuple[str, str]]) -> str:
    return ", ".join(
        f'<a href="{markup.escape(quote(path))}">{markup.escape(seed)}</a>'
        for seed, path in pages
    )


def _escaped(text: str) -> str:
    """Text for a cell of Markdown, where HTML and bars mean something."""
    escaped = html.escape(text, quote=False).replace("|", "\\|")
    return " ".join(escaped.split())
