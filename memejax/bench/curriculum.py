"""Small networks under curricula: seed-updates/s against PyTorch, and cost of draws.

    python -m memejax.bench.curriculum

Four parts, each in its own process, because the use of a CPU's cores is fixed when the
first array is made:

    one    one seed, against a plain PyTorch loop of the same network, batch, optimizer
           and updates on the same cores, at its best number of threads
    ten    ten seeds in one program, one device per core, against the same PyTorch loop
    dsac   ten seeds whose plan is redrawn by entropy every epoch, against the same
           seeds drawing with replacement
    draws  a plan of 1e6 indices out of 1e6, against numpy's Generator.choice(p=) and
           torch.multinomial; a refresh of 1e4 out of 1e4 by jax.random.categorical,
           against the same by inverse CDF; and out of 2e7, a check that examples of
           probability zero are never drawn

Both sides train a perceptron 1024-200-200-200-3 on 10,000 GeoShapes; both gather a
batch from memory. Without torch only the parts that do not need it run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.config import load_config
from memejax.errors import command

if TYPE_CHECKING:
    from memejax.curriculum.draws import Method

PARTS = ("one", "ten", "dsac", "draws")
BATCH, EPOCH, LR = 32, 312, 0.01


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("curriculum", __doc__, pairs=5)
    parser.number("--steps", 4 * EPOCH, text="updates per seed in one run of a side")
    parser.number("--seeds", 10, text="seeds of the parts ten and dsac")
    # Option of the subprocess of one part.
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare()
    if options.part is not None:
        figures = _part(options.part, options.pairs, options.steps, options.seeds)
        pairs.write(f"curriculum: {options.part}", figures, options.out)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            file = pathlib.Path(folder) / f"{part}.json"
            command = [sys.executable, "-m", "memejax.bench.curriculum"]
            command += [f"--part={part}", f"--pairs={options.pairs}"]
            command += [f"--steps={options.steps}", f"--out={file}"]
            command += [f"--seeds={options.seeds}"]
            subprocess.run(command, check=True)
            figures[part] = json.loads(file.read_text("utf-8"))
            for shared in ("machine", "environment", "benchmark"):
                del figures[part][shared]
    pairs.write("curriculum", figures, options.out)


def _part(part: str, count: int, steps: int, seeds: int) -> dict[str, Any]:
    from memejax import parallel

    if part == "draws":
        return _draws(count)
    if part != "one":
        parallel.device_per_core()
    if part == "dsac":
        return _dsac(count, steps, seeds)
    if part == "one":
        seeds = 1
    ours = _ours(seeds, steps)
    if importlib.util.find_spec("torch") is None:
        ours()
        return {"unit": "seed-updates/s", "ours": [ours() for _ in range(count)]}
    peer, threads = _best_threads(steps)
    return {
        "unit": "seed-updates/s",
        "ours is": f"{seeds} seeds in one program",
        "peer is": f"a PyTorch loop of one seed, {threads} threads",
        "steps": steps,
        "batch": BATCH,
        **pairs.in_turn(ours, peer, pairs=count),
    }


def _config(seeds: int, steps: int, kind: str):
    config = load_config("configs/curriculum.py")
    config.update_from_flattened_dict(
        {
            "seeds": seeds,
            "train.steps": steps,
            "train.batch": BATCH,
            "train.eval_every": EPOCH,
            "train.optimizer.groups.all.lr": LR,
            "curriculum.kind": kind,
            "curriculum.warmup": EPOCH,
            "curriculum.refresh": EPOCH,
            "checkpoint.every": steps,
            "log.every": EPOCH,
        }
    )
    return config


def _ours(seeds: int, steps: int) -> Callable[[], float]:
    """Return a function that measures seed-updates/s, plans and transfers included."""
    import jax

    from memejax.datasets import labelled
    from memejax.stages import classify

    config = _config(seeds, steps, "uniform")
    mesh = classify.devices(config)
    data = labelled.load(config, range(seeds))
    stage = classify.make(config, data, seed=0, mesh=mesh)

    def run() -> float:
        state = stage.init()
        began = time.perf_counter()
        for _, chunk in stage.feeder.chunks(0):
            state, values = stage.run_chunk(state, chunk)
        jax.block_until_ready((state, values))
        return seeds * steps / (time.perf_counter() - began)

    return run


def _best_threads(steps: int) -> tuple[Callable[[], float], int]:
    """Return the peer with its best number of threads, and that number."""
    import torch

    speeds = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        run = _torch(steps // 4)
        run()
        speeds[threads] = run()
    best = max(speeds, key=lambda threads: speeds[threads])
    torch.set_num_threads(best)
    return _torch(steps), best


def _torch(steps: int) -> Callable[[], float]:
    """Return a function that measures updates/s of a plain PyTorch loop."""
    import torch
    from torch import nn

    from memejax.datasets import labelled

    config = _config(1, steps, "uniform")
    data = labelled.load(config, range(1))
    rows = data.train[0]
    pixels = torch.from_numpy(data.images[rows].reshape(len(rows), -1)).float() / 255
    pixels = (pixels - pixels.mean()) / pixels.std()
    labels = torch.from_numpy(data.labels[rows].astype(np.int64))

    def run() -> float:
        layers: list[nn.Module] = []
        for width in (pixels.shape[1], 200, 200):
            layers += [nn.Linear(width, 200), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(200, 3))
        tx = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
        began = time.perf_counter()
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            if len(order) < BATCH:
                order = torch.cat([order, torch.randperm(len(labels))])
            index, order = order[:BATCH], order[BATCH:]
            loss = nn.functional.cross_entropy(net(pixels[index]), labels[index])
            tx.zero_grad()
            loss.backward()
            tx.step()
        return steps / (time.perf_counter() - began)

    return run


def _dsac(count: int, steps: int, seeds: int) -> dict[str, Any]:
    """Time the whole loop, without evaluations, drawing by scores and uniformly."""
    from memejax.datasets import labelled
    from memejax.loop import LoopOptions, loop
    from memejax.signals import Signals
    from memejax.stages import classify
    from memejax.stages.parts.small_classifier import make_classifier

    numbers = iter(range(10**6))

    def runner(kind: str, folder: pathlib.Path) -> Callable[[], float]:
        config = _config(seeds, steps, kind)
        config.train.eval_every = steps
        data, mesh = labelled.load(config, range(10)), classify.devices(config)
        made = make_classifier(config, data, seeds=range(10), mesh=mesh)
        options = LoopOptions(
            config.checkpoint.every, config.checkpoint.keep, config.log.every
        )

        def run() -> float:
            state = made.stage.init()
            path = folder / f"{kind}{next(numbers)}"
            began = time.perf_counter()
            fresh = dataclasses.replace(made.stage, init=lambda: state)
            loop(fresh, options, path, signals)
            return seeds * steps / (time.perf_counter() - began)

        return run

    with tempfile.TemporaryDirectory() as temporary, Signals() as signals:
        folder = pathlib.Path(temporary)
        figures = pairs.in_turn(
            runner("dsac", folder), runner("replacement", folder), pairs=count
        )
    return {
        "unit": "seed-updates/s",
        "ours is": "drawn again by entropy every epoch",
        "peer is": "drawn with replacement, uniformly",
        "steps": steps,
        **figures,
        "times as long": 1 / figures["ratio"],
    }


def _draws(count: int) -> dict[str, Any]:
    """Time draws of both samplers, and check zero probabilities at 2e7."""
    import jax

    from memejax import curriculum

    n = 1_000_000
    probs = _probs(n)
    wide = np.asarray(probs, np.float64)
    wide /= wide.sum()
    keys = iter(range(10**6))

    def ours() -> float:
        key = jax.random.key(next(keys))
        began = time.perf_counter()
        curriculum.draw_plan(key, probs, steps=n // 50, batch=50)
        return n / (time.perf_counter() - began)

    def with_numpy() -> float:
        rng = np.random.default_rng(next(keys))
        began = time.perf_counter()
        rng.choice(n, size=n, p=wide)
        return n / (time.perf_counter() - began)

    peers: dict[str, Callable[[], float]] = {"numpy": with_numpy}
    if importlib.util.find_spec("torch") is not None:
        import torch

        weights = torch.from_numpy(np.array(probs))

        def with_torch() -> float:
            began = time.perf_counter()
            torch.multinomial(weights, n, replacement=True)
            return n / (time.perf_counter() - began)

        peers["torch"] = with_torch
    figures: dict[str, Any] = {
        name: pairs.in_turn(ours, peer, pairs=count) for name, peer in peers.items()
    }
    figures["categorical, n = 1e4"] = _samplers(count, n=10_000)
    checked = _zero_probability_check(20_000_000)
    return {"unit": "draws/s", "n": n, **figures, "n = 2e7": checked}


def _probs(n: int) -> np.ndarray:
    """Probabilities of n random scores at a ratio of 100."""
    from memejax import curriculum

    u = np.random.default_rng(0).gamma(2.0, size=n).astype(np.float32)
    return curriculum.sampling_probs(
        u, favour="hard", max_ratio=100.0, min_temperature=0.0
    )


def _samplers(count: int, *, n: int) -> dict[str, Any]:
    """Time jax.random.categorical on the device against the inverse CDF on the host."""
    import jax

    from memejax import curriculum

    probs, keys = _probs(n), iter(range(10**6))

    def sampler(method: Method) -> Callable[[], float]:
        def run() -> float:
            key = jax.random.key(next(keys))
            began = time.perf_counter()
            curriculum.draw_plan(key, probs, steps=n // 50, batch=50, method=method)
            return n / (time.perf_counter() - began)

        return run

    return {
        "ours is": "jax.random.categorical",
        "peer is": "inverse CDF",
        **pairs.in_turn(sampler("categorical"), sampler("inverse_cdf"), pairs=count),
    }


def _zero_probability_check(n: int) -> dict[str, Any]:
    """Statistics of draws out of n examples, every other one with probability zero."""
    import jax

    from memejax import curriculum

    probs = np.zeros(n, np.float64)
    probs[1::2] = 1.0
    probs /= probs.sum()
    drawn = curriculum.draw_plan(jax.random.key(0), probs, steps=20_000, batch=50)
    # Odd indices are uniform: over ten equal bins chi-square has 9 degrees of freedom.
    tenths = np.bincount(drawn.reshape(-1).astype(np.int64) * 10 // n, minlength=10)
    expected = drawn.size / 10
    return {
        "drawn": int(drawn.size),
        "of probability zero": int((drawn % 2 == 0).sum()),
        "chi-square over tenths, 9 degrees": float(
            ((tenths - expected) ** 2 / expected).sum()
        ),
    }


if __name__ == "__main__":
    main()
