"""Writing a profile as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from memejax.profile import table
from memejax.profile.runner import Profile, Window

TOTAL = "total"
# Largest number of rows in a Markdown table; the CSV file has all.
MAX_ROWS = 40
_COLUMNS = (
    "calls",
    "kernels",
    "ms",
    "time",
    "GFLOP",
    "FLOPs",
    "GFLOP/s",
    "of peak",
    "MB",
)
_ABOUT = """\
All figures are per step. `calls`, `GFLOP` and `MB` (bytes that the operations read and
write) are counted in the program as written, `kernels` and `ms` are measured in the
compiled one; columns `time` and `FLOPs` are shares and add up to 100 %. All the time of
a kernel that fuses several operations is in the row of its convolution or product if it
has one; operations without a time ran inside other kernels.

Time is summed over threads (CPU), streams (GPU) and the devices of the traced process,
where operations may run in parallel: a share is one of this sum, not of wall time.
`GFLOP/s` is the rate while a product ran, on all devices of all processes together,
`of peak` its share of the peak above. The time of the row "not attributed" belongs to
no operation of the step; that of other programs is in no row.
"""


def write(
    profile: Profile, folder: str | os.PathLike[str], *, title: str, facts: Mapping
) -> list[pathlib.Path]:
    """Write profile.md, profile.csv and profile.json.

    Args:
        profile: result of `measure`.
        folder: output folder, made if missing.
        title: title of the page.
        facts: name -> JSON value, listed before the tables.

    Returns:
        The paths of the files.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"profile.{suffix}" for suffix in ("md", "csv", "json")]
    files[0].write_text(to_markdown(profile, title=title, facts=facts), "utf-8")
    with files[1].open("w", newline="", encoding="utf-8") as file:
        _write_csv(profile, file)
    content = to_json(profile) | {"facts": dict(facts)}
    files[2].write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return files


def to_markdown(profile: Profile, *, title: str, facts: Mapping[str, Any]) -> str:
    """Readable tables: by class (warm and cold), operation and module."""
    facts = {**facts, **_facts(profile)}
    warm, cold = profile.warm, profile.cold
    sections = [
        (f"By class, warm ({warm.steps} steps)", table.by_class, warm),
        ("By operation, warm", table.by_operation, warm),
        ("By module, warm", table.by_module, warm),
    ]
    if cold is not None:
        first = ("By class, cold (the first call)", table.by_class, cold)
        sections.insert(1, first)
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    parts = [f"# {title}\n", f"{listed}\n", _ABOUT]
    for heading, grouped, window in sections:
        rows = grouped(window.rows)
        if grouped is table.by_class:
            rows += table.group(rows, lambda _: ("", "", TOTAL))
        parts += [f"## {heading}\n", _markdown(profile, window, rows[:MAX_ROWS])]
        if len(rows) > MAX_ROWS:
            parts.append(f"{len(rows) - MAX_ROWS} shorter rows are in profile.csv.\n")
    return "\n".join(parts)


def to_json(profile: Profile) -> dict[str, Any]:
    """Return the whole profile as JSON values; times in seconds, all per step."""
    counted = profile.counted

    def of(window: Window) -> dict[str, Any]:
        classes = table.by_class(window.rows)
        return {
            "steps": window.steps,
            "seconds": window.seconds,
            "idle": window.idle,
            "others": window.others,
            "by_class": [_figures(profile, window, r) for r in classes],
            "operations": [_figures(profile, window, r) for r in window.rows],
        }

    return {
        "flops": counted.flops / profile.steps,
        "loops_counted_once": list(counted.loops),
        "uncounted": dict(counted.uncounted),
        "trace_seconds": profile.trace_seconds,
        "compile_seconds": profile.compile_seconds,
        "seconds": profile.seconds,
        "wait": profile.wait,
        "between": profile.between,
        "peak": profile.peak,
        "peak_dtype": profile.dtype,
        "devices": profile.devices,
        "local_devices": profile.local_devices,
        "memory": profile.memory,
        "cold": None if profile.cold is None else of(profile.cold),
        "warm": of(profile.warm),
    }


