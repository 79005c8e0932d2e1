"""Batch size by workers: an epoch's time, and how busy cores and GPUs are meanwhile.

    python -m memejax.bench.input_study --batches 8 32 --workers 0 2

The study of the paper's Tables 4 to 6, of multimodal CASS on built-in memes or those
of `--root`, which are decoded and resized whenever they are used. `--workers` are
processes that read; 0 reads in `--threads` threads of the training's own process,
which is the default elsewhere. `--batches` are global.

Each pair is run in a process of its own: an epoch to warm up, compilation included,
and then `--epochs`, of whose seconds the median is printed. Cores are busy on the
average over these epochs, memory is the most at one time, of the process and its
workers together; of GPUs by nvidia-smi, where there are any. Linux only.
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


def main() -> None:
    """The command line."""
    options = _options()
    if options.part:
        (batch,), (workers,) = options.batches, options.workers
        print(json.dumps(cell(batch, workers, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cells = [
            _in_a_process(batch, workers, options, folder)
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
        text="numbers of processes that read; 0: threads do",
        several=True,
    )
    parser.add_argument(
        "--size",
        choices=pretraining.SIZES,
        default="tiny",
        help="of the models and pictures; paper: as published",
    )
    parser.number("--memes", 512, text="built-in memes to train on, a multiple of 4")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="memes to train on, laid out as the Hateful Memes (default: built-in)",
    )
    parser.number("--epochs", 1, text="timed epochs of each pair, after one to warm up")
    parser.number("--threads", cores, text="threads that read where no processes do")
    parser.number("--devices", None, text="devices that share a batch (default: all)")
    # What a process that measures one pair is started with.
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(
    batch: int, workers: int, options: argparse.Namespace, folder: str
) -> dict[str, Any]:
    command = [sys.executable, "-m", "memejax.bench.input_study", "--part"]
    command += [f"--batches={batch}", f"--workers={workers}"]
    for name in ("size", "memes", "root", "epochs", "threads", "devices"):
        value = getattr(options, name)
        command += [] if value is None else [f"--{name}={value}"]
    # The workers change nothing about the step: it is compiled once a batch.
    environment = {"JAX_COMPILATION_CACHE_DIR": folder} | os.environ
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def cell(batch: int, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One pair's epochs, in this process.

    Args:
        batch: global.
        workers: processes that read.
        options: the command line's: size, memes, root, epochs, threads, devices.

    Returns:
        batch, workers, steps of an epoch, `epoch seconds` of each, and the figures of
        `usage.Watch` over all of them.

    Raises:
        ValueError: if the memes do not fill a batch, or the devices cannot share it.
    """
    prepare()
    import jax

    from memejax import datasets, parallel
    from memejax.stages import pretrain

    mesh = parallel.mesh(options.devices)
    parallel.check_batch(mesh, batch)
    with tempfile.TemporaryDirectory() as where:
        config = pretraining.cass(
            options.size,
            batch=batch,
            steps=1,
            memes=options.memes,
            threads=options.threads,
            workers=workers,
            root=options.root,
        )
        data = datasets.load(config, pathlib.Path(where))
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
        # Past its end, so that the workers end in order.
        next(chunks, None)
    about = {"batch": batch, "workers": workers, "steps": steps}
    return {**about, "epoch seconds": seconds, **watch.figures}


def rows(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells as a table's rows; what no card tells is None.

    Args:
        cells: see `cell`.

    Returns:
        Rows: batch, workers, s/epoch, memes/s, cores, memory, and of all cards the mean
        utilisation and the most memory of one.
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
