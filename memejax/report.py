"""A run's results for a person: tables on the console, one HTML page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def console(results: Mapping[str, Any]) -> None:
    """Prints a table a split: AUROC first, the constant predictor's row last."""
    printer = Console(width=None)
    for split, arms in results["summary"].items():
        table = Table(title=f"{split} ({results['preset']})")
        for column in ("", "AUROC", "accuracy", "accuracy at dev threshold", "F1"):
            table.add_column(column)
        for arm, row in arms.items():
            table.add_row(arm, *(str(row.get(f)) for f in ("auroc", "accuracy", "threshold_accuracy", "f1")))
        printer.print(table)


def write(folder: pathlib.Path) -> None:
    """Writes report.html."""
