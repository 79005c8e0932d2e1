"""Training steps of multimodal CASS on 1, 2, 4, ... devices of this machine.

    python -m memejax.bench.scaling

strong     `--batch` memes per step, shared by the devices
weak       `--batch` memes for each device
synthetic  one batch on the devices
real       batches of built-in memes, decoded, resized and transferred as in a run

Speed-up is the ratio of memes per second, efficiency the speed-up per device:
t_1 / (p t_p) for strong scaling and t_1 / t_p for weak. The numbers of devices are
timed in turn, after a warm-up, in one process. With only a CPU, each number has its own
process with so many fake devices; they share the cores, so their figures show that the
program works but not how fast it would be.

`memejax.bench.scaling_paper` extrapolates from here to more devices.
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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memejax.bench import pairs, pretraining, tables
from memejax.bench.command_line import Parser
from memejax.bench.scaling_model import KINDS, efficiency
from memejax.command_line import prepare
from memejax.errors import command

INPUTS = ("synthetic", "real")
_QUERY = "import jax; print(jax.default_backend(), jax.local_device_count())"


@command
def main() -> None:
    """Run the benchmark."""
    options = _options()
    if options.part is not None:
        print(json.dumps(measured(options.part, options)))
        return
    platform, available = devices()
    counts = options.devices or [n for n in (1, 2, 4, 8, 16) if n <= available]
    fake = platform == "cpu"
    if fake:
        counts = options.devices or [1, 2, 4]
        print("fake devices share this CPU's cores: their figures do not show speed")
    if 1 not in counts:
        counts = [1, *counts]
    parts = [_in_subprocess(n, options) for n in _groups(counts, fake)]
    cases = [case for part in parts for case in part["cases"]]
    rows = summary(cases, batch=options.batch, kinds=options.kind)
    pairs.write(
        "scaling",
        {
            "platform": platform,
            "device": parts[0]["device"],
            "fake devices": fake,
            "size": options.size,
            "parameters": parts[0]["parameters"],
            "steps": options.steps,
            "cases": cases,
            "rows": rows,
        },
        options.out,
    )
    print(tables.text(rows))


def _options() -> argparse.Namespace:
    parser = Parser("scaling", __doc__)
    parser.number(
        "--devices",
        None,
        text="numbers of devices; 1 is always included (default: those of 1, 2, 4, 8 "
        "and 16 that are available, and on a CPU 1, 2 and 4 fake ones)",
        several=True,
    )
    parser.names(
        "--kind", KINDS, default=KINDS, text="kinds of scaling, from %(choices)s"
    )
    parser.names(
        "--input",
        INPUTS,
        default=INPUTS,
        text="sources of batches, from %(choices)s",
    )
    parser.add_argument(
        "--size",
        choices=pretraining.SIZES,
        default="tiny",
        help="size of models and pictures; paper: as published",
    )
    parser.number("--batch", 32, text="memes per batch (strong), or per device (weak)")
    parser.number("--steps", 20, text="training steps per round")
    parser.number("--rounds", 5, text="timed rounds, after one to warm up")
    parser.number(
        "--threads", os.cpu_count() or 1, text="threads that read real batches"
    )
    # Option of a measuring subprocess: its numbers of devices.
    parser.number("--part", None, text=argparse.SUPPRESS, several=True)
    return parser.parse_args()


def devices() -> tuple[str, int]:
    """Platform and number of devices, from a subprocess so that none is taken here."""
    done = subprocess.run(
        [sys.executable, "-c", _QUERY], check=True, capture_output=True, text=True
    )
    platform, count = done.stdout.split()[-2:]
    return platform, int(count)


def _groups(counts: Sequence[int], fake: bool) -> list[list[int]]:
    return [[n] for n in counts] if fake else [list(counts)]


def _in_subprocess(
    counts: Sequence[int], options: argparse.Namespace
) -> dict[str, Any]:
    command = [sys.executable, "-m", "memejax.bench.scaling"]
    for name in ("size", "batch", "steps", "rounds", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    for name, values in (("part", counts), ("kind", options.kind)):
        command += [f"--{name}", *map(str, values)]
    command += ["--input", *options.input]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(max(counts))}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(counts: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Measure steps on some numbers of devices, in this process.

    Args:
        counts: numbers of devices.
        options: options kind, input, size, batch, steps, rounds and threads.

    Returns:
        `cases`, each with devices, batch, input and seconds (per step, one figure per
        round), the device's name, and the number of trained parameters.

    Raises:
        ValueError: if there are fewer devices, or they cannot share a batch evenly.
    """
    prepare()
    import jax

    with tempfile.TemporaryDirectory() as folder:
        cases = [
            _Case(n, batch, options, pathlib.Path(folder) / f"{n}x{batch}")
            for n in counts
            for batch in sorted(_batches_on(n, options))
        ]
        rows = [
            {"devices": c.devices, "batch": c.batch, "input": kind, "seconds": []}
            for c in cases
            for kind in options.input
        ]
        for number in range(options.rounds + 1):
            timed = [c.seconds(kind) for c in cases for kind in options.input]
            # The first round is the warm-up.
            for row, seconds in zip(rows, timed, strict=True) if number else ():
                row["seconds"].append(seconds)
        parameters = cases[0].parameters
    device = jax.local_devices()[0].device_kind
    return {"cases": rows, "device": device, "parameters": parameters}


