"""The command line: `python -m memejax.extract --config=configs/graph.py --out=STORE`.

    python -m memejax.extract --config=FILE.py[:TEXT] [--config.LEAF=VALUE ...]
      --out=STORE

Write the features and entities of a config's memes to a folder, as training data of
graph networks. The same command resumes an interrupted extraction.
"""

from __future__ import annotations

from absl import flags

from memejax import command_line, process_flags

_CONFIG = command_line.define_config()
_OUT = flags.DEFINE_string("out", None, "the store's folder")


def main() -> None:
    """Run the extraction that the flags describe."""
    with process_flags.joined():
        # Imported here, so that --help and a misspelt flag return at once.
        from memejax import parallel
        from memejax.extract.extraction import extract

        parallel.keep_compiled()
        extract(_CONFIG.value, _OUT.value)


def run() -> None:
    """Run the command line."""
    command_line.run(main, required=["config", "out"])


if __name__ == "__main__":
    run()
