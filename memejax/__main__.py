"""The list of commands, and `memejax COMMAND` for `python -m memejax.COMMAND`.

python -m memejax                     the commands, with a line each
memejax COMMAND [ARGUMENTS]           the same as python -m memejax.COMMAND
memejax train --config=FILE.py        another name of `main`
"""

from __future__ import annotations

import difflib
import runpy
import sys

from memejax.commands import ALIASES, COMMANDS


def usage() -> str:
    """Return the list of commands with a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "usage: memejax COMMAND [ARGUMENTS]",
            "       python -m memejax.COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "memejax COMMAND --help lists the arguments of a command; train is main.",
        ]
    )


def run(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name as `python -m` would.

    Args:
        arguments: command and its arguments; None takes those of this process.

    Raises:
        SystemExit: for an unknown command, and as the command does.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return
    name = ALIASES.get(given[0], given[0]).removeprefix("memejax.")
    if name not in COMMANDS:
        print(f"error: {_unknown(given[0])}", file=sys.stderr)
        raise SystemExit(2)
    # runpy replaces the first by the module's file, as python -m has it.
    sys.argv = [name, *given[1:]]
    runpy.run_module(f"memejax.{name}", run_name="__main__", alter_sys=True)


def _unknown(name: str) -> str:
    """Name the commands that an unknown one may stand for."""
    names = [*COMMANDS, *ALIASES]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    # A last part, as `inspect` of `weights.inspect`.
    near += [one for one in names if one.rpartition(".")[2] == name and one not in near]
    hint = f"; the nearest: {', '.join(near)}" if near else ""
    return f"unknown command {name!r}{hint}; python -m memejax lists all"


if __name__ == "__main__":
    run()