def _batches_on(devices: int, options: argparse.Namespace) -> set[int]:
    """Global batch sizes to time on a number of devices.

    One device has half the batch as well: from both, `memejax.bench.scaling_paper`
    computes the part of a step that does not shrink with its batch.
    """
    found = batches(devices, options.batch, options.kind)
    if devices == 1 and options.batch > 1:
        found.add(options.batch // 2)
    return found


def batches(devices: int, batch: int, kinds: Sequence[str]) -> set[int]:
    """Global batch sizes for kinds of scaling on a number of devices."""
    return {devices * batch if kind == "weak" else batch for kind in kinds}


def summary(
    cases: Sequence[Mapping[str, Any]], *, batch: int, kinds: Sequence[str]
) -> list[dict[str, Any]]:
    """Speed-ups and efficiencies from medians.

    Args:
        cases: see `measured`; for each input, `batch` on one device is among them.
        batch: batch size of one device.
        kinds: "strong", "weak".

    Returns:
        Rows: kind, input, devices, batch, seconds per step, memes/s, speed-up,
        efficiency.
    """
    medians = {
        (c["input"], c["devices"], c["batch"]): float(np.median(c["seconds"]))
        for c in cases
    }
    rows = []
    for kind in kinds:
        for name, devices, size in sorted(medians, key=lambda key: (key[0], key[1])):
            if size not in batches(devices, batch, [kind]):
                continue
            seconds = medians[name, devices, size]
            share = efficiency(
                medians[name, 1, batch], seconds, devices=devices, kind=kind
            )
            rows.append(
                {
                    "kind": kind,
                    "input": name,
                    "devices": devices,
                    "batch": size,
                    "seconds": seconds,
                    "memes/s": size / seconds,
                    "speed-up": devices * share,
                    "efficiency": share,
                }
            )
    return rows


class _Case:
    """A batch on some devices: a compiled step, its state and its input."""

    def __init__(
        self,
        devices: int,
        batch: int,
        options: argparse.Namespace,
        folder: pathlib.Path,
    ):
        import jax

        from memejax import datasets, parallel
        from memejax.stages import pretrain

        self.devices, self.batch, self._steps = devices, batch, options.steps
        config = pretraining.cass(
            options.size,
            batch=batch,
            steps=options.steps,
            memes=4 * max(16, -(-batch // 4)),
            threads=options.threads,
        )
        folder.mkdir()
        mesh = parallel.mesh(devices)
        parallel.check_batch(mesh, batch)
        data = datasets.load(config, folder)
        stage = pretrain.make(config, data, seed=0, mesh=mesh)
        self._feeder, self._run, self._state = (
            stage.feeder,
            stage.run_chunk,
            stage.init(),
        )
        self._batch = next(iter(stage.feeder.chunks(0, 1)))[1]
        self.parameters = sum(x.size for x in jax.tree.leaves(stage.abstract.params))

    def seconds(self, kind: str) -> float:
        """Seconds per step with one kind of input."""
        import jax

        began = time.perf_counter()
        for chunk in self._chunks(kind):
            self._state, metrics = self._run(self._state, chunk)
        jax.block_until_ready((self._state, metrics))
        return (time.perf_counter() - began) / self._steps

    def _chunks(self, kind: str) -> Iterator[Any]:
        if kind == "synthetic":
            yield from (self._batch for _ in range(self._steps))
        else:
            # From the start, so that nothing is prefetched before the timing.
            yield from (chunk for _, chunk in self._feeder.chunks(0))


if __name__ == "__main__":
    main()
