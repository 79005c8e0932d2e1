"""The two views of a run: tables on the console, one page of HTML."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memejax import atomic
from memejax import folder as folders
from memejax.report import page, render, tables
from memejax.report.finished import Finished
from memejax.report.study import single

# A line under the head and no other. ASCII: rich would put bars between the columns
# if the output cannot show its own.
_RULE = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def console(results: Mapping[str, Any]) -> None:
    """Print the results as tables, plain if the output is no terminal.

    Args:
        results: content of results.json.
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


def write(
    folder: str | os.PathLike[str], *, pictures: bool | None = None
) -> pathlib.Path:
    """Write report.html of a finished run: one file that needs no network.

    Args:
        folder: of the run.
        pictures: whether the page shows memes; None: as the run's config has it.

    Returns:
        Path of the page.

    Raises:
        ValueError: if there is no results.json.
    """
    folder = pathlib.Path(folder).absolute()
    results = folders.read_json(folder / "results.json")
    # Errors over all seeds at once, or figures of each seed.
    together = results is not None and "errors" in results
    if together:
        html = single.html(folder)
    else:
        html = render.page(page.contents(Finished(folder), pictures=pictures))
    path = folder / "report.html"
    atomic.write_text(path, html)
    return path


def _print(printer: Console, table: tables.Table) -> None:
    """Print a table between its title and its notes."""
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
    """Text without markup, in characters that the output can show."""
    if not printer.encoding.lower().startswith("utf"):
        # As wide as before, so that a table still fits.
        text = text.replace("± ", "+-").replace("±", "+-")
        text = text.encode("ascii", "replace").decode()
    return Text(text, style=style)
