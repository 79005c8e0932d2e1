"""The command line: `python -m memejax.extract --config=configs/graph.py --out=STORE`.

    python -m memejax.extract --config=FILE.py[:TEXT] [--config.LEAF=VALUE ...]
      --out=STORE

Write the features and entities of a config's memes to a folder, as training data of
graph networks. The same command resumes an interrupted extraction.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags

from memejax import command_line, process_flags

_CONFIG = command_line.define_config()
_OUT = flags.DEFINE_string("out", None, "the store's folder")


def main(argv: Sequence[str]) -> None:
    """Run the extraction that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    command_line.prepare()
    with process_flags.joined():
        # Imported here, so that --help and a misspelt flag return at once.
        from memejax.extract.extraction import extract

        try:
            extract(_CONFIG.value, _OUT.value)
        except ValueError as error:
            # For the user, who does not need a traceback.
            sys.exit(f"error: {error}")


def run() -> None:
    """Run the command line."""
    flags.mark_flags_as_required(["config", "out"])
    app.run(main)


if __name__ == "__main__":
    run()
