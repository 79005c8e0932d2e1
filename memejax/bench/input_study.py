"""Batch sizes by numbers of workers: time per epoch, and use of cores and GPUs.

    python -m memejax.bench.input_study --batches 8 32 --workers 0 2

The study of the paper's Tables 4 to 6, with multimodal CASS on built-in memes or those
of `--root`, which are decoded and resized every time they are used. `--workers` are
reader processes; 0 reads in `--threads` threads of the training process, the default
elsewhere. `--batches` are global.

Each pair runs in its own process: an epoch to warm up, compilation included, and then
`--epochs`, whose median time is printed. The use of cores is the average over these
epochs, memory the peak of the process and its workers together; that of GPUs comes
from nvidia-smi, if there are any. Linux only.
"""

from __future__ import annotations

import argparse
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
        (batch,), (workers,) = options.batches, options.workers
        print(json.dumps(cell(batch, workers, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cells = [
            _in_subprocess(batch, workers, options, folder)
            for batch in options.batches
            for workers in options.workers
        ]
    shown = ("size", "root", "threads", "devices")
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
    # Option of the subprocess that measures one pair.
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_subprocess(
    batch: int, workers: int, options: argparse.Namespace, folder: str
) -> dict[str, Any]:
    command = [sys.executable, "-m", "memejax.bench.input_study", "--part"]
    command += [f"--batches={batch}", f"--workers={workers}"]
    for name in ("size", "memes", "root", "epochs", "threads", "devices"):
        value = getattr(options, name)
        command += [] if value is None else [f"--{name}={value}"]
    # The step does not depend on the workers: it is compiled once per batch size.
    environment = {"JAX_COMPILATION_CACHE_DIR": folder} | os.environ
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def cell(batch: int, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one pair's epochs in this process.

    Args:
        batch: global batch size.
        workers: number of reader processes.
        options: options size, memes, root, epochs, threads and devices.

    Returns:
        batch, workers, steps per epoch, `epoch seconds` of each epoch, and the figures
        of `usage.Watch` over all of them.

    Raises:
        ValueError: if the memes do not fill a batch, or the devices cannot share it.
    """
    prepare()
    import jax

    from memejax import datasets, parallel
    from memejax.stages import pretrain

    mesh = parallel.mesh(options.devices)
    parallel.check_batch(mesh, batch)
    with tempfile.TemporaryDirectory() as folder:
        config = pretraining.cass(
            options.size,
            batch=batch,
            steps=1,
            memes=options.memes,
            threads=options.threads,
            workers=workers,
            root=options.root,
        )
        data = datasets.load(config, pathlib.Path(folder))
        steps = len(data.splits["train"].ids) // batch
        if not steps or options.epochs < 1:
            raise ValueError(
                f"got {len(data.splits['train'].ids)} memes in batches of {batch} for "
                f"{options.epochs} epochs, expected at least one of each"
            )
        config.pretrain.steps = (1 + options.epochs) * steps
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
            seconds = [epoch() for _ in range(options.epochs)]
        # Past its end, so that the workers shut down properly.
        next(chunks, None)
    about = {"batch": batch, "workers": workers, "steps": steps}
    return {**about, "epoch seconds": seconds, **watch.figures}


def rows(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Convert cells to rows of a table; GPU columns are None without GPUs.

    Args:
        cells: see `cell`.

    Returns:
        Rows: batch, workers, s/epoch, memes/s, cores, memory, the mean utilisation of
        all GPUs and the largest memory of one.
    """
    found = []
    for one in cells:
        seconds = float(np.median(one["epoch seconds"]))
        cards = one["gpus"]
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
                "GPU GB": (
                    max(card["bytes"] for card in cards) / 1e9 if cards else None
                ),
            }
        )
    return found


if __name__ == "__main__":
    main()
