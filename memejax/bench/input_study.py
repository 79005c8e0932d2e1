"""Batch sizes by numbers of workers: time per epoch, and use of cores and GPUs.

    python -m memejax.bench.input_study --batches 8 32 --workers 0 2

The study of the paper's Tables 4 to 6, with multimodal CASS on built-in memes or those
of `--root`, which are decoded and resized every time they are used. `--workers` are
reader processes; 0 reads in `--threads` threads of the training process, the default
elsewhere. `--batches` are global.

Each pair runs in its own process: an epoch to warm up, compilation included, and then
`--epochs`, whose median time is printed. The use of cores is the average over these
epochs, memory the peak of the process and its workers together. Of GPUs, if there are
any, the utilisation comes from nvidia-smi and the memory from JAX's allocator: it
reserves three quarters of a GPU at its start, so that nvidia-smi's figure says nothing.
On a CPU `--devices` are fake ones that share its cores. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from memejax.bench import pairs, pretraining, tables, usage
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command


@command
def main() -> None:
    """Run the benchmark."""
    options = _options()
    if options.part:
        print(json.dumps(cell(Case(**json.loads(options.part)))))
        return
    cases = [
        Case(
            size=options.size,
            batch=batch,
            workers=workers,
            memes=options.memes,
            root=options.root,
            epochs=options.epochs,
            threads=options.threads,
            devices=options.devices,
            mode=options.mode,
        )
        for batch in options.batches
        for workers in options.workers
    ]
    with tempfile.TemporaryDirectory() as folder:
        cells = [in_subprocess(case, compiled=folder) for case in cases]
    shown = ("size", "root", "threads", "devices", "mode")
    pairs.write(
        "input study",
        {**{name: getattr(options, name) for name in shown}, "cells": cells},
        options.out,
    )
    print(tables.text(rows(cells)))


def _options() -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = Parser("input_study", __doc__)
    parser.number(
        "--batches", [4, 8, 16, 32], text="global batch sizes, in memes", several=True
    )
    parser.number(
        "--workers",
        sorted({0, 1, 2, cores}),
        text="numbers of reader processes; 0 reads in threads",
        several=True,
    )
    parser.add_argument(
        "--size",
        choices=pretraining.SIZES,
        default="tiny",
        help="size of models and pictures; paper: as published",
    )
    parser.number("--memes", 512, text="built-in memes to train on, a multiple of 4")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="memes to train on, laid out as the Hateful Memes (default: built-in)",
    )
    parser.number("--epochs", 1, text="timed epochs of each pair, after one to warm up")
    parser.number("--threads", cores, text="reader threads if there are no processes")
    parser.number("--devices", None, text="devices that share a batch (default: all)")
    parser.add_argument(
        "--mode",
        choices=("jit", "pmap"),
        default="jit",
        help="how a step is compiled for several devices (default: %(default)s)",
    )
    # Option of the subprocess that measures one case.
    parser.add_argument("--part", metavar="JSON", help=argparse.SUPPRESS)
    return parser.parse_args()


@dataclasses.dataclass(frozen=True)
class Case:
    """One pair of batch and workers, and all that it is measured with.

    Attributes:
        size: of models and pictures, one of `pretraining.SIZES`.
        batch: global batch size.
        workers: number of reader processes.
        memes: number of built-in memes, without a root.
        root: folder of memes.
        epochs: timed ones, after one to warm up.
        threads: reader threads, without workers.
        devices: that share a batch; None: all.
        mode: "jit" or "pmap".
        dtype: of products; None: that of the size.
    """

    size: str
    batch: int
    workers: int = 0
    memes: int = 512
    root: str | None = None
    epochs: int = 1
    threads: int = 2
    devices: int | None = None
    mode: str = "jit"
    dtype: str | None = None


def in_subprocess(case: Case, *, compiled: str) -> dict[str, Any]:
    """Measure a case in a process of its own; see `cell`.

    Args:
        case: what to measure.
        compiled: folder of compiled programs: a step does not depend on the workers.

    Raises:
        ValueError: if the process fails; its errors are on the console.
    """
    text = json.dumps(dataclasses.asdict(case))
    command = [sys.executable, "-m", "memejax.bench.input_study", f"--part={text}"]
    environment = {"JAX_COMPILATION_CACHE_DIR": compiled} | os.environ
    if case.devices is not None:
        # Without an accelerator they are fake ones; with one this has no effect.
        environment["JAX_NUM_CPU_DEVICES"] = str(case.devices)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise ValueError(f"{case} could not be measured: see the error above")
    return json.loads(done.stdout.splitlines()[-1])


def cell(case: Case) -> dict[str, Any]:
    """Measure a case's epochs in this process.

    Returns:
        batch, workers, mode, steps per epoch, `epoch seconds` of each epoch, the
        `device` and number of `devices`, `device bytes` of each (its allocator's peak,
        None on a CPU), and the figures of `usage.Watch` over all epochs.

    Raises:
        ValueError: if the memes do not fill a batch, or the devices cannot share it.
    """
    prepare()
    import jax

    from memejax import datasets, parallel
    from memejax.stages import pretrain

    mesh = parallel.mesh(case.devices)
    parallel.check_batch(mesh, case.batch)
    with tempfile.TemporaryDirectory() as folder:
        config = pretraining.cass(
            case.size,
            batch=case.batch,
            steps=1,
            memes=case.memes,
            threads=case.threads,
            workers=case.workers,
            root=case.root,
        )
        config.parallel.mode = case.mode
        if case.dtype is not None:
            config.model.dtype = case.dtype
        data = datasets.load(config, pathlib.Path(folder))
        steps = len(data.splits["train"].ids) // case.batch
        if not steps or case.epochs < 1:
            raise ValueError(
                f"got {len(data.splits['train'].ids)} memes in batches of {case.batch} "
                f"for {case.epochs} epochs, expected at least one of each"
            )
        config.pretrain.steps = (1 + case.epochs) * steps
        stage = pretrain.make(config, data, seed=0, mesh=mesh)
        # One stream, as in a run: workers start once, and read on between epochs.
        chunks, state = stage.feeder.chunks(0), stage.init()

        def epoch() -> float:
            nonlocal state
            began = time.perf_counter()
            for _ in range(steps):
                state, metrics = stage.run_chunk(state, next(chunks)[1])
            jax.block_until_ready((state, metrics))
            return time.perf_counter() - began

        epoch()
        with usage.Watch() as watch:
            seconds = [epoch() for _ in range(case.epochs)]
        # Past its end, so that the workers shut down properly.
        next(chunks, None)
        devices = list(mesh.devices.flat)
    about = {
        "batch": case.batch,
        "workers": case.workers,
        "mode": case.mode,
        "steps": steps,
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "device bytes": usage.device_bytes(devices),
    }
    return {**about, "epoch seconds": seconds, **watch.figures}


def rows(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Convert cells to rows of a table; GPU columns are None without GPUs.

    Args:
        cells: see `cell`.

    Returns:
        Rows: batch, workers, s/epoch, memes/s, cores, memory, the mean utilisation of
        all GPUs and the largest memory of one, by JAX's allocator.
    """
    found = []
    for one in cells:
        seconds = float(np.median(one["epoch seconds"]))
        cards, held = one["gpus"], [b for b in one["device bytes"] if b is not None]
        found.append(
            {
                "batch": one["batch"],
                "workers": one["workers"],
                "s/epoch": seconds,
                "memes/s": one["batch"] * one["steps"] / seconds,
                "cores %": 100 * one["core utilisation"],
                "GB": one["resident bytes"] / 1e9,
                "GPU %": (
                    100 * float(np.mean([card["utilisation"] for card in cards]))
                    if cards
                    else None
                ),
                "GPU GB": max(held) / 1e9 if held else None,
            }
        )
    return found


if __name__ == "__main__":
    main()
