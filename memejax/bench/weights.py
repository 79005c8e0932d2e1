"""Loading the paper's four encoders: time and memory against transformers.

    python -m memejax.bench.weights

ResNet-50, ViT-B/16 for 384 pixels and DistilBERT twice (240 M parameters, 1 GB of
random numbers in the real file format, written to a temporary folder). Each side loads
them in its own process, in turn. Timed, without imports and the backend's start, are:

load   `memejax.weights.load`, which checks that every value is finite, and
       `from_pretrained`; both leave views of the mapped files
ready  the same, followed by a copy of every value in the side's own layout and memory:
       `device_put` and `clone`

Memory is the process's peak minus its memory before: "anonymous" is its own memory,
"resident" also counts pages of the mapped files, which are in the page cache anyway.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command

# model_type, also the folder's name -> attributes of our module.
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet": dict(stage_sizes=(3, 4, 6, 3), bottleneck=True, width=64),
    "vit": dict(
        hidden=768, layers=12, heads=12, mlp=3072, patch=16, grid=24, eps=1e-12
    ),
    "distilbert": dict(
        hidden=768, layers=6, heads=12, mlp=3072, vocab_size=30522, max_length=512
    ),
}
LOADED = ("resnet", "vit", "distilbert", "distilbert")
SMALL = dict(layers=1, vocab_size=2000, stage_sizes=(1, 1, 1, 1))


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("weights", __doc__, pairs=5)
    parser.add_argument(
        "--tiny", action="store_true", help="one layer of each encoder, for a trial"
    )
    # Options of the subprocess of one side.
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare()
    if options.side is not None:
        print(json.dumps(_measured(SIDES[options.side], pathlib.Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        size = _write(folder, tiny=options.tiny)
        measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}

        def speed(side: str) -> float:
            measured[side].append(_in_subprocess(side, folder))
            return 1 / measured[side][-1]["load"]

        figures = pairs.in_turn(
            lambda: speed("memejax"), lambda: speed("transformers"), pairs=options.pairs
        )
    # The first run of each side is the warm-up.
    counted = {side: runs[1:] for side, runs in measured.items()}
    memory = {
        side: {
            kind: float(np.median([run[kind] for run in runs])) / size
            for kind in ("anonymous", "resident")
        }
        for side, runs in counted.items()
    }
    ready = [
        peer["ready"] / ours["ready"]
        for ours, peer in zip(*counted.values(), strict=True)
    ]
    pairs.write(
        "weights",
        {
            "unit": "loads/s",
            "ours is": "memejax.weights.load",
            "peer is": "transformers' from_pretrained",
            "ratio ready": float(np.median(ready)),
            "seconds ready": {
                side: [run["ready"] for run in runs] for side, runs in counted.items()
            },
            "megabytes": size / 1e6,
            "extra memory at the peak, as a share of the files": memory,
            **figures,
        },
        options.out,
    )


def _write(folder: pathlib.Path, *, tiny: bool) -> int:
    """Write the encoders' folders with random numbers; return the bytes to load."""
    import jax
    import jax.numpy as jnp

    from memejax import weights
    from memejax.models import distilbert, resnet, vit

    modules = {
        "resnet": resnet.ResNet,
        "vit": vit.ViT,
        "distilbert": distilbert.DistilBert,
    }
    rng = np.random.default_rng(0)
    for name, sizes in ENCODERS.items():
        sizes = sizes | {k: v for k, v in SMALL.items() if tiny and k in sizes}
        ids = jnp.zeros((1, 2), int)
        inputs = (ids, ids) if name == "distilbert" else (jnp.zeros((1, 64, 64, 3)),)
        init = functools.partial(modules[name](**sizes).init, train=False)
        variables = jax.tree.map(
            lambda s: np.abs(rng.standard_normal(s.shape, np.float32)),
            jax.eval_shape(init, jax.random.key(0), *inputs),
        )
        weights.save(folder / name, weights.Architecture(name, sizes), variables)
    return sum((folder / n / "model.safetensors").stat().st_size for n in LOADED)


def _in_subprocess(side: str, folder: pathlib.Path) -> dict[str, float]:
    command = [sys.executable, "-m", "memejax.bench.weights"]
    done = subprocess.run(
        [*command, f"--side={side}", f"--folder={folder}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _memejax() -> tuple[Callable[..., Any], Callable[..., Any]]:
    import jax

    from memejax import weights

    def load(path: pathlib.Path) -> Any:
        return weights.load(path).variables

    def copy(loaded: Any) -> Any:
        return jax.block_until_ready(
            jax.tree.map(lambda leaf: jax.device_put(leaf, may_alias=False), loaded)
        )

    copy(np.ones(3, np.float32))
    return load, copy


def _transformers() -> tuple[Callable[..., Any], Callable[..., Any]]:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    classes = {
        "resnet": transformers.ResNetModel,
        "vit": transformers.ViTModel,
        "distilbert": transformers.DistilBertModel,
    }
    torch.ones(3).sum()

    def load(path: pathlib.Path) -> Any:
        more = {"add_pooling_layer": False} if path.name == "vit" else {}
        return classes[path.name].from_pretrained(path, **more)

    def copy(model: Any) -> Any:
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    return load, copy


SIDES = {"memejax": _memejax, "transformers": _transformers}


def _measured(
    side: Callable[[], tuple[Callable[..., Any], Callable[..., Any]]],
    folder: pathlib.Path,
) -> dict[str, float]:
    """Measure seconds of loading and copying, and the increase in peak bytes."""
    load, copy = side()
    before = _memory()
    peak = dict(before)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            for kind, held in _memory().items():
                peak[kind] = max(peak[kind], held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    kept, seconds = [], {"load": 0.0, "ready": 0.0}
    for name in LOADED:
        began = time.perf_counter()
        loaded = load(folder / name)
        seconds["load"] += time.perf_counter() - began
        kept.append(copy(loaded))
        del loaded
        seconds["ready"] += time.perf_counter() - began
    ended.set()
    watcher.join()
    after = _memory()
    more = {kind: max(peak[kind], after[kind]) - before[kind] for kind in before}
    return {**seconds, **more}


def _memory() -> dict[str, float]:
    """Bytes in use by this process, without and with pages of mapped files."""
    status = pathlib.Path(f"/proc/{os.getpid()}/status").read_text("utf-8")
    kilobytes = {
        key: float(value.split()[0])
        for key, _, value in (line.partition(":") for line in status.splitlines())
        if key in ("RssAnon", "VmRSS")
    }
    return {
        "anonymous": 1024 * kilobytes["RssAnon"],
        "resident": 1024 * kilobytes["VmRSS"],
    }


if __name__ == "__main__":
    main()
