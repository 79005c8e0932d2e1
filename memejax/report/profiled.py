"""What a window of a run in the profiler showed, where the run had one."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from memejax import folder
from memejax.report import markup
from memejax.report.cells import Table
from memejax.report.finished import Finished

# As profile.Recorder writes it.
FILE = "profile.json"
_STAGES = ("pretrain", "baseline", "finetune", "graph")
_COLUMNS = ("", "kernels", "ms", "time", "GFLOP", "FLOPs", "GFLOP/s", "of peak")
# The longest rows; the files have all.
_MOST = 15
_DEEP = 4
_NOTES = (
    "Figures of a step. Time is summed over threads or streams, which work side by "
    "side. A kernel of several operations has its time in the row of its product or "
    "convolution; GFLOP/s and the share of the measured peak are of the time in which "
    "it ran.",
)


def section(run: Finished) -> list[str]:
    """A table by class and one of the longest operations, for each traced stage."""
    parts = []
    for seed in run.seeds:
        for stage in _STAGES:
            file = run.folder / seed / stage / FILE
            found = folder.read_json(file)
            if found is not None:
                name = f"{stage}, seed {seed}"
                parts += _stage(name, found, file.with_suffix(".md"), run)
    return ["<h2>Where the time went</h2>", *parts] if parts else []


def _stage(
    name: str, found: Mapping[str, Any], whole: pathlib.Path, run: Finished
) -> list[str]:
    warm = found["warm"]
    rate = found["flops"] / found["seconds"]
    href = markup.escape(whole.relative_to(run.folder).as_posix())
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
