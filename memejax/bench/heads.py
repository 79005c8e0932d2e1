"""Heads on stored features: seed-updates/s against PyTorch, and RGCL's mining.

    python -m memejax.bench.heads

Three parts, each in its own process, because the use of a CPU's cores is fixed when the
first array is made:

    concat  20 seeds of the head "concat" in one program, against a plain PyTorch loop
            of one seed of the same head, batch and optimizer on the same cores, at its
            best number of threads
    align   the same of the head "align"
    mine    positives and hard negatives of 10,000 embeddings of 1,024 features, against
            the bare products of as many rows at a time

Both sides of the first two have 3,000 memes with features of 1,280 and 384 numbers in
memory. Without torch their own speed alone is measured.
"""

from __future__ import annotations

import argparse
import functools
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
    import jax

PARTS = ("concat", "align", "mine")
SEEDS, MEMES, WIDTHS, BATCH = 20, 3000, (1280, 384), 64
LR = 1e-3


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("heads", __doc__, pairs=5)
    parser.number("--width", 256, text="width of a head")
    parser.number("--epochs", 4, text="epochs per seed in one run of a side")
    # Option of the subprocess of one part.
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare()
    if options.part is not None:
        made = _mine if options.part == "mine" else functools.partial(_head, options)
        pairs.write(f"heads: {options.part}", made(options.pairs), options.out)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            file = pathlib.Path(folder) / f"{part}.json"
            run = [sys.executable, "-m", "memejax.bench.heads", f"--part={part}"]
            run += [
                f"--{n}={getattr(options, n)}" for n in ("pairs", "width", "epochs")
            ]
            subprocess.run([*run, f"--out={file}"], check=True)
            figures[part] = json.loads(file.read_text("utf-8"))
            for shared in ("machine", "environment", "benchmark"):
                del figures[part][shared]
    pairs.write("heads", figures, options.out)


def _features() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(MEMES, d)).astype(np.float32) for d in WIDTHS)
    return {"image": image, "text": text}, rng.integers(0, 2, MEMES).astype(np.int32)


def _head(options: argparse.Namespace, count: int) -> dict[str, Any]:
    from memejax import parallel
    from memejax.stages.parts.heads.kinds import make_head
    from memejax.stages.parts.heads.training import HeadTrainer, Job

    parallel.device_per_core()
    config = load_config(f"configs/heads.py:head={options.part}")
    config.update_from_flattened_dict(
        {
            "heads.width": options.width,
            "heads.epochs": float(options.epochs),
            "heads.batch": BATCH,
            "heads.optimizer.groups.all.lr": LR,
        }
    )
    columns, labels = _features()
    rows = np.arange(MEMES)
    trainer = HeadTrainer(
        make_head(config.heads),
        config.heads,
        columns,
        labels,
        jobs=[Job(seed, rows, rows[:100]) for seed in range(SEEDS)],
        mesh=parallel.devices_for_seeds(SEEDS),
    )

    def ours() -> float:
        began = time.perf_counter()
        trainer.fit()
        return SEEDS * trainer.steps / (time.perf_counter() - began)

    about = {
        "unit": "seed-updates/s",
        "ours is": f"{SEEDS} seeds in one program, evaluations included",
        "width": options.width,
        "batch": BATCH,
        "updates": trainer.steps,
    }
    if importlib.util.find_spec("torch") is None:
        ours()
        return {**about, "ours": [ours() for _ in range(count)]}
    peer, threads = _best_threads(options.part, options.width, trainer.steps)
    return {
        **about,
        "peer is": f"a PyTorch loop of one seed, {threads} threads",
        **pairs.in_turn(ours, peer, pairs=count),
    }


def _best_threads(head: str, width: int, steps: int) -> tuple[Callable[[], float], int]:
    """Return the peer with its best number of threads, and that number."""
    import torch

    speeds = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        run = _torch(head, width, steps)
        run()
        speeds[threads] = run()
    best = max(speeds, key=lambda threads: speeds[threads])
    torch.set_num_threads(best)
    return _torch(head, width, steps), best


def _torch(head: str, width: int, steps: int) -> Callable[[], float]:
    """Return a function that measures updates/s of a plain PyTorch loop."""
    import torch
    from torch import nn

    columns, labels = _features()
    image, text = (torch.from_numpy(columns[name]) for name in ("image", "text"))
    image, text = ((x - x.mean(0)) / x.std(0) for x in (image, text))
    target = torch.from_numpy(labels).float()

    def run() -> float:
        maps = nn.ModuleList(
            nn.Sequential(nn.Linear(d, width), nn.Dropout(0.2)) for d in WIDTHS
        )
        joint = width * (2 if head == "concat" else 1)
        layers: list[nn.Module] = [nn.Dropout(0.4)]
        for inputs in (joint, width, width):
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.1)]
        net = nn.Sequential(*layers, nn.Linear(width, 1))
        parameters = [*maps.parameters(), *net.parameters()]
        tx = torch.optim.AdamW(parameters, lr=LR, weight_decay=1e-4, fused=True)
        began = time.perf_counter()
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            if len(order) < BATCH:
                order = torch.cat([order, torch.randperm(MEMES)])
            index, order = order[:BATCH], order[BATCH:]
            one, two = (
                nn.functional.normalize(layer(x[index]))
                for layer, x in zip(maps, (image, text), strict=True)
            )
            fused = torch.cat([one, two], 1) if head == "concat" else one * two
            logits = net(fused)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target[index])
            tx.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            tx.step()
        return steps / (time.perf_counter() - began)

    return run


def _mine(count: int) -> dict[str, Any]:
    """Time mining of all embeddings against the products alone."""
    import jax
    import jax.numpy as jnp

    from memejax import losses
    from memejax.losses.mining import CHUNK

    n, d = 10_000, 1024
    rng = np.random.default_rng(0)
    store = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, n), jnp.int32)
    own = jnp.arange(n)

    @jax.jit
    def products(rows: jax.Array) -> jax.Array:
        parts = jnp.pad(rows, ((0, -n % CHUNK), (0, 0))).reshape(-1, CHUNK, d)
        precision = jax.lax.Precision.HIGHEST
        # The sum keeps the products from being left out, and is part of their pass.
        return jax.lax.map(
            lambda part: jnp.matmul(part, rows.T, precision=precision).sum(), parts
        )

    def timed(call: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            jax.block_until_ready(call())
            return n / (time.perf_counter() - began)

        return run

    def mining(within: int | None) -> Callable[[], Any]:
        return functools.partial(
            losses.mine,
            store,
            store,
            query_labels=labels,
            store_labels=labels,
            query_index=own,
            within=within,
        )

    bare = timed(lambda: products(store))
    figures = {}
    for name, within in (("whole store", None), ("12 neighbours", 12)):
        found = pairs.in_turn(timed(mining(within)), bare, pairs=count)
        figures[name] = {**found, "times as long": 1 / found["ratio"]}
    return {"unit": "embeddings/s", "n": n, "width": d, **figures}


if __name__ == "__main__":
    main()
