"""Tables 4 to 6: epochs of multimodal CASS on one device and on several."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memejax import logs
from memejax.bench import input_study, scaling
from memejax.bench.input_study import Case
from memejax.data import synthetic_memes
from memejax.reproduce.performance import published
from memejax.reproduce.performance.parts import Measured, clock, machine, share

COLUMNS = (
    "devices",
    "compiled by",
    "batch",
    "epoch",
    "memes/s per device",
    "cores, each device",
    "memory, each device",
    "speed-up",
    "efficiency",
    "published on",
    "published epoch",
    "published cores",
    "published memory",
    "published speed-up",
    "published efficiency",
)
# Batch of one device, and whether each device has as many ("weak"), as in the paper's
# code, or the devices share it.
_BATCHES = {"table4": (4, False), "table5": (32, True), "table6": (32, False)}
_WORKERS = {"table4": 0, "table5": 14, "table6": 14}
# Memes of an epoch: for the demo enough to be timed, otherwise the paper's
# four fifths of 8,500.
_MEMES = {"demo": 2048, "full": 6800, "paper": 6800}
_SIDES = {"tiny": 24, "paper": 384}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement of tables 4 to 6.

    Attributes:
        preset: "demo", "full" or "paper".
        root: folder of memes; None: built-in ones, as many as the paper's.
        devices: number of the several devices; None: four, or all if there are fewer.
        threads: that read pictures where the table has no workers.
    """

    preset: str
    root: str | None = None
    devices: int | None = None
    threads: int = 2

    @property
    def size(self) -> str:
        """Size of models and pictures."""
        return "tiny" if self.preset == "demo" else "paper"


def cases(table: str, settings: Settings, *, several: int) -> list[Case]:
    """Return the cases of a table: one device and several, by jit and by pmap.

    Args:
        table: "table4", "table5" or "table6".
        settings: of the measurement.
        several: number of the several devices.

    Raises:
        ValueError: if they cannot share a batch.
    """
    batch, is_weak = _BATCHES[table]
    if table != "table6" and not is_weak and batch % several:
        raise ValueError(
            f"{table} shares a batch of {batch}, and {several} devices cannot: choose "
            "--devices=2 or 4"
        )
    # The demo's cores are too few for 14 processes.
    workers = 0 if settings.preset == "demo" else _WORKERS[table]
    counts = [1] if table == "table6" else sorted({1, several})
    return [
        Case(
            size=settings.size,
            batch=batch * (count if is_weak else 1),
            workers=workers,
            memes=_MEMES[settings.preset],
            root=settings.root,
            threads=settings.threads,
            devices=count,
            mode=mode,
            # As published: single precision.
            dtype="bfloat16" if settings.preset == "full" else "float32",
        )
        for count in counts
        for mode in (("jit",) if table == "table6" else ("jit", "pmap"))
    ]


def measure(table: str, settings: Settings) -> dict[str, Any]:
    """Measure a table's cases, each in a process of its own.

    Returns:
        JSON: `settings`, and for each case what `input_study.cell` returns.

    Raises:
        ValueError: if a case cannot be measured.
    """
    platform, available = scaling.devices()
    several = settings.devices or (4 if platform == "cpu" else min(4, available))
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        chosen = settings
        if settings.root is None:
            # Once for all cases: the paper's size takes minutes.
            root = folder / "memes"
            synthetic_memes.write(
                root,
                train=_MEMES[settings.preset],
                dev=4,
                test=4,
                size=_SIDES[settings.size],
            )
            chosen = dataclasses.replace(settings, root=str(root))
        for case in cases(table, chosen, several=several):
            logs.say(
                f"{table}: an epoch on {case.devices} device"
                f"{'s' * (case.devices != 1)} by {case.mode}, after one to warm up"
            )
            cell = input_study.in_subprocess(case, compiled=str(folder / "compiled"))
            found.append(cell)
    return {"settings": dataclasses.asdict(settings), "cells": found}


