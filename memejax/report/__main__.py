"""Write the page of a finished run anew.

    python -m memejax.report RUN [--no-pictures]

reads the run's folder and replaces its report.html, for instance after an update of
memejax. Memes are shown as the run's `report.pictures` has it, unless a flag decides.
"""

from __future__ import annotations

import argparse
import pathlib

from memejax import command_line
from memejax.errors import UserError, reported, user_errors


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.report",
        description="Writes report.html of a finished run anew.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="show memes (default: as the run's config has it)",
    )
    options = parser.parse_args()
    with reported():
        _write(pathlib.Path(options.run), options.pictures)


def _write(folder: pathlib.Path, pictures: bool | None) -> None:
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} holds no finished run: it has no results.json")
    command_line.prepare()
    # Imported here, so that --help and a wrong folder answer at once.
    from memejax import logs, report

    with user_errors():
        path = report.write(folder, pictures=pictures)
    logs.say(f"wrote {path}")


if __name__ == "__main__":
    main()
