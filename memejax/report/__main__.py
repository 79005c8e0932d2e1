"""Write the page of a finished run anew.

    python -m memejax.report RUN [--no-pictures]

reads the run's folder and replaces its report.html, for instance after an update of
memejax. Memes are shown as the run's `report.pictures` has it, unless a flag decides.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from memejax import command_line


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
    folder = pathlib.Path(options.run)
    if not (folder / "results.json").is_file():
        sys.exit(f"error: {folder} holds no finished run: it has no results.json")
    command_line.prepare()
    # Imported here, so that --help and a wrong folder answer at once.
    from memejax import logs, report

    try:
        path = report.write(folder, pictures=options.pictures)
    except (OSError, ValueError) as error:
        # These speak to the user, who has no need of a traceback.
        sys.exit(f"error: {error}")
    logs.say(f"wrote {path}")


if __name__ == "__main__":
    main()
