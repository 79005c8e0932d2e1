"""Runs of rows and seeds: one folder each, so that none is run twice."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from memejax import folder
from memejax.config import flatten, load_config
from memejax.reproduce.rows import Row
from memejax.stages.parts.choices import RUNTIME

# Leaves that define a row: set by the table itself.
RESERVED = (
    *("name", "preset", "seed", "seeds", "arms"),
    *("data.root", "data.image_size", "features"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of one row, or of several rows that share the run.

    Attributes:
        row: the first of those rows.
        seed: the seed of the run.
        folder: `<workdir>/<row.run>/seed<seed>`.
    """

    row: Row
    seed: int
    folder: pathlib.Path

    @property
    def finished(self) -> bool:
        """Whether the run has results."""
        return (self.folder / "results.json").exists()


def run_folder(workdir: str | os.PathLike[str], row: Row, seed: int) -> pathlib.Path:
    """Folder of a row's run."""
    return pathlib.Path(workdir) / row.run / f"seed{seed}"


def expand(
    rows: Sequence[Row], workdir: str | os.PathLike[str], *, seeds: int
) -> list[Run]:
    """Return every run that the rows need, once each.

    Seed by seed, so that an unfinished table has figures in every row.

    Args:
        rows: rows of a table; those run by another table are skipped.
        workdir: the tables' folder.
        seeds: number of seeds, from 0.

    Raises:
        ValueError: if `seeds` is below 1, or rows share a run but not its config.
    """
    if seeds < 1:
        raise ValueError(f"got seeds={seeds}, expected at least 1")
    shared: dict[str, Row] = {}
    for row in rows:
        if row.run_by:
            continue
        first = shared.setdefault(row.run, row)
        one, two = ((r.config, r.options, dict(r.overrides)) for r in (first, row))
        if one != two:
            raise ValueError(
                f"the rows {first.name} and {row.name} share the run {row.run}, but "
                f"not its config: {one} and {two}"
            )
    return [
        Run(row, seed, run_folder(workdir, row, seed))
        for seed in range(seeds)
        for row in shared.values()
    ]


def shard(runs: Sequence[Run], index: int, *, of: int) -> list[Run]:
    """Return the runs of a shard: run j belongs to shard j % of.

    Args:
        runs: all runs, in the same order in every shard.
        index: 0 to of - 1.
        of: number of shards, at least 1.

    Raises:
        ValueError: if `index` is out of range.
    """
    if not 0 <= index < of:
        raise ValueError(
            f"got shard {index}/{of}, expected i/n with i from 0 to n - 1, n >= 1"
        )
    return list(runs[index::of])


def configs(
    runs: Sequence[Run],
    *,
    preset: str,
    root: str | None = None,
    features: str | None = None,
    leaves: Mapping[str, str] | None = None,
) -> list[ConfigDict]:
    """Return the config of each run.

    Args:
        runs: runs of one preset.
        preset: "demo", "full" or "paper".
        root: folder of the memes; built-in memes if None.
        features: the store that graph networks read.
        leaves: dotted leaf -> value as written on a command line, for every run whose
            config has that leaf.

    Raises:
        ValueError: if a leaf is set by the table, is in no run's config, or cannot have
            that value.
    """
    leaves = leaves or {}
    reserved = sorted({*RESERVED} & leaves.keys())
    if reserved:
        raise ValueError(
            f"the table itself sets {reserved}: see --root, --features and --seeds, or "
            "run memejax.main"
        )
    made, unused = [], dict(leaves)
    for run in runs:
        text = ",".join(part for part in (preset, run.row.options) if part)
        config = load_config(f"{run.row.config}:{text}")
        values = dict(run.row.overrides) | {"seed": run.seed, "seeds": 1}
        if root is not None:
            values["data.root"] = root
        if features is not None and "features" in leaves_of(config):
            values["features"] = features
        for leaf, value in values.items():
            if leaf not in leaves_of(config):
                raise ValueError(f"{run.row.config} has no leaf {leaf}")
            set_leaf(config, leaf, value)
        for leaf, text in leaves.items():
            if leaf in leaves_of(config):
                set_text(config, leaf, text)
                unused.pop(leaf, None)
        made.append(config)
    if unused and made:
        leaf = min(unused)
        names = sorted({name for config in made for name in leaves_of(config)})
        close = difflib.get_close_matches(leaf, names) or names
        raise ValueError(
            f"no run's config has the leaf {leaf}; expected one like {', '.join(close)}"
        )
    return made


def check_folder(path: pathlib.Path, config: ConfigDict) -> None:
    """Check that a run's folder is empty or has a run of this config.

    Raises:
        folder.OtherRunError: with the leaves that differ.
    """
    old = folder.read_config(path)
    if old is None:
        return
    # Through JSON, as written in the folder: tuples become lists.
    new = json.loads(json.dumps(config.to_dict()))
    different = folder.differences(old, new, free=RUNTIME)
    if different:
        raise folder.other_run(path, different)


def leaves_of(config: ConfigDict) -> set[str]:
    """Dotted names of a config's leaves."""
    return set(flatten(config.to_dict()))


def set_leaf(config: ConfigDict, leaf: str, value: Any) -> None:
    """Set a leaf.

    Raises:
        ValueError: if the leaf has another type.
    """
    try:
        config.update_from_flattened_dict({leaf: value})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{config.name}: {leaf} cannot be {value!r}: {error}"
        ) from error


def set_text(config: ConfigDict, leaf: str, text: str) -> None:
    """Set a leaf from text: a Python literal if that fits, else the text itself."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    try:
        set_leaf(config, leaf, value)
    except ValueError:
        # A folder may be named 2024.
        if value == text:
            raise
        set_leaf(config, leaf, text)
