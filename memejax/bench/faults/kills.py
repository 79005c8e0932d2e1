"""SIGKILL at random times."""

from __future__ import annotations

import pathlib

import numpy as np

from memejax.bench.faults import runs
from memejax.bench.faults.report import Cases

CONFIGS = ("cass_mm", "dino", "graph", "curriculum")


def kills(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Kill runs at random times until they are finished, `count` kills in all."""
    cases, rng = Cases("kills"), np.random.default_rng(seed)
    store = _store(folder)
    for i, name in enumerate(CONFIGS):
        config = runs.small(name, features=str(store) if name == "graph" else None)
        file = runs.write_config(config, folder / f"{name}.py")
        whole = folder / f"{name}-whole"
        # Twice: the first compiles, which those that are killed need not.
        for path in (whole, folder / f"{name}-again"):
            took, status, output = runs.seconds(runs.train(file, path))
            if status:
                raise RuntimeError(f"{name} does not run undisturbed:\n{output}")
        expected = runs.fingerprint(whole)
        left, number = count // len(CONFIGS) + (i < count % len(CONFIGS)), 0
        while left > 0:
            workdir, killed = folder / f"{name}-{number}", []
            number += 1
            while True:
                # The first half second is the interpreter's start.
                wait = float(rng.uniform(0.5, took)) if left > 0 else 600.0
                status, output = runs.kill_after(runs.train(file, workdir), wait)
                if status is not None:
                    break
                left -= 1
                killed.append(round(wait, 2))
            _judge(cases, name, killed, status, output, workdir, expected)
    return cases


def _judge(cases, name, killed, status, output, workdir, expected) -> None:
    """Count the kills of one run, once it has ended."""
    what = f"{name} killed after {killed} s"
    wrong = None
    if status:
        wrong = f"{what}: status {status}: {output[-2000:]}"
    elif runs.fingerprint(workdir) != expected:
        found = runs.fingerprint(workdir)
        names = [k for k in expected | found if expected.get(k) != found.get(k)]
        wrong = f"{what}: other results in {names}"
    elif "Traceback" in output:
        wrong = f"{what}: a traceback: {output[-2000:]}"
    outcome = "resumed, results bitwise the same" if wrong is None else "wrong"
    for _ in killed:
        cases.add(outcome, wrong=wrong)
        wrong = None


def _store(folder: pathlib.Path) -> pathlib.Path:
    """Extract features of the built-in memes by random encoders."""
    config = runs.small("graph")
    file = runs.write_config(config, folder / "extract.py")
    arguments = ["memejax.extract", f"--config={file}", f"--out={folder / 'store'}"]
    status, output = runs.finish(arguments)
    if status:
        raise RuntimeError(f"the extraction failed:\n{output}")
    return folder / "store"