def tabulate(
    table: str, figures: Mapping[str, Any], *, other: Mapping[str, Any] | None = None
) -> Measured:
    """Make a table of measured cases.

    Args:
        table: "table4", "table5" or "table6".
        figures: from `measure`.
        other: the JSON of another machine, for table 6; see `command.read_other`.
    """
    settings, cells = figures["settings"], figures["cells"]
    here = machine()
    rows = [_row(table, cell, cells) for cell in cells]
    if table == "table6":
        rows = [["this machine", *row[1:]] for row in rows]
        if other is not None:
            beside = published.OTHER_MACHINE
            rows += [
                [other["machine"]["processor"], *_row(table, cell, [cell], beside)[1:]]
                for cell in other["cells"]
            ]
    first = cells[0]
    how = f"{first['steps']:,} batches per epoch, read by " + (
        f"{first['workers']} processes"
        if first["workers"]
        else f"{settings['threads']} threads"
    )
    return Measured(
        name=table,
        title=published.TITLES[table],
        preset=settings["preset"],
        protocol=(
            f"multimodal CASS on {_memes(settings)}, one epoch after one to warm up, "
            f"{how}"
        ),
        columns=COLUMNS,
        rows=rows,
        figures=figures,
        machine=here,
        notes=_notes(table, settings, cells, other=other),
    )


def _memes(settings: Mapping[str, Any]) -> str:
    if settings["root"] is not None:
        return f"the memes of {settings['root']}"
    return f"{_MEMES[settings['preset']]:,} built-in memes"


def _row(
    table: str,
    cell: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    beside: published.Epoch | None = None,
) -> list[str]:
    """A case as text, with the published row beside it."""
    count, seconds = cell["devices"], _seconds(cell)
    (alone,) = (
        _seconds(c) for c in cells if c["devices"] == 1 and c["mode"] == cell["mode"]
    )
    several = count > 1
    theirs = beside or published.EPOCHS[table].get((count, cell["mode"]))
    return [
        f"{count} {cell['device']}",
        cell["mode"],
        f"{cell['batch']:,}",
        clock(seconds),
        f"{cell['steps'] * cell['batch'] / seconds / count:.1f}",
        *_utilisation(cell),
        f"{alone / seconds:.2f}" if several else "-",
        share(alone / seconds / count) if several else "-",
        *_published(theirs),
    ]


def _published(theirs: published.Epoch | None) -> list[str]:
    if theirs is None:
        return ["-"] * 6
    return [
        theirs.on,
        clock(theirs.seconds),
        share(theirs.core),
        share(theirs.memory),
        "-" if theirs.speed_up is None else f"{theirs.speed_up:.2f}",
        share(theirs.efficiency),
    ]


def _seconds(cell: Mapping[str, Any]) -> float:
    return float(np.median(cell["epoch seconds"]))


def _utilisation(cell: Mapping[str, Any]) -> tuple[str, str]:
    """Cores and memory in use: of each GPU, or of the machine of a CPU."""
    if cell["platform"] == "cpu":
        return (
            f"{share(cell['core utilisation'])} of the machine",
            f"{share(cell['memory utilisation'])} of the machine",
        )
    cards = cell["gpus"][: cell["devices"]]
    cores = ", ".join(share(card["utilisation"]) for card in cards)
    memory = ", ".join(
        share(None if held is None else held / card["total"])
        for held, card in zip(cell["device bytes"], cards, strict=False)
    )
    return cores or "-", memory or "-"


def _notes(
    table: str,
    settings: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    *,
    other: Mapping[str, Any] | None,
) -> list[str]:
    notes = []
    if settings["preset"] == "demo":
        notes.append(
            "Preset demo: small models on small pictures; not comparable with the "
            "published figures."
        )
    if cells[0]["platform"] == "cpu":
        several = max(cell["devices"] for cell in cells)
        if several > 1:
            notes.append(
                f"The {several} devices are fake ones, which share the cores of one "
                "CPU: speed-up, efficiency and figures per device mean nothing here, "
                "and only show that the program runs on several devices."
            )
        notes.append(
            "Cores and memory are those of the process and its readers, as shares of "
            "the whole machine; the published ones are a GPU's."
        )
    else:
        notes.append(
            "Cores: nvidia-smi's share of the time in which a kernel ran. Memory: the "
            "peak of JAX's allocator as a share of the GPU's; nvidia-smi would show "
            "what JAX reserves at its start. The published ones are nvidia-smi's."
        )
    if table == "table4":
        notes.append(
            "The devices share one batch of 4; whether the published four had 4 each "
            "is not known. The published rows beside pmap ran under PyTorch's "
            "DataParallel, with cuDNN's benchmarking."
        )
    if table == "table5":
        notes.append(
            "Each device has a batch of 32, as in the paper's code. Its 14 readers are "
            f"{cells[0]['workers'] or 'threads of the process'} here."
        )
    if table == "table6":
        notes.append(
            "Published: an RTX 8000 and a V100. "
            + (
                "The second row is from the JSON of the other machine."
                if other is not None
                else "Run this on another machine too, and give its table6.json with "
                "--with."
            )
        )
    notes.append("Speed-up: seconds per epoch of one device over those of several.")
    return notes
