"""Two starts on one folder, and a disk that fills up."""

from __future__ import annotations

import pathlib
import subprocess

import numpy as np

from memejax.bench.faults import runs
from memejax.bench.faults.report import Cases


def starts(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Start two commands that write to one place, a random time apart."""
    cases, rng = Cases("starts"), np.random.default_rng(seed)
    file, whole = _alone(folder)
    expected = runs.fingerprint(whole)
    graph = runs.write_config(runs.small("graph"), folder / "graph.py")
    for number in range(count):
        apart = float(rng.uniform(0, 4))
        kind = ("folder", "store", "output")[number % 3]
        place = folder / f"{kind}-{number}"
        arguments = {
            "folder": runs.train(file, place),
            "store": ["memejax.extract", f"--config={graph}", f"--out={place}"],
            "output": [
                "memejax.predict",
                f"--workdir={whole}",
                f"--input={whole / 'memes/dev_seen.jsonl'}",
                f"--output={place}",
            ],
        }[kind]
        first, second = _both(arguments, apart)
        what = f"two starts on one {kind}, {apart:.2f} s apart: {first}, {second}"
        wrong = None
        if "Traceback" in first[1] + second[1]:
            wrong = what
        elif kind == "folder":
            refused = [out for status, out in (first, second) if status == 2]
            done = [out for status, out in (first, second) if status == 0]
            if len(done) + len(refused) < 2 or not done:
                wrong = what
            elif any("is in use by process" not in out for out in refused):
                wrong = what
            elif runs.fingerprint(place) != expected:
                wrong = f"{what}: other results"
        elif (first[0], second[0]) != (0, 0):
            wrong = what
        cases.add(f"{kind}: as it should" if wrong is None else "wrong", wrong=wrong)
    return cases


def _alone(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Run a small experiment undisturbed; return its config file and its folder."""
    config = runs.small("supervised", arms=("cnn",))
    file, whole = runs.write_config(config, folder / "small.py"), folder / "whole"
    status, output = runs.finish(runs.train(file, whole))
    if status:
        raise RuntimeError(f"the run fails undisturbed:\n{output}")
    return file, whole


def _both(arguments: list[str], apart: float) -> list[tuple[int, str]]:
    """Run a command twice at once; return both status and output."""
    first = runs.start(arguments)
    try:
        output, _ = first.communicate(timeout=apart)
        done: list[tuple[int, str]] = [(first.returncode, output)]
        return [*done, runs.finish(arguments)]
    except subprocess.TimeoutExpired:
        second = runs.start(arguments)
        outputs = [process.communicate()[0] for process in (first, second)]
        return [(first.returncode, outputs[0]), (second.returncode, outputs[1])]


def disk(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Run on a small disk until it is full, enlarge it, and run again.

    Needs the right to mount a file system in memory; elsewhere there are no cases.
    """
    cases, rng = Cases("disk"), np.random.default_rng(seed)
    file, whole = _alone(folder)
    expected = runs.fingerprint(whole)
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        size = int(rng.uniform(0.02, 1.0) * needed)
        place = folder / f"disk-{number}"
        place.mkdir()
        if not _mount(place, size):
            cases.counts["left out: file systems cannot be mounted here"] += 1
            place.rmdir()
            break
        try:
            _fill(cases, file, place, size, expected)
        finally:
            subprocess.run(["umount", place], check=True)
            place.rmdir()
    return cases


def _mount(place: pathlib.Path, size: int, *, options: str = "") -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "tmpfs", place]
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except OSError:
        return False


def _fill(cases, file, place, size, expected) -> None:
    """Run on a disk of `size` bytes, and again when it is large."""
    arguments = runs.train(file, place / "run")
    status, output = runs.finish(arguments)
    what = f"a disk of {size:,} bytes: status {status}: {output[-3000:]}"
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    if status == 0:
        cases.add("large enough")
        return
    if status != 2 or len(errors) != 1 or "Traceback" in output:
        cases.add("wrong", wrong=what)
        return
    _mount(place, 2**30, options="remount,")
    status, output = runs.finish(arguments)
    if status or runs.fingerprint(place / "run") != expected:
        cases.add("wrong", wrong=f"{what}\nthen, enlarged: {status}: {output[-2000:]}")
        return
    cases.add("one line, and finished once enlarged")
