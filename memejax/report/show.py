"""The two ways to show a run: tables on the console, one HTML page."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memejax import folder as folders
from memejax.report import page, tables
from memejax.report.finished import Finished
from memejax.report.study import single

# A line under the head and no other. ASCII: rich would put bars between the columns
# where the output cannot show its own.
_RULE = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def console(results: Mapping[str, Any]) -> None:
    """Prints the results as tables, plain where the output is no terminal.

    Args:
        results: what results.json holds.
    """
    printer = Console(highlight=False)
    splits = list(tables.splits(results).values())
    # The last thing printed is the first thing read: there, the test splits.
    shown = [
        tables.pretraining(results),
        tables.dino(results),
        None if splits else tables.stages(results),
        *tables.representation(results).values(),
        *splits[::-1],
    ]
    for table in shown:
        if table is not None:
            _print(printer, table)
    printer.print(_text(printer, tables.sentence(results)))


def write(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes report.html of a finished run: one file that needs no network.

    Args:
        folder: the run's.

    Returns:
        The page's path.

    Raises:
        ValueError: if there is no results.json.
    """
    where = pathlib.Path(folder).absolute()
    results = folders.read_json(where / "results.json")
    # Errors over all seeds at once, or figures of each seed.
    together = results is not None and "errors" in results
    html = single.html(where) if together else page.html(Finished(where))
    path = where / "report.html"
    part = path.with_suffix(".part")
    part.write_text(html, "utf-8")
    part.replace(path)
    return path


def _print(printer: Console, table: tables.Table) -> None:
    """A table, its title above and its notes below."""
    grid = Table(box=_RULE, show_edge=False, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(table.columns):
        # A row's name may wrap, a number may not.
        grid.add_column(
            _text(printer, column),
            justify="left" if i < table.left else "right",
            no_wrap=i > 0,
        )
    for row in table.rows:
        grid.add_row(*(_text(printer, cell) for cell in row))
    printer.print(_text(printer, table.title, style="bold"))
    printer.print(grid)
    for note in table.notes:
        printer.print(_text(printer, note, style="dim"))
    printer.print()


def _text(printer: Console, text: str, *, style: str = "") -> Text:
    """Text without markup, in what the output can show."""
    if not printer.encoding.lower().startswith("utf"):
        # As wide as before, so that a table still fits.
        text = text.replace("± ", "+-").replace("±", "+-")
        text = text.encode("ascii", "replace").decode()
    return Text(text, style=style)
