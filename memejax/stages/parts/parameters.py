"""Parameters of a stage as a table: name, shape, size and optimizer group."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
from clu import parameter_overview

from memejax import atomic, optim, parallel
from memejax.stage import Stage

Tree = Any
FILE = "parameters.txt"


@dataclasses.dataclass(frozen=True)
class Row:
    """A leaf, in the columns of the table.

    Attributes:
        name: its path.
        shape: of the array.
        dtype: of the array.
        size: numbers in it.
        group: its optimizer group.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    group: str


def rows(params: Tree, groups: Tree) -> list[Row]:
    """Return a row per leaf, in the order of their names.

    Args:
        params: arrays or `jax.ShapeDtypeStruct`s.
        groups: name of the group of each leaf, in the shape of `params`.
    """
    names = dict(jax.tree.leaves_with_path(groups))
    found = [
        Row(optim.path_of(path), leaf.shape, str(leaf.dtype), leaf.size, names[path])
        for path, leaf in jax.tree.leaves_with_path(params)
    ]
    return sorted(found, key=lambda row: row.name)


def sizes(table: list[Row]) -> dict[str, int]:
    """Return group -> parameters in it, in the order of the names."""
    found: dict[str, int] = {}
    for row in sorted(table, key=lambda row: row.group):
        found[row.group] = found.get(row.group, 0) + row.size
    return found


def write(stage: Stage, path: pathlib.Path) -> str:
    """Write the table of a stage's parameters into its folder.

    No array is needed: the state's shapes suffice.

    Args:
        stage: with `groups`.
        path: the stage's folder; of several processes only the first writes.

    Returns:
        The sum, for the console.
    """
    table = rows(stage.abstract.params, stage.groups)
    by_group = sizes(table)
    each = ", ".join(f"{name} {size:,}" for name, size in by_group.items())
    count = f"{len(by_group)} group{'s' * (len(by_group) != 1)}"
    text = f"{sum(by_group.values()):,} parameters in {count} ({each})"
    # Of seeds side by side the state has an axis of seeds, the step too.
    if stage.abstract.step.shape:
        text += f", of {stage.abstract.step.shape[0]} seeds together"
    if parallel.is_first():
        path.mkdir(parents=True, exist_ok=True)
        overview = f"{parameter_overview.make_table(table)}\n{text}\n"
        atomic.write_text(path / FILE, overview)
    return text
