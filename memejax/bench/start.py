"""Start-up time: imports, the command line's help, the first training step.

    python -m memejax.bench.start

interpreter    Python itself, doing nothing
import memejax
import jax     for comparison: part of every run
help           `python -m memejax.main --help`
slowest help   the slowest `--help` of all commands
cold           from `python -m memejax.main ...` to the progress line of the first
               step: imports, 64 built-in memes written and read, the demo's models
               initialised, the step compiled
warm           the same with the programs compiled by the cold run, kept in the user's
               cache, as in a second start
predict cold   `python -m memejax.predict` of one meme with its caption, by a finished
               run of these models, with an empty cache
predict warm   the same once more

Each runs in a new process, in turn, `--runs` times after a first that does not count:
files are then in the system's cache.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from memejax import commands
from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.errors import command

COMMANDS: dict[str, tuple[str, ...]] = {
    "interpreter": ("-c", "pass"),
    "import memejax": ("-c", "import memejax"),
    "import jax": ("-c", "import jax"),
    "help": ("-m", "memejax.main", "--help"),
}
STARTS = ("cold", "warm")
SLOWEST = "slowest help"
PARTS = (*COMMANDS, SLOWEST, *STARTS, *(f"predict {start}" for start in STARTS))
RUN = (
    "-m",
    "memejax.main",
    "--config=configs/cass_mm.py:demo",
    "--config.data.synthetic.train=64",
    "--config.data.synthetic.dev=16",
    "--config.data.synthetic.test=16",
    "--config.pretrain.batch=16",
    "--config.log.every=1",
)
SHORT = (
    *RUN,
    "--config.pretrain.steps=1",
    "--config.pretrain.optimizer.warmup=0",
    "--config.finetune.steps=1",
    "--config.finetune.optimizer.warmup=0",
)
# A progress line of the first step: "pretrain   1/200    0%  loss ...".
FIRST = re.compile(r"\s1/\d+\s+\d+%")


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("start", __doc__)
    parser.number("--runs", 5, text="timed processes of each part, after a first")
    parser.names("--part", PARTS, default=PARTS, text="parts to time, as listed above")
    options = parser.parse_args()
    seconds = measured(options.part, runs=options.runs)
    rows = [
        {"part": part, "median": float(np.median(v)), "least": min(v), "most": max(v)}
        for part, v in seconds.items()
    ]
    pairs.write("start", {"unit": "s", "seconds": seconds, "rows": rows}, options.out)
    print(tables.text(rows))


def measured(parts: Sequence[str], *, runs: int) -> dict[str, list[float]]:
    """Measure seconds of each part, `runs` times in turn after an uncounted first.

    Args:
        parts: names from PARTS; "warm" has a cold run before it.
        runs: number of counted runs, at least 1.

    Raises:
        ValueError: if there are no runs or a part is unknown.
        RuntimeError: if a process fails.
    """
    if runs < 1 or not set(parts) <= set(PARTS):
        raise ValueError(
            f"got runs={runs}, parts {list(parts)}, expected at least 1 run, and parts "
            f"from {PARTS}"
        )
    found: dict[str, list[float]] = {part: [] for part in parts}
    with tempfile.TemporaryDirectory() as name:
        top = pathlib.Path(name)
        predicts = [part for part in parts if part.startswith("predict")]
        if predicts:
            _process_seconds([*SHORT, f"--workdir={top / 'run'}"])
        for number in range(runs + 1):
            seconds = {p: _process_seconds(COMMANDS[p]) for p in parts if p in COMMANDS}
            if SLOWEST in parts:
                seconds[SLOWEST] = max(map(_help_seconds, sorted(commands.COMMANDS)))
            folder = top / str(number)
            folder.mkdir()
            if set(STARTS) & set(parts):
                for part in STARTS if "warm" in parts else STARTS[:1]:
                    seconds[part] = first_step(RUN, folder, name=part)
            if predicts:
                one = _one_meme(top / "run")
                cache = folder / "predict"
                for part in PARTS[-2:]:
                    seconds[part] = _process_seconds(one, cache=cache)
            for part in parts if number else ():
                found[part].append(seconds[part])
    return found


def _help_seconds(name: str) -> float:
    return _process_seconds(["-m", f"memejax.{name}", "--help"])


def _one_meme(run: pathlib.Path) -> list[str]:
    """Return the command that scores one of a run's own memes."""
    picture = next((run / "memes" / "img").iterdir())
    return [
        *("-m", "memejax.predict", f"--workdir={run}"),
        *(f"--image={picture}", "--text=a caption of five words"),
    ]


def _process_seconds(
    arguments: Sequence[str], *, cache: pathlib.Path | None = None
) -> float:
    """Measure seconds of a process from its start to its end.

    Args:
        arguments: command-line arguments of Python.
        cache: the user's folder of compiled programs, if not the user's own.
    """
    own = {} if cache is None else {"MEMEJAX_CACHE": os.fspath(cache)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | own,
    )
    seconds = time.perf_counter() - began
    # absl ends with 1 after --help.
    if done.returncode not in ((0, 1) if "--help" in arguments else (0,)):
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return seconds


def first_step(arguments: Sequence[str], folder: pathlib.Path, *, name: str) -> float:
    """Measure seconds from a run's start to the progress line of its first step.

    The run is killed then.

    Args:
        arguments: command-line arguments of Python.
        folder: folder of compiled programs, shared by runs with the same folder.
        name: name of the run's own folder in it, which must not exist.

    Raises:
        RuntimeError: if the run ends before.
    """
    environment = os.environ | {"MEMEJAX_CACHE": os.fspath(folder / "cache")}
    began = time.perf_counter()
    with (folder / f"{name}.log").open("w+", encoding="utf-8") as errors:
        run = subprocess.Popen(
            [sys.executable, *arguments, f"--workdir={folder / name}"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            for line in run.stdout or ():
                if FIRST.search(line):
                    return time.perf_counter() - began
            errors.seek(0)
            raise RuntimeError(f"the run ended before a step:\n{errors.read()}")
        finally:
            run.kill()
            run.communicate()


if __name__ == "__main__":
    main()
