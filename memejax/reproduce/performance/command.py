"""Measuring a table of performance, and writing its files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from memejax import atomic, folder, strict_json
from memejax.errors import UserError
from memejax.reproduce.performance import epochs, forward, graphs, parts
from memejax.reproduce.performance.parts import Measured
from memejax.reproduce.performance.published import TABLES
from memejax.reproduce.rows import PRESETS

# Suffix of the table's file -> function that renders it.
FORMATS = {"md": parts.to_markdown, "csv": parts.to_csv, "html": parts.to_html}
# Settings in which the machines of table 6 may differ: places, not what was measured.
_OWN = ("root", "threads")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A table to measure.

    Attributes:
        table: one of TABLES.
        settings: what it is measured with.
        workdir: folder of its files.
        detector: file of a detector's weights, for table 7.
        other: the JSON of another machine, for table 6.
    """

    table: str
    settings: epochs.Settings
    workdir: pathlib.Path
    detector: str | None = None
    other: Mapping[str, Any] | None = None


def prepare(
    table: str,
    *,
    preset: str = "demo",
    workdir: str | os.PathLike[str] | None = None,
    root: str | None = None,
    devices: int | None = None,
    detector: str | None = None,
    other: str | os.PathLike[str] | None = None,
) -> Plan:
    """Check what is asked before anything is measured.

    Args:
        table: one of TABLES.
        preset: "demo" (small models), "full" (the papers' size in bfloat16) or "paper".
        workdir: folder of the table's files; default `runs/tables-<preset>`.
        root: folder of the memes; None: built-in ones.
        devices: number of the several devices of tables 4 and 5; None: four, or all if
            there are fewer. On a CPU they are fake ones.
        detector: file of torchvision's Mask R-CNN for table 7; None: random weights.
        other: table6.json of another machine.

    Raises:
        ValueError: if an argument is not as above, or the other machine's figures are
            of another table or other settings.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}: choose one of {sorted(TABLES)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {sorted(PRESETS)}")
    if other is not None and table != "table6":
        raise ValueError(f"--with is for table6, which compares machines, not {table}")
    if devices is not None and devices < 1:
        raise ValueError(f"got --devices={devices}, expected at least 1")
    settings = epochs.Settings(
        preset, root=root, devices=devices, threads=os.cpu_count() or 1
    )
    if devices is not None and table in ("table4", "table5"):
        epochs.cases(table, settings, several=devices)
    return Plan(
        table,
        settings,
        pathlib.Path(workdir or f"runs/tables-{preset}"),
        detector,
        None if other is None else read_other(other, settings),
    )


def read_other(
    file: str | os.PathLike[str], settings: epochs.Settings
) -> dict[str, Any]:
    """Read the table6.json of another machine.

    Args:
        file: written by `perform` there.
        settings: of the measurement here.

    Returns:
        Its content, with `machine` and `cells`.

    Raises:
        ValueError: if it is no such file, or was measured with other settings.
    """
    path = pathlib.Path(file)
    try:
        found = strict_json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--with={path} cannot be read: {error}") from error
    if not (isinstance(found, dict) and {"table", "settings", "cells"} <= set(found)):
        raise UserError(
            f"--with={path} is no table6.json: expected one that "
            "python -m memejax.reproduce table6 wrote on another machine"
        )
    if found["table"] != "table6":
        raise UserError(f"--with={path} is of {found['table']}, expected table6")
    here = dataclasses.asdict(settings)
    names = sorted((here.keys() | found["settings"].keys()) - set(_OWN))
    different = [
        f"{name} {found['settings'].get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if found["settings"].get(name) != here.get(name)
    ]
    # Memes of its own may be other ones.
    if (found["settings"].get("root") is None) != (here["root"] is None):
        different.append("memes of a folder on one, built-in ones on the other")
    if different:
        raise UserError(
            f"--with={path} does not match: {'; '.join(different)}. Measure both "
            "machines with the same options"
        )
    return found


def perform(plan: Plan) -> Measured:
    """Measure the table, and write it as Markdown, CSV, HTML and JSON.

    Raises:
        ValueError: if something cannot be measured.
    """
    preset = plan.settings.preset
    if plan.table == "table7":
        figures = graphs.measure(preset, root=plan.settings.root, weights=plan.detector)
        made = graphs.tabulate(figures)
    elif plan.table == "figure4":
        figures = forward.measure(preset)
        made = forward.tabulate(figures)
    else:
        figures = epochs.measure(plan.table, plan.settings)
        made = epochs.tabulate(plan.table, figures, other=plan.other)
    plan.workdir.mkdir(parents=True, exist_ok=True)
    for suffix, render in FORMATS.items():
        atomic.write_text(plan.workdir / f"{plan.table}.{suffix}", render(made))
    content = {"table": plan.table, "machine": made.machine, **figures}
    folder.write_json(plan.workdir / f"{plan.table}.json", content)
    return made
