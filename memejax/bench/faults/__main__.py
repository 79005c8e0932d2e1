"""Faults injected on purpose, and what memejax makes of them.

    python -m memejax.bench.faults

kills         SIGKILL at random times until the run is finished; its results equal those
              of an undisturbed one, bit for bit
checkpoints   the last checkpoint damaged: noticed, resumed from the one before, to the
              same results; the best one damaged: refused
values        wrong values of a config's leaves: one line that names the leaf, no folder
              claimed; allowed ones train
inputs        damaged memes, pictures, weights, tokenizers and stores: named or read
starts        two starts on one folder, one store, one output
disk          a disk that fills up: one line, and the same command finishes later

Everything is drawn from --seed. A case that ends in a traceback, takes over a minute
where it should be refused, or gives other results is listed with what to repeat.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import time

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command

# Part -> default number of its cases.
PARTS = {
    "kills": 100,
    "checkpoints": 200,
    "values": 300,
    "inputs": 300,
    "starts": 12,
    "disk": 8,
}


@command
def main() -> None:
    """Run the parts that the command line names."""
    parser = Parser("faults", __doc__)
    parser.names("--part", PARTS, default=list(PARTS), text="parts to run")
    parser.number(
        "--cases",
        None,
        text="cases of each part (default: "
        + ", ".join(f"{name} {count}" for name, count in PARTS.items())
        + ")",
    )
    parser.number("--seed", 0, text="seed of the faults")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax import parallel
    from memejax.bench.faults.checkpoints import checkpoints
    from memejax.bench.faults.inputs import inputs
    from memejax.bench.faults.kills import kills
    from memejax.bench.faults.report import table
    from memejax.bench.faults.starts import disk, starts
    from memejax.bench.faults.values import values

    functions = {
        "kills": kills,
        "checkpoints": checkpoints,
        "values": values,
        "inputs": inputs,
        "starts": starts,
        "disk": disk,
    }
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        # One cache for all runs: most cases compile the same programs.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
        parallel.keep_compiled(compiled)
        for name in options.part:
            count = PARTS[name] if options.cases is None else options.cases
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder)
                cases = functions[name](count, seed=options.seed, folder=path).as_json()
            found.append(cases | {"seconds": round(time.perf_counter() - began, 1)})
    pairs.write("faults", {"seed": options.seed, "parts": found}, options.out)
    print(table(found))


if __name__ == "__main__":
    main()
