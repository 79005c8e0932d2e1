"""Reproducing a table: its plan, its runs one after another, and its files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from memejax import atomic, logs, parallel, train
from memejax.report import paper_table
from memejax.report.paper_table import PaperTable
from memejax.reproduce import features as stored_features
from memejax.reproduce import figures, runs
from memejax.reproduce.rows import encoder_row, rows
from memejax.reproduce.runs import Run

# Suffix of the table's file -> function that renders it.
FORMATS = {
    "md": paper_table.to_markdown,
    "csv": paper_table.to_csv,
    "html": paper_table.to_html,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked runs of a table.

    Attributes:
        table: "table1", ...
        preset: preset of every run.
        workdir: folder of the runs and the table.
        seeds: number of seeds per row.
        runs: all runs of the table.
        jobs: the runs of this shard and their configs; empty if only the table is to be
            written.
        summary: readable description.
        encoders: the run whose features are stored before a graph network is trained;
            None if features are given, or there is no graph network.
    """

    table: str
    preset: str
    workdir: pathlib.Path
    seeds: int
    runs: Sequence[Run]
    jobs: Sequence[tuple[Run, ConfigDict]]
    summary: str
    encoders: pathlib.Path | None = None


def reproduce(table: str, **options: Any) -> PaperTable:
    """Run the missing runs of a table, and write it as Markdown, CSV and HTML.

    Equivalent to `perform(prepare(table, **options))`, with the same errors.
    """
    return perform(prepare(table, **options))


def prepare(
    table: str,
    *,
    preset: str = "demo",
    workdir: str | os.PathLike[str] | None = None,
    seeds: int = 5,
    shard: tuple[int, int] = (0, 1),
    root: str | None = None,
    features: str | None = None,
    run: str | None = None,
    leaves: Mapping[str, str] | None = None,
    table_only: bool = False,
) -> Plan:
    """Plan the runs of a table, and check that they can be run.

    Args:
        table: "table1", "table2", "table3" or "table8".
        preset: "demo", "full" or "paper".
        workdir: folder of the runs and the table; default `runs/tables-<preset>`.
            Tables in one workdir share their runs.
        seeds: number of seeds per row, from 0.
        shard: (i, n): only runs j with j % n == i are run.
        root: folder of the memes; the demo has built-in ones.
        features: for table3: the store that the graph networks read. The demo makes one
            in `<workdir>/features` by default.
        run: for table3's demo: the finished run whose encoders give the features;
            default the tables' own multimodal CASS, which is run first.
        leaves: dotted leaf -> value as written on a command line, for every run whose
            config has that leaf.
        table_only: whether to run nothing.

    Raises:
        ValueError: if an argument is not as above.
        folder.OtherRunError: if a run's folder holds a run of another config.
    """
    wanted = rows(table, preset=preset)
    path = pathlib.Path(workdir or f"runs/tables-{preset}")
    every = runs.expand(wanted, path, seeds=seeds)
    encoders = None
    if table == "table3" and features is None and not table_only:
        _check_encoders(preset, shard)
        features = str(path / "features")
        encoders = pathlib.Path(run or runs.run_folder(path, encoder_row(), 0))
        if run is None:
            every = [Run(encoder_row(), 0, encoders), *every]
    shown = [
        Run(row, seed, runs.run_folder(path, row, seed))
        for row in wanted
        for seed in range(seeds)
    ]
    if table_only and not any(run.finished for run in shown):
        raise ValueError(
            f"no run of {table} is finished in {path}: run it without --table-only "
            "first, or name the folder of its runs with --workdir"
        )
    own = runs.shard(every, shard[0], of=shard[1])
    jobs = []
    if not table_only:
        if preset != "demo" and root is None and table != "table3":
            raise ValueError(
                f"the preset {preset} needs --root=FOLDER, the folder of the memes "
                "(only the demo has built-in ones)"
            )
        # For all runs, so that every shard raises the same errors.
        configs = runs.configs(
            every, preset=preset, root=root, features=features, leaves=leaves
        )
        jobs = list(zip(every, configs, strict=True))
        for job, config in jobs:
            runs.check_folder(job.folder, config)
        jobs = [(job, config) for job, config in jobs if job in own]
    lines = [
        f"{table}, preset {preset}: {len(every)} runs, "
        f"{sum(job.finished for job in every)} finished"
    ]
    if shard[1] > 1:
        lines.append(f"shard {shard[0]} of {shard[1]} has {len(own)} of them")
    todo = [job for job, _ in jobs if not job.finished]
    lines.append(f"to run here: {len(todo)}")
    lines += [f"  {job.row.run}, seed {job.seed}" for job in todo]
    others = [row for row in wanted if row.run_by]
    if others:
        names = ", ".join(row.method for row in others)
        lines.append(f"{names}: run by {others[0].run_by}")
    return Plan(table, preset, path, seeds, every, jobs, "\n".join(lines), encoders)


def _check_encoders(preset: str, shard: tuple[int, int]) -> None:
    """Raise ValueError if features cannot be made here."""
    if preset != "demo":
        raise ValueError(
            f"the preset {preset} of table3 needs --features=STORE, the folder that "
            "python -m memejax.extract --config=configs/graph.py --out=STORE wrote "
            "(only the demo makes one)"
        )
    if shard[1] > 1:
        raise ValueError("shards of table3 share stored features: give --features")


def perform(plan: Plan) -> PaperTable:
    """Run the unfinished runs one after another, and write the table's files.

    The table is written before the first run and after every run, from all finished
    runs. Call this again to resume an interrupted run.

    Returns:
        The table as last written.

    Raises:
        loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
    """
    logs.say(plan.summary)
    # The seeds of a row, and rows that differ only in their start, share one program.
    parallel.keep_compiled()
    written, stored = write(plan), False
    for run, config in plan.jobs:
        # Checked now: it may have been finished since the plan was made.
        if run.finished:
            continue
        logs.say(f"\n{run.row.run}, seed {run.seed}")
        try:
            if plan.encoders is not None and not stored and "features" in config:
                stored_features.store(plan.encoders, config.features)
                stored = True
            train.run(config, run.folder)
        except Exception as error:
            error.add_note(f"this was the run in {run.folder}")
            raise
        # The next run compiles its own functions: these are of no more use.
        jax.clear_caches()
        written = write(plan)
    return written


def write(plan: Plan) -> PaperTable:
    """Write the table's files atomically from the finished runs."""

    def collect() -> PaperTable:
        return figures.collect(
            plan.table, plan.workdir, preset=plan.preset, seeds=plan.seeds
        )

    plan.workdir.mkdir(parents=True, exist_ok=True)
    written, now = None, collect()
    # Repeated if another shard finished a run meanwhile, whose table this one may have
    # overwritten.
    while written != now:
        for suffix, render in FORMATS.items():
            # Other shards write the same file, perhaps on other machines.
            atomic.write_text(plan.workdir / f"{plan.table}.{suffix}", render(now))
        written, now = now, collect()
    return now
