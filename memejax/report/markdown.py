"""Tables as Markdown, as GitHub shows it."""

from __future__ import annotations

import html

from memejax.report.cells import Table


def table(made: Table, *, level: int) -> str:
    """Format a table, with its title as a heading, and its notes as a list.

    Args:
        made: the table.
        level: of the heading, 1 to 6.
    """
    sides = [":--" if i < made.left else "--:" for i in range(len(made.columns))]
    cells = [[escaped(cell) for cell in row] for row in (made.columns, *made.rows)]
    rows = ["| " + " | ".join(row) + " |" for row in (cells[0], sides, *cells[1:])]
    notes = [f"- {escaped(note)}" for note in made.notes]
    head = f"{'#' * level} {escaped(made.title)}"
    return "\n".join([head, "", *rows, "", *notes]) + "\n"


def escaped(text: str) -> str:
    """Escape HTML, bars and line breaks."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())
