"""Figures of a paper's table from finished runs."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from memejax import folder, metrics
from memejax.outcomes import evaluated, evaluated_seeds, watched
from memejax.report import tables
from memejax.report.paper_table import Line, PaperTable, Spread
from memejax.reproduce.rows import TITLES, Row, rows
from memejax.reproduce.runs import run_folder

Results = Mapping[str, Any]
# Splits to report, the first available one: the paper's first.
SPLITS = ("test_unseen", "test_seen", "test")


def spread(
    values: Sequence[float], *, single: tuple[float | None, float | None] = (None, None)
) -> Spread:
    """Mean, standard deviation and 95 % interval of the mean over seeds.

    `mean +- t(0.975, n - 1) std / sqrt(n)`, Student's t, cut at 0 and 1, beyond which
    no AUROC or accuracy lies.

    Args:
        values: one per seed; NaN is left out.
        single: the interval if there is only one seed.

    Returns:
        The known parts: nothing without values, no deviation for a single one.
    """
    known = [value for value in values if tables.is_number(value)]
    if not known:
        return Spread()
    mean, std = metrics.mean_std(known)
    if len(known) == 1:
        low, high = (x if tables.is_number(x) else None for x in single)
        return Spread(mean, None, low, high)
    reach = float(stats.t.ppf(0.975, len(known) - 1)) * std / math.sqrt(len(known))
    return Spread(mean, std, max(mean - reach, 0.0), min(mean + reach, 1.0))


def collect(
    table: str, workdir: str | os.PathLike[str], *, preset: str, seeds: int
) -> PaperTable:
    """Collect a table from the finished runs.

    Args:
        table: one of `rows.TABLES`.
        workdir: the tables' folder.
        preset: preset of the runs.
        seeds: number of seeds, from 0.

    Raises:
        ValueError: if the table is unknown, or the runs have another preset, different
            data or another protocol.
    """
    wanted = rows(table, preset=preset)
    found = {row.name: _finished(row, workdir, seeds) for row in wanted}
    # Runs shared by several rows count once.
    every = {run: results for runs in found.values() for run, results in runs.items()}
    root, split, protocol = _same_data(every, preset)
    lines = [_line(row, found[row.name], split, workdir, seeds) for row in wanted]
    return PaperTable(
        name=table,
        title=TITLES[table],
        preset=preset,
        split=_describe(split, root),
        protocol=protocol,
        lines=[*lines, *_references(list(every.values()), split)],
        notes=_notes(table, preset, list(every.values()), split, root),
    )


def _finished(
    row: Row, workdir: str | os.PathLike[str], seeds: int
) -> dict[pathlib.Path, Results]:
    """Folder -> results, of the row's finished runs in the order of seeds."""
    folders = [run_folder(workdir, row, seed) for seed in range(seeds)]
    results = {path: folder.read_json(path / "results.json") for path in folders}
    return {path: value for path, value in results.items() if value is not None}


def _same_data(
    every: Mapping[pathlib.Path, Results], preset: str
) -> tuple[str | None, str | None, str]:
    """Return what all runs have in common: folder of memes, split, protocol.

    Raises:
        ValueError: if runs differ in preset, data or protocol.
    """
    first: tuple[pathlib.Path, Any] | None = None
    for path, results in every.items():
        if results["preset"] != preset:
            raise ValueError(
                f"{path} is a run of the preset {results['preset']}, expected {preset}"
            )
        data = (results["data"].get("root"), _split(results), _protocol(path, results))
        first = first or (path, data)
        if data != first[1]:
            names = ("folder", "test split", "protocol")
            different = "; ".join(
                f"{name} {one} and {other}"
                for name, one, other in zip(names, first[1], data, strict=True)
                if one != other
            )
            raise ValueError(
                f"{first[0]} and {path} cannot be compared: {different}; use a "
                "separate --workdir"
            )
    return first[1] if first else (None, None, "")


def _protocol(path: pathlib.Path, results: Results) -> str:
    """Describe how a run's checkpoints were chosen.

    Raises:
        ValueError: for a run of an earlier memejax, which had one checkpoint for all
            arms.
    """
    dev, sizes = results["dev"], results["data"]["sizes"]
    found = [evaluated(outcomes) for outcomes in results["seeds"].values()]
    if not all("checkpoints" in outcome for outcome in found if outcome is not None):
        raise ValueError(
            f"{path} was scored by one checkpoint for all of its arms, as an earlier "
            "memejax did: run it again in a separate --workdir"
        )
    share = sizes[dev] / (sizes[dev] + sizes["train"])
    held_out = {
        "random_validation": f"a random {share:.0%} of train",
        "validation": f"{share:.0%} of train held out by caption",
    }
    return f"checkpoint of each row's arm chosen on {held_out.get(dev, dev)}"


def _split(results: Results) -> str | None:
    """The split to report, None if no labelled split was scored."""
    dev, names = results["dev"], results["summary"]
    others = sorted(names, key=lambda name: (name == dev, name))
    return next((name for name in (*SPLITS, *others) if name in names), None)


