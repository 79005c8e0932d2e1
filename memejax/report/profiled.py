"""What a window of a run in the profiler showed, where the run had one."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from memejax import folder
from memejax.report import markup
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
    "Figures of a step. Time is summed over threads or streams, and over the devices "
    "of the process that was traced, which work side by side; that of other programs "
    "is in no row. A kernel of several operations has its time in the row of its "
    "product or convolution; GFLOP/s, on all devices together, and the share of the "
    "measured peak are of the time in which it ran.",
)


def section(run: Finished) -> list[str]:
    """A table by class and one of the longest operations, for each traced stage."""
    stages = {
        f"{stage}, seed {seed}": f"{seed}/{stage}"
        for seed in run.seeds
        for stage in (*STAGES, BASELINE)
    }
    return of_stages(run.folder, stages)


def of_stages(where: pathlib.Path, stages: Mapping[str, str]) -> list[str]:
    """The same for stages in folders that are given.

    Args:
        where: the run's folder.
        stages: a stage's name -> its folder within the run's, with or without a window.

    Returns:
        HTML; [] if no stage was traced.
    """
    parts = []
    for name, place in stages.items():
        found = folder.read_json(where / place / FILE)
        if found is not None:
            parts += _stage(name, found, f"{place}/{_WHOLE}")
    return ["<h2>Where the time went</h2>", *parts] if parts else []


def _stage(name: str, found: Mapping[str, Any], whole: str) -> list[str]:
    warm = found["warm"]
    rate = found["flops"] / found["seconds"]
    href = markup.escape(whole)
    said = (
        f"{found['seconds'] * 1e3:.1f} ms a step over {warm['steps']} steps, "
        f"{found['flops'] / 1e9:.3f} GFLOP, {rate / 1e9:.1f} GFLOP/s: "
        f"{rate / found['peak']:.1%} of the {found['peak'] / 1e9:.0f} GFLOP/s of a "
        f"large {found['peak_dtype']} product on {found['devices']} device(s)."
    )
    rows = warm["operations"]
    longest = sorted(rows, key=lambda row: -row["seconds"])[:_MOST]
    titles = [f"{row['primitive']} {_short(row['module'])}" for row in longest]
    classes = [row["kind"] for row in warm["by_class"]]
    return [
        f"<h3>{markup.escape(name)}</h3>",
        markup.paragraph(said),
        *_between(found),
        markup.facts(
            {
                "Compiled in": f"{found['compile_seconds']:.1f} s",
                **{
                    f"Memory, {name}": f"{value / 1e6:.1f} MB"
                    for name, value in found["memory"].items()
                    if value
                },
            }
        ),
        markup.table(_table("By class", classes, warm["by_class"], _NOTES)),
        markup.table(_table(f"The {len(longest)} longest", titles, longest)),
        f'<p>All operations and modules: <a href="{href}">{href}</a></p>',
    ]


def _between(found: Mapping[str, Any]) -> list[str]:
    """What the time of a step leaves out; nothing where it leaves out nothing."""
    # Not in the files of earlier windows, whose steps had it in them.
    seconds = found.get("between")
    if not seconds:
        return []
    return [
        markup.paragraph(
            f"Between the calls passed {seconds * 1e3:.1f} ms a step more, in which "
            "the run waited for data, evaluated or saved."
        )
    ]


def _table(
    title: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> Table:
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
    """A path of modules by its last parts: the files have it whole."""
    parts = module.split("/")
    return module if len(parts) <= _DEEP else "…/" + "/".join(parts[-_DEEP:])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"
