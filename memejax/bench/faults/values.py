"""Wrong values of a config's leaves."""

from __future__ import annotations

import contextlib
import io
import math
import pathlib
import shutil
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import train
from memejax.bench.faults import runs
from memejax.bench.faults.report import Cases
from memejax.config import flatten
from memejax.errors import NotFiniteError, UserError

CONFIGS = ("cass_mm", "dino", "supervised", "curriculum")
NUMBERS = (0, -1, 1, 2, 3, 7, 10**9, -(10**12))
FLOATS = (0.0, -1.0, 0.5, 1.0, 1.5, 2.0, 1e30, -1e-9, math.nan, math.inf, -math.inf)
TEXTS = ("", " ", "nonsense", "adam", "../..", "/dev/null", "/nonexistent", "a\0b", "é")
# Devices and processes are the machine's; the name and preset are any.
LEFT_OUT = ("name", "preset", "parallel.devices")


def values(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Set one leaf to a random value, and run."""
    cases, rng = Cases("values"), np.random.default_rng(seed)
    for number in range(count):
        name = CONFIGS[number % len(CONFIGS)]
        config = _short(name)
        leaves = sorted(set(flatten(config.to_dict())) - set(LEFT_OUT))
        leaf = str(rng.choice(leaves))
        value = _value(rng, flatten(config.to_dict())[leaf])
        what = f"{name}: {leaf}={value!r}"
        try:
            config.update_from_flattened_dict({leaf: value})
        except (TypeError, ValueError):
            # As the flag's parser does.
            cases.add("refused by its type")
            continue
        workdir = folder / str(number)
        _run(cases, config, workdir, what, leaf)
        shutil.rmtree(workdir, ignore_errors=True)
    return cases


def _run(cases: Cases, config: ConfigDict, workdir: pathlib.Path, what, leaf) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            train.run(config, workdir)
    except UserError as error:
        if isinstance(error, NotFiniteError):
            # Found out by training alone.
            cases.add("allowed, diverged, said so")
        elif workdir.exists():
            there = sorted(path.name for path in workdir.iterdir())
            cases.add("wrong", wrong=f"{what}: refused, and left {there}: {error}")
        elif leaf.split(".")[-1] not in str(error):
            print(f"values: not named: {what}: {error}", flush=True)
            cases.add("refused, the leaf not named")
        else:
            cases.add("refused, the leaf named")
    except Exception as error:
        cases.add("wrong", wrong=f"{what}: {type(error).__name__}: {error}")
    else:
        cases.add("allowed, and trained")


def _short(name: str) -> ConfigDict:
    """Return an experiment of two updates."""
    config = runs.small(name)
    sizes = {
        "pretrain.steps": 2,
        "pretrain.optimizer.warmup": 1,
        "finetune.steps": 2,
        "finetune.eval_every": 1,
        "finetune.optimizer.warmup": 1,
        "train.steps": 6,
        "train.eval_every": 3,
        "curriculum.warmup": 2,
        "curriculum.refresh": 2,
    }
    known = set(flatten(config.to_dict()))
    config.update_from_flattened_dict({k: v for k, v in sizes.items() if k in known})
    return config


def _value(rng: np.random.Generator, old: Any) -> Any:
    """Return a value of a leaf's type or, sometimes, of another."""
    pools: list[Any] = [NUMBERS, FLOATS, TEXTS, (True, False, None)]
    if isinstance(old, bool):
        pool = pools[3] if rng.random() < 0.5 else NUMBERS
    elif isinstance(old, int):
        pool = NUMBERS
    elif isinstance(old, float):
        pool = FLOATS
    elif isinstance(old, str):
        pool = TEXTS
    elif isinstance(old, tuple):
        pool = [(), old[:1], (*old, *old), tuple(-1 for _ in old), ("x",), (None,)]
    else:
        pool = pools[int(rng.integers(4))]
    if rng.random() < 0.1:
        pool = pools[int(rng.integers(4))]
    return pool[int(rng.integers(len(pool)))]
