"""The command line of `python -m memejax.export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from memejax import command_line
from memejax.errors import reported, user_errors


def main(argv: Sequence[str] | None = None) -> None:
    """Export the run given by the arguments."""
    options = _parser().parse_args(argv)
    command_line.prepare()
    # The folders, the seed and the arm are the user's.
    with reported(), user_errors():
        # Imported here, so that --help and a misspelt flag answer at once.
        from memejax import logs
        from memejax.export.folder import export

        parts = export(
            options.workdir,
            options.to,
            seed=options.seed,
            precision=options.precision,
            overwrite=options.overwrite,
        )
    for part in parts:
        logs.say(f"{part.path:<24} {part.what}")
    logs.say(f"all in {options.to}; start with its README.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m memejax.export",
        description="Write a finished run as a folder that other libraries load.",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="the run's folder"
    )
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="one of the run's seeds (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="DTYPE",
        help="of the predictor's matrix products, float32 or bfloat16 (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing export"
    )
    return parser


if __name__ == "__main__":
    main()
