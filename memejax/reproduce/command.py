"""Does what is asked for: the plan, the runs one after another, the table's files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from memejax import logs, parallel, train
from memejax.report import paper_table
from memejax.report.paper_table import PaperTable
from memejax.reproduce import features as stored_features
from memejax.reproduce import figures, runs
from memejax.reproduce.rows import encoder_row, rows
from memejax.reproduce.runs import Run

# Suffix of the table's file -> what writes it.
FORMATS = {
    "md": paper_table.to_markdown,
    "csv": paper_table.to_csv,
    "html": paper_table.to_html,
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done, checked.

    Attributes:
        table: "table1", ...
        preset: of every run.
        workdir: of the runs and the table.
        seeds: seeds of every row.
        every: all runs of the table.
        mine: those of this shard and their configs; none where only the table is
            wanted.
        about: for a person.
        encoders: the run whose features are to be stored before a graph network is
            trained; None where there are stored ones, or no graph network.
    """

    table: str
    preset: str
    workdir: pathlib.Path
    seeds: int
    every: Sequence[Run]
    mine: Sequence[tuple[Run, ConfigDict]]
    about: str
    encoders: pathlib.Path | None = None


def reproduce(table: str, **options: Any) -> PaperTable:
    """Runs what a table still needs, and writes it as Markdown, CSV and HTML.

    The same as `perform(prepare(table, **options))`, and raises what they do.
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
    """The runs of a table, and whether they can be run as asked.

    Args:
        table: "table1", "table2", "table3" or "table8".
        preset: "demo", "full" or "paper".
        workdir: of the runs and the table; default `runs/tables-<preset>`. Tables in
            one workdir share their runs.
        seeds: seeds of every row, from 0.
        shard: (i, n): only runs j with j % n == i are run.
        root: the memes' folder; the demo has built-in ones.
        features: of table3: the store that the graph networks read. The demo makes one
            where there is none, `<workdir>/features`.
        run: of table3's demo: the finished run whose encoders give the features;
            default the tables' own multimodal CASS, which is run first.
        leaves: dotted leaf -> value as written on a command line, for every run whose
            config has that leaf.
        table_only: whether to run nothing.

    Raises:
        ValueError: if an argument is not as above.
        folder.OtherRunError: if a run's folder holds a run of another config.
    """
    wanted = rows(table, preset=preset)
    where = pathlib.Path(workdir or f"runs/tables-{preset}")
    every = runs.expand(wanted, where, seeds=seeds)
    encoders = None
    if table == "table3" and features is None and not table_only:
        _check_encoders(preset, shard)
        features = str(where / "features")
        encoders = pathlib.Path(run or runs.place(where, encoder_row(), 0))
        if run is None:
            every = [Run(encoder_row(), 0, encoders), *every]
    mine = runs.shard(every, shard[0], of=shard[1])
    jobs = []
    if not table_only:
        if preset != "demo" and root is None and table != "table3":
            raise ValueError(
                f"the preset {preset} needs --root=FOLDER, the folder of the memes "
                "(only the demo has built-in ones)"
            )
        # Of all runs, so that every shard refuses alike.
        configs = runs.configs(
            every, preset=preset, root=root, features=features, leaves=leaves
        )
        jobs = list(zip(every, configs, strict=True))
        for job, config in jobs:
            runs.check_folder(job.folder, config)
        jobs = [(job, config) for job, config in jobs if job in mine]
    lines = [
        f"{table}, preset {preset}: {len(every)} runs, "
        f"{sum(job.finished for job in every)} finished"
    ]
    if shard[1] > 1:
        lines.append(f"shard {shard[0]} of {shard[1]} has {len(mine)} of them")
    todo = [job for job, _ in jobs if not job.finished]
    lines.append(f"to run here: {len(todo)}")
    lines += [f"  {job.row.run}, seed {job.seed}" for job in todo]
    others = [row for row in wanted if row.run_by]
    if others:
        names = ", ".join(row.method for row in others)
        lines.append(f"{names}: run by {others[0].run_by}")
    return Plan(table, preset, where, seeds, every, jobs, "\n".join(lines), encoders)


def _check_encoders(preset: str, shard: tuple[int, int]) -> None:
    """Raises ValueError if features cannot be stored here."""
    if preset != "demo":
        raise ValueError(
            f"the preset {preset} of table3 needs --features=STORE, the folder that "
            "python -m memejax.extract --config=configs/graph.py --out=STORE wrote "
            "(only the demo makes one)"
        )
    if shard[1] > 1:
        raise ValueError("shards of table3 share stored features: give --features")


def perform(plan: Plan) -> PaperTable:
    """Runs what is not finished, one after another, and writes the table's files.

    The table is written before the first run and after every one, from whatever is
    finished. An interrupted run resumes when this is called again.

    Returns:
        The table as last written.

    Raises:
        loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
    """
    logs.say(plan.about)
    # The seeds of a row, and rows that differ in their start only, are one program.
    parallel.keep_compiled(plan.workdir / "compiled")
    written, stored = write(plan), False
    for run, config in plan.mine:
        # Asked now: it may have been finished since the plan was made.
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
        # The next run has functions of its own: what was compiled is of no more use.
        jax.clear_caches()
        written = write(plan)
    return written


def write(plan: Plan) -> PaperTable:
    """Writes the table's files from what is finished, each whole or not at all."""

    def collect() -> PaperTable:
        return figures.collect(
            plan.table, plan.workdir, preset=plan.preset, seeds=plan.seeds
        )

    plan.workdir.mkdir(parents=True, exist_ok=True)
    written, now = None, collect()
    # Again where a shard finished a run meanwhile: it may have written before this one.
    while written != now:
        for suffix, render in FORMATS.items():
            path = plan.workdir / f"{plan.table}.{suffix}"
            # Other shards write the same file, on other machines too.
            part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
            part.write_text(render(now), "utf-8")
            part.replace(path)
        written, now = now, collect()
    return now
