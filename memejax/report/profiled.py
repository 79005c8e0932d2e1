"""The section on a run's window in the profiler."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from memejax import folder
from memejax.report.blocks import Block, Facts, Heading, Links, Section, Text
from memejax.report.cells import Table
from memejax.report.finished import Finished
from memejax.stages import STAGES
from memejax.stages.finetune import BASELINE

# As profile.Recorder writes it.
FILE = "profile.json"
_WHOLE = "profile.md"
_COLUMNS = ("", "kernels", "ms", "time", "GFLOP", "FLOPs", "GFLOP/s", "of peak")
# The longest rows; the files have all.
_MOST = 15
_DEEP = 4
_NOTES = (
    "Figures per step. Time is summed over threads or streams, and over the devices "
    "of the process that was traced, which work side by side; that of other programs "
    "is in no row. A kernel of several operations has its time in the row of its "
    "product or convolution; GFLOP/s, on all devices together, and the share of the "
    "measured peak are of the time in which it ran.",
)


def section(run: Finished) -> Section | None:
    """Tables of each traced stage; None if none was traced."""
    stages = {
        f"{stage}, seed {seed}": f"{seed}/{stage}"
        for seed in run.seeds
        for stage in (*STAGES, BASELINE)
    }
    return of_stages(run.folder, stages)


def of_stages(path: pathlib.Path, stages: Mapping[str, str]) -> Section | None:
    """Tables of those of the given stages that were traced; None if none was.

    Args:
        path: folder of the run.
        stages: name of a stage -> its folder within the run's.
    """
    blocks: list[Block] = []
    for name, own in stages.items():
        found = folder.read_json(path / own / FILE)
        if found is not None:
            blocks += _stage(name, found, f"{own}/{_WHOLE}")
    return Section("Where the time went", blocks) if blocks else None


def _stage(name: str, found: Mapping[str, Any], whole: str) -> list[Block]:
    """A table by class and one of the longest operations."""
    warm = found["warm"]
    rate = found["flops"] / found["seconds"]
    blocks: list[Block] = [
        Heading(name),
        Text(
            f"{found['seconds'] * 1e3:.1f} ms per step over {warm['steps']} steps, "
            f"{found['flops'] / 1e9:.3f} GFLOP, {rate / 1e9:.1f} GFLOP/s: "
            f"{rate / found['peak']:.1%} of the {found['peak'] / 1e9:.0f} GFLOP/s of a "
            f"large {found['peak_dtype']} product on {found['devices']} device(s)."
        ),
    ]
    # Not in the files of earlier windows, whose steps included it.
    between = found.get("between")
    if between:
        blocks.append(
            Text(
                f"Between the calls passed {between * 1e3:.1f} ms more per step, in "
                "which the run waited for data, evaluated or saved."
            )
        )
    rows = warm["operations"]
    longest = sorted(rows, key=lambda row: -row["seconds"])[:_MOST]
    titles = [f"{row['primitive']} {_short(row['module'])}" for row in longest]
    classes = [row["kind"] for row in warm["by_class"]]
    memory = {
        f"Memory, {name}": f"{value / 1e6:.1f} MB"
        for name, value in found["memory"].items()
        if value
    }
    return [
        *blocks,
        Facts({"Compiled in": f"{found['compile_seconds']:.1f} s", **memory}),
        _table("By class", classes, warm["by_class"], _NOTES),
        _table(f"The {len(longest)} longest", titles, longest),
        Links("All operations and modules", [(whole, quote(whole))]),
    ]


def _table(
    title: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> Table:
    """One row for each class or operation."""
    return Table(
        title,
        _COLUMNS,
        [
            [
                name,
                f"{row['kernels']:,.0f}",
                f"{row['seconds'] * 1e3:.3f}",
                _share(row["share_of_time"]),
                f"{row['flops'] / 1e9:.4f}",
                _share(row["share_of_flops"]),
                _giga(row["flops_per_second"]),
                _share(row["share_of_peak"]),
            ]
            for name, row in zip(names, rows, strict=True)
        ],
        notes,
    )


def _short(module: str) -> str:
    """Last parts of a path of modules, which the files have whole."""
    parts = module.split("/")
    return module if len(parts) <= _DEEP else "…/" + "/".join(parts[-_DEEP:])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"