def _line(
    row: Row,
    runs: Mapping[pathlib.Path, Results],
    split: str | None,
    workdir: str | os.PathLike[str],
    seeds: int,
) -> Line:
    """The row's figures over its finished seeds."""
    note = row.note
    if row.run_by:
        note = " ".join(filter(None, (f"Runs of {row.run_by}.", note)))
    reports = _reports(runs.values(), split, row)
    interval = (None, None)
    if len(reports) == 1:
        interval = (reports[0].get("auroc_low"), reports[0].get("auroc_high"))
    verdicts = [
        found["collapsed"]
        for results in runs.values()
        for found in map(watched, results["seeds"].values())
        if found is not None
    ]
    return Line(
        method=row.method,
        architecture=row.architecture,
        size=row.size,
        auroc=spread([r["auroc"] for r in reports], single=interval),
        accuracy=spread([r["accuracy"] for r in reports]),
        published_auroc=row.published_auroc,
        published_accuracy=row.published_accuracy,
        finished=len(runs),
        seeds=0 if row.run_by and not runs else seeds,
        collapsed=sum(verdicts) if verdicts else None,
        seconds=float(np.mean([r["seconds"] for r in runs.values()])) if runs else None,
        pages=[
            (path.name.removeprefix("seed"), _relative(path / "report.html", workdir))
            for path in runs
        ],
        note=note,
    )


def _reports(runs, split: str | None, row: Row) -> list[dict[str, Any]]:
    """Reports of the row's arm from each evaluated run.

    Raises:
        ValueError: if a run has no such arm.
    """
    found = []
    for results in runs:
        for splits in evaluated_seeds(results):
            if split is None:
                continue
            arms = splits[split]
            if row.arm not in arms:
                raise ValueError(
                    f"the row {row.name} is of the arm {row.arm!r}, but its run has "
                    f"{sorted(arms)}"
                )
            found.append(arms[row.arm])
    return found


def _relative(path: pathlib.Path, workdir: str | os.PathLike[str]) -> str:
    return path.relative_to(workdir).as_posix()


def _references(every: Sequence[Results], split: str | None) -> list[Line]:
    """Rows of the constant predictor and, for built-in memes, the Bayes optimum."""
    constants = [
        splits[split][tables.CONSTANT]
        for results in every
        for splits in evaluated_seeds(results)
        if split is not None
    ]
    lines = [_reference("constant predictor", constants)]
    best = [
        results["data"]["bayes"]["both"]
        for results in every
        if results["data"].get("bayes")
    ]
    return [*lines, _reference("best possible (Bayes)", best)] if best else lines


def _reference(name: str, figures: Sequence[Mapping[str, float]]) -> Line:
    """A row that depends on the seed only through its memes: means alone."""
    # The constant predictor's AUROC is known before any run.
    auroc = spread([f["auroc"] for f in figures]).mean if figures else 0.5
    accuracy = spread([f["accuracy"] for f in figures]).mean
    return Line(method=name, auroc=Spread(auroc), accuracy=Spread(accuracy))


def _describe(split: str | None, root: str | None) -> str | None:
    """The split and the source of its memes."""
    if split is None:
        return None
    return f"{split} of {'the built-in memes' if root is None else root}"


def _notes(
    table: str,
    preset: str,
    every: Sequence[Results],
    split: str | None,
    root: str | None,
) -> list[str]:
    """Notes below the table."""
    notes, graphs = [], table == "table3"
    if preset == "demo":
        sizes = " Pictures of 32 and 48 pixels stand for the papers' 224 and 384."
        notes.append(
            "Preset demo: small models; every row has the same number of updates and "
            f"the same batch size in each of its stages.{'' if graphs else sizes} Not "
            "comparable with the published figures."
        )
        if every and root is None and not graphs:
            notes.append("Every seed has its own built-in memes.")
    if preset == "paper":
        notes.append(
            "Preset paper: the recipes as published, with the faults named in the "
            "configs' headers."
        )
    if graphs:
        notes.append(
            "All rows and seeds read the same stored features: the benefit of a graph "
            "is the difference from the controls, which were not published."
        )
    if every and split == every[0]["dev"]:
        notes.append("This split chose the checkpoints: the figures are optimistic.")
    notes += [
        "AUROC and accuracy (at 0.5): mean ± standard deviation over the seeds, and in "
        "brackets the 95 % interval of the mean (Student's t, cut at 0 and 1); for one "
        "seed, that of the AUROC over resampled memes.",
        "The published figures are on Hateful Memes' test_unseen, where the constant "
        "predictor has an AUROC of 0.5 and an accuracy of 0.625: a published accuracy "
        "of 0.625 with an AUROC of 0.5 shows no skill.",
    ]
    if not graphs:
        notes.append("Collapsed: seeds whose pretraining ended collapsed.")
    return notes
