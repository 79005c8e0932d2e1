"""The command line of `python -m memejax.bench.faults`."""

from __future__ import annotations

import os
import pathlib
import tempfile
import time

from memejax import parallel
from memejax.bench import faults, pairs
from memejax.bench.command_line import Parser
from memejax.bench.faults.checkpoints import checkpoints
from memejax.bench.faults.inputs import inputs
from memejax.bench.faults.kills import kills
from memejax.bench.faults.report import table
from memejax.bench.faults.starts import disk, starts
from memejax.bench.faults.values import values
from memejax.command_line import prepare
from memejax.errors import command

# Part -> its function and default number of cases.
PARTS = {
    "kills": (kills, 100),
    "checkpoints": (checkpoints, 200),
    "values": (values, 300),
    "inputs": (inputs, 300),
    "starts": (starts, 12),
    "disk": (disk, 8),
}


@command
def main() -> None:
    """Run the parts that the command line names."""
    parser = Parser("faults", faults.__doc__)
    parser.names("--part", PARTS, default=list(PARTS), text="parts to run")
    parser.number(
        "--cases",
        None,
        text="cases of each part (default: "
        + ", ".join(f"{name} {count}" for name, (_, count) in PARTS.items())
        + ")",
    )
    parser.number("--seed", 0, text="seed of the faults")
    options = parser.parse_args()
    prepare()
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        # One cache for all runs: most cases compile the same programs.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
        parallel.keep_compiled(compiled)
        for name in options.part:
            function, default = PARTS[name]
            count = default if options.cases is None else options.cases
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder)
                cases = function(count, seed=options.seed, folder=path).as_json()
            found.append(cases | {"seconds": round(time.perf_counter() - began, 1)})
    pairs.write("faults", {"seed": options.seed, "parts": found}, options.out)
    print(table(found))


if __name__ == "__main__":
    main()
