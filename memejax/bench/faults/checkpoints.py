"""Damaged checkpoints."""

from __future__ import annotations

import contextlib
import io
import pathlib
import shutil

import numpy as np

from memejax import restored, train
from memejax.bench.faults import runs
from memejax.bench.faults.report import Cases
from memejax.errors import UserError

DAMAGES = ("flip", "flip 50", "truncate", "empty", "remove", "zeros", "foreign")


def checkpoints(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Damage the last checkpoint of a stage, and the best one."""
    cases, rng = Cases("checkpoints"), np.random.default_rng(seed)
    config = runs.small("supervised", arms=("cnn",))
    whole = folder / "whole"
    with contextlib.redirect_stdout(io.StringIO()):
        train.run(config, whole)
    expected = runs.fingerprint(whole)
    for number in range(count):
        workdir = folder / str(number)
        shutil.copytree(whole, workdir)
        if number % 2:
            _best(cases, rng, workdir)
        else:
            _last(cases, rng, workdir, config, expected)
        shutil.rmtree(workdir)
    return cases


def _last(cases, rng, workdir, config, expected) -> None:
    """Damage the last checkpoint of a run that has not ended, and resume it."""
    for name in ("results.json", "report.html", "0/finetune/outcome.json"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "0" / "evaluate")
    saved = workdir / "0" / "finetune" / "checkpoints"
    last = max((p for p in saved.iterdir() if p.name.isdecimal()), key=_step)
    # The best one has to stay for the evaluation.
    what = damage(last, rng)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            train.run(config, workdir)
    except Exception as error:
        cases.add("wrong", wrong=f"last: {what}: {type(error).__name__}: {error}")
        return
    if "WARNING" not in said.getvalue() or last.name not in said.getvalue():
        cases.add("wrong", wrong=f"last: {what}: unnoticed")
    elif runs.fingerprint(workdir) != expected:
        cases.add("wrong", wrong=f"last: {what}: other results")
    else:
        cases.add("last: noticed, resumed from the one before, results the same")


def _best(cases, rng, workdir) -> None:
    """Damage the best checkpoint of a finished run, and predict by it."""
    results = restored.read_finished(workdir)[1]
    step = results["seeds"]["0"]["evaluate"]["checkpoint"]
    what = damage(workdir / "0/finetune/checkpoints" / str(step), rng)
    try:
        restored.restore(workdir)
    except UserError:
        cases.add("best: refused")
    except Exception as error:
        cases.add("wrong", wrong=f"best: {what}: {type(error).__name__}: {error}")
    else:
        cases.add("wrong", wrong=f"best: {what}: unnoticed")


def _step(path: pathlib.Path) -> int:
    return int(path.name)


def damage(folder: pathlib.Path, rng: np.random.Generator) -> str:
    """Damage one file below a folder at random, and return what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    full = [path for path in files if path.stat().st_size]
    kind = str(rng.choice(DAMAGES))
    path = full[int(rng.integers(len(full)))]
    name = path.relative_to(folder).as_posix()
    return f"{kind} of {name}: {damage_file(path, kind, rng)}"


def damage_file(path: pathlib.Path, kind: str, rng: np.random.Generator) -> str:
    """Damage a file that is not empty; return the details."""
    data = bytearray(path.read_bytes())
    if kind in ("flip", "flip 50"):
        bits = rng.integers(8 * len(data), size=50 if kind == "flip 50" else 1)
        for bit in np.unique(bits).tolist():
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        return f"bits {np.unique(bits)[:5].tolist()} of {8 * len(data)}"
    if kind == "truncate":
        length = int(rng.integers(len(data)))
        path.write_bytes(data[:length])
        return f"{length} of {len(data)} bytes left"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "remove":
        path.unlink()
    elif kind == "zeros":
        start = int(rng.integers(len(data)))
        zeros = bytes(min(4096, len(data) - start))
        if bytes(data[start : start + len(zeros)]) == zeros:
            # Nothing would change.
            path.unlink()
            return "removed"
        data[start : start + len(zeros)] = zeros
        path.write_bytes(data)
        return f"from byte {start}"
    else:
        path.write_bytes(rng.bytes(len(data)))
    return ""