def _facts(profile: Profile) -> dict[str, str]:
    flops = profile.counted.flops / profile.steps
    rate = flops / profile.seconds
    between = "" if profile.between is None else ", time between calls included"
    facts = {
        "tracing and lowering": f"{profile.trace_seconds:.2f} s",
        "compiling": f"{profile.compile_seconds:.2f} s",
        "warm": _warm(profile),
        "no operation ran": f"{profile.warm.idle:.1%} of the traced time{between}",
        "FLOPs": f"{flops / 1e9:.3f} GFLOP per step, {rate / 1e9:.1f} GFLOP/s, "
        f"{rate / profile.peak:.1%} of the peak",
        "peak": f"{profile.peak / 1e9:.1f} GFLOP/s, measured: a large "
        f"{profile.dtype} product on {profile.devices} device(s)",
        "memory": ", ".join(
            f"{k} {v / 1e6:.1f} MB" for k, v in profile.memory.items() if v
        ),
    }
    if profile.warm.others:
        facts["other programs, in no table"] = (
            f"{profile.warm.others * 1e3:.1f} ms per step, summed like the tables' "
            "times"
        )
    if profile.local_devices < profile.devices:
        facts["traced"] = (
            f"{profile.local_devices} of the {profile.devices} devices, one process's"
        )
    if profile.cold is not None:
        facts["first call (cold)"] = (
            f"{profile.cold.seconds * 1e3:.1f} ms per step; no operation ran in "
            f"{profile.cold.idle:.1%} of it"
        )
    if profile.counted.loops:
        places = ", ".join(profile.counted.loops)
        facts["while loops, their bodies counted once"] = places
    if profile.counted.uncounted:
        facts["operations without a count"] = ", ".join(
            f"{name} ({calls})" for name, calls in profile.counted.uncounted.items()
        )
    return facts


def _warm(profile: Profile) -> str:
    step = f"{profile.seconds * 1e3:.1f} ms per step"
    if profile.wait is not None:
        return (
            f"{step}, of which {profile.wait * 1e3:.1f} ms wait for data; "
            f"{profile.warm.seconds * 1e3:.1f} ms in the profiler"
        )
    if profile.between is None:
        return f"{step}, in the profiler"
    return (
        f"{step}, in the profiler; another {profile.between * 1e3:.1f} ms per step "
        "between calls, in which the run waited for data, evaluated or saved"
    )


def _figures(profile: Profile, window: Window, row: table.Row) -> dict[str, Any]:
    """A row with its shares and its rate; None instead of a division by 0."""
    time = sum(r.seconds for r in window.rows)
    flops = sum(r.flops for r in window.rows)
    rate = None
    # Elementwise arithmetic runs in other rows' kernels too: its rate is meaningless.
    has_rate = row.kind in ("", "convolution", "matmul", TOTAL)
    if has_rate and row.seconds and row.flops:
        # The time is summed over the traced devices, the FLOPs over all.
        rate = row.flops / row.seconds * profile.local_devices
    return dataclasses.asdict(row) | {
        "share_of_time": row.seconds / time if time else None,
        "share_of_flops": row.flops / flops if flops else None,
        "flops_per_second": rate,
        "share_of_peak": None if rate is None else rate / profile.peak,
    }


def _markdown(profile: Profile, window: Window, rows: Sequence[table.Row]) -> str:
    names = [
        n for n in ("module", "primitive", "kind") if any(getattr(r, n) for r in rows)
    ]
    head = ["class" if name == "kind" else name for name in names]
    lines = [[*head, *_COLUMNS], [*["---"] * len(names), *["---:"] * len(_COLUMNS)]]
    for row in rows:
        f = _figures(profile, window, row)
        moved = row.bytes_in + row.bytes_out
        lines.append(
            [
                *(getattr(row, name) for name in names),
                f"{row.calls:,.0f}",
                f"{row.kernels:,.0f}",
                f"{row.seconds * 1e3:.3f}",
                _percent(f["share_of_time"]),
                f"{row.flops / 1e9:.4f}",
                _percent(f["share_of_flops"]),
                _giga(f["flops_per_second"]),
                _percent(f["share_of_peak"]),
                f"{moved / 1e6:,.1f}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _giga(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e9:,.1f}"


def _write_csv(profile: Profile, file: Any) -> None:
    """Write a CSV row for every primitive of every module, cold and warm."""
    windows = {"warm": profile.warm, "cold": profile.cold}
    rows = [
        {"window": name} | _figures(profile, window, row)
        for name, window in windows.items()
        if window is not None
        for row in window.rows
    ]
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
