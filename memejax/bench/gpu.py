"""All that the README leaves open without a GPU, in one call of at most eight minutes.

    python -m memejax.bench.gpu --out gpu.json

runs these parts one after the other, each in processes of its own and within its time:

    step        training steps of the paper's multimodal CASS at 384 pixels, 64 memes in
                a batch, bfloat16, against compiled PyTorch with autocast (if torch and
                transformers are there); share of the datasheet's rate; peak memory
    trace       the same step in a run: table of operations and a trace for TensorBoard
    remat       with activations computed again in the backward pass
    accumulate  with its gradients accumulated over four parts
    pmap        by pmap in place of jit
    seeds       100 seeds of a perceptron in one program, against a PyTorch loop of one
    cifar10     the curriculum's CNN for 50 epochs, if its files are there (--cifar10)
    detector    Mask R-CNN at 800 pixels

After each part all figures are written, so that a limit costs one part at most; a table
of all of them is printed last.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.errors import command

# Sizes of a step in a run; `tiny` is for tests.
_RUN = {
    "data.root": "{memes}",
    "weights.allow_random": True,
    "pretrain.batch": 64,
}
_TINY_RUN = {
    "data.root": "{memes}",
    "pretrain.batch": 8,
    "pretrain.steps": 2,
    "pretrain.optimizer.warmup": 1,
    "data.image_size": 24,
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A part: a program and its time.

    Attributes:
        seconds: after which it is ended.
        arguments: of Python; "{out}", "{memes}" and "{cifar10}" are replaced.
        tiny: the same in seconds on a CPU.
        read: path that "{out}" was -> figures.
    """

    seconds: int
    arguments: Sequence[str]
    tiny: Sequence[str]
    read: Callable[[pathlib.Path], Mapping[str, Any]]


def _bench(name: str, *flags: str) -> list[str]:
    return ["-m", f"memejax.bench.{name}", *flags, "--out={out}"]


def _profile(preset: str, leaves: Mapping[str, Any], *, steps: int) -> list[str]:
    flags = [f"--config.{name}={value}" for name, value in leaves.items()]
    config = f"--config=configs/cass_mm.py:{preset}"
    return ["-m", "memejax.profile", config, *flags, f"--steps={steps}", "--out={out}"]


def _json(path: pathlib.Path) -> dict[str, Any]:
    """Return the figures of a benchmark without what all of them share."""
    found = json.loads(path.read_text("utf-8"))
    return {k: v for k, v in found.items() if k not in ("machine", "environment")}


def _profiled(path: pathlib.Path) -> dict[str, Any]:
    """Return a profile's summary; its tables of operations stay in the folder."""
    return _without_lists(json.loads((path / "profile.json").read_text("utf-8")))


def _without_lists(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_lists(value) if isinstance(value, Mapping) else value
        for name, value in tree.items()
        if not isinstance(value, list)
    }


def _results(path: pathlib.Path) -> dict[str, Any]:
    """Return the summary of a run."""
    found = json.loads((path / "results.json").read_text("utf-8"))
    return {k: found[k] for k in ("errors", "seconds", "summary") if k in found}


def _in_run(**leaves: Any) -> Part:
    return Part(
        55,
        _profile("full", _RUN | leaves, steps=3),
        _profile("demo", _TINY_RUN | leaves, steps=1),
        _profiled,
    )


_CIFAR10 = [
    "-m",
    "memejax.main",
    "--config=configs/curriculum.py:network=convnet",
    "--config.data.name=cifar10",
    "--config.data.root={cifar10}",
    "--config.seeds=1",
    "--workdir={out}",
]
_STEP = ("--case", "cass_mm", "--dtype=bfloat16")
PARTS: dict[str, Part] = {
    "step": Part(
        150,
        _bench("train_step", *_STEP, "--size=paper", "--batch=64", "--pairs=3"),
        _bench("train_step", *_STEP, "--size=tiny", "--steps=1", "--pairs=1"),
        _json,
    ),
    "trace": _in_run(),
    "remat": _in_run(**{"parallel.remat": True}),
    "accumulate": _in_run(**{"pretrain.accumulate": 4}),
    "pmap": _in_run(**{"parallel.mode": "pmap"}),
    "seeds": Part(
        40,
        _bench("curriculum", "--part=ten", "--seeds=100", "--pairs=3"),
        _bench("curriculum", "--part=ten", "--seeds=4", "--steps=20", "--pairs=1"),
        _json,
    ),
    "cifar10": Part(
        45,
        [
            *_CIFAR10,
            "--config.train.batch=128",
            "--config.train.steps=19500",
            "--config.train.eval_every=3900",
        ],
        [*_CIFAR10, "--config.train.steps=4", "--config.train.eval_every=2"],
        _results,
    ),
    "detector": Part(
        25,
        _bench("detector", "--side=800", "--pairs=3"),
        _bench("detector", "--side=64", "--detections=2", "--pairs=1"),
        _json,
    ),
}


