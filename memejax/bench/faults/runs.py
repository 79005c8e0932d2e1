"""Small runs that faults are injected into, and what is compared of them."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from memejax.bench import pretraining
from memejax.config import flatten, load_config

# Sizes of a run of seconds; a config takes those that it has.
SMALL = {
    "seeds": 1,
    "data.synthetic.train": 64,
    "data.synthetic.dev": 16,
    "data.synthetic.test": 16,
    "data.train": 256,
    "data.validation": 64,
    "data.test": 64,
    "pretrain.steps": 12,
    "pretrain.batch": 16,
    "pretrain.optimizer.warmup": 2,
    "pretrain.head.out": 16,
    "pretrain.head.hidden": 16,
    "pretrain.head.bottleneck": 8,
    "pretrain.augment.global_size": 24,
    "pretrain.augment.local_size": 16,
    "finetune.steps": 12,
    "finetune.batch": 16,
    "finetune.optimizer.warmup": 2,
    "finetune.eval_every": 4,
    "graph.epochs": 6.0,
    "graph.batch": 16,
    "graph.eval_every": 6,
    "graph.width": 16,
    "graph.optimizer.warmup": 2,
    "train.steps": 120,
    "train.eval_every": 20,
    "curriculum.kind": "dsac",
    "curriculum.warmup": 20,
    "curriculum.refresh": 20,
    "curriculum.passes": 2,
    "checkpoint.every": 3,
    "checkpoint.keep": 2,
    "log.every": 4,
}
# Where checkpoints at every third update would take all of the time.
RARER = {"curriculum": {"checkpoint.every": 20}, "graph": {"checkpoint.every": 6}}
NAMES = ("cass_mm", "dino", "graph", "curriculum", "supervised")
# Figures of results.json that differ between two runs of the same.
TIMES = ("seconds", "peak_memory_gb", "starts")


def small(name: str, *, features: str | None = None, **changes: Any) -> ConfigDict:
    """Return the demo of an experiment with small networks, data and lengths.

    Args:
        name: one of NAMES.
        features: folder of a store, for "graph".
        changes: other leaves.
    """
    config = load_config(f"configs/{name}.py:demo")
    known = set(flatten(config.to_dict()))
    sizes = {k: v for k, v in SMALL.items() if k in known}
    sizes |= {k: v for k, v in RARER.get(name, {}).items() if k in known}
    if name != "curriculum":
        sizes |= {
            leaf: value
            for leaf, value in pretraining.TINY.items()
            if leaf in known
            or leaf.startswith(("model.image.cnn", "model.image.vit", "model.text"))
        }
    if "data.validation" in sizes and name != "curriculum":
        del sizes["data.validation"]
    if features is not None:
        sizes["features"] = features
    with config.unlocked():
        config.update_from_flattened_dict(sizes)
    config.update_from_flattened_dict(changes)
    return config


def write_config(config: ConfigDict, path: pathlib.Path) -> pathlib.Path:
    """Write a file for --config that returns this config."""
    path.write_text(
        "import json\n\nfrom ml_collections import ConfigDict\n\n\n"
        "def get_config(text=''):\n"
        f"    values = json.loads({json.dumps(json.dumps(config.to_dict()))})\n"
        "    values = _tuples(values)\n"
        "    return ConfigDict(values).lock()\n\n\n"
        "def _tuples(value):\n"
        "    if isinstance(value, dict):\n"
        "        return {k: _tuples(v) for k, v in value.items()}\n"
        "    return tuple(map(_tuples, value)) if isinstance(value, list) else value\n"
    )
    return path


def start(arguments: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    """Start `python -m ARGUMENTS` with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def train(config: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """Return the arguments of a training run."""
    return ["memejax.main", f"--config={config}", f"--workdir={workdir}"]


def finish(arguments: Sequence[str], **more: Any) -> tuple[int, str]:
    """Run to the end; return status and output."""
    process = start(arguments, **more)
    output, _ = process.communicate()
    return process.returncode, output


def kill_after(arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Start, and kill by SIGKILL after a time; the status is None if it was killed."""
    process = start(arguments)
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output


def fingerprint(workdir: pathlib.Path) -> dict[str, str]:
    """Return digests of a finished run: its figures, predictions and last arrays."""
    results = json.loads((workdir / "results.json").read_text("utf-8"))
    found = {"results": hashlib.sha256(_canonical(results)).hexdigest()}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if path.suffix == ".csv" and "predictions" in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "metrics.jsonl":
            found[name] = hashlib.sha256(_canonical(_metrics(path))).hexdigest()
    return found


def _metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what depends on time."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "clock"} for line in lines]


def _canonical(value: Any) -> bytes:
    return json.dumps(_without_times(value), sort_keys=True).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def seconds(arguments: Sequence[str]) -> tuple[float, int, str]:
    """Run to the end; return seconds, status and output."""
    began = time.perf_counter()
    status, output = finish(arguments)
    return time.perf_counter() - began, status, output