@command
def main() -> None:
    """Run the parts."""
    parser = Parser("gpu", __doc__)
    parser.names("--part", PARTS, default=tuple(PARTS), text="parts to run, in order")
    parser.add_argument("--cifar10", metavar="FOLDER", help="CIFAR-10's binary files")
    parser.add_argument(
        "--traces", metavar="FOLDER", help="keeps traces and tables (default: left)"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="all parts in a small form, on any machine"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.traces or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        places = {"memes": folder / "memes", "cifar10": options.cifar10}
        figures: dict[str, Any] = {}
        if {"trace", "remat", "accumulate", "pmap"} & set(options.part):
            _write_memes(places["memes"], tiny=options.tiny)
        for name in options.part:
            if name == "cifar10" and options.cifar10 is None:
                figures[name] = {"left out": "no --cifar10"}
            else:
                out = folder / name
                figures[name] = run(PARTS[name], out, places=places, tiny=options.tiny)
            pairs.write("gpu", figures, options.out)
    print(tables.text(rows(figures)))


def _write_memes(path: pathlib.Path, *, tiny: bool) -> None:
    """Write built-in memes for the parts that profile a run."""
    flags = ["--train=256", "--dev=16", "--test=16", f"--size={24 if tiny else 384}"]
    program = ["-m", "memejax.data.synthetic_memes", str(path), *flags]
    subprocess.run([sys.executable, *program], check=True, stdout=subprocess.DEVNULL)


def run(
    part: Part, out: pathlib.Path, *, places: Mapping[str, Any], tiny: bool = False
) -> dict[str, Any]:
    """Run a part within its time.

    Args:
        part: of PARTS.
        out: file or folder that it writes.
        places: name -> path, put into the arguments.
        tiny: whether in its small form.

    Returns:
        Its figures with its `seconds`; `failed`, the last lines of its output, or
        `ended after`, its limit, if it has none.
    """
    filled = {"out": out, **places}
    arguments = [
        one.format(**filled) for one in (part.tiny if tiny else part.arguments)
    ]
    began = time.perf_counter()
    # A group of its own: a benchmark starts processes that have to end with it.
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=part.seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"ended after": part.seconds}
    seconds = {"seconds": round(time.perf_counter() - began, 1)}
    if process.returncode:
        return {"failed": output.splitlines()[-5:], **seconds}
    return {**part.read(out), **seconds}


def rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each part: what became of it, and its main figures."""
    return [
        {
            "part": name,
            "seconds": one.get("seconds", one.get("ended after", 0)),
            "figures": "; ".join(_main_figures(one)),
        }
        for name, one in figures.items()
    ]


def _main_figures(one: Mapping[str, Any]) -> list[str]:
    """Return what a table has room for; the file has all of it."""
    for state in ("left out", "failed", "ended after"):
        if state in one:
            last = one[state][-1:] if isinstance(one[state], list) else [one[state]]
            return [" ".join(map(str, (state, *last)))]
    if "warm" in one:
        seconds = one["warm"]["seconds"] / max(one["warm"]["steps"], 1)
        share = one["flops"] / seconds / one["peak"]
        memory = max(one["memory"].values()) / 1e9
        return [
            f"{1e3 * seconds:.4g} ms per step",
            f"{share:.0%} of the measured rate",
            f"{memory:.1f} GB at most",
        ]
    if "errors" in one:
        return [f"errors {one['errors']}"]
    found = []
    for case in (one, *(v for v in one.values() if isinstance(v, Mapping))):
        if "ours" not in case or not isinstance(case["ours"], list):
            continue
        found.append(f"{np.median(case['ours']):.4g} {case.get('unit', '')}".strip())
        if "ratio" in case:
            found.append(f"{case['ratio']:.2f} times the peer")
        for name, share in case.get("share", {}).items():
            found.append(f"{share['ours']:.0%} of the {name} rate")
    return found


if __name__ == "__main__":
    main()
