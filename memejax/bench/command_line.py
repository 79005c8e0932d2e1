"""What the command lines of benchmarks have in common."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence


class Parser(argparse.ArgumentParser):
    """Parses a benchmark's options, of which it has --out, for `pairs.write`.

    Its --help prints the benchmark's docstring as it stands, and with each option's
    help its default, unless that is None or a flag that is off.
    """

    def __init__(self, name: str, about: str | None, *, pairs: int | None = None):
        """Of `python -m memejax.bench.NAME`.

        Args:
            name: the benchmark's module.
            about: its docstring.
            pairs: the default of --pairs, for `pairs.in_turn`; None: without that
                option.
        """
        super().__init__(
            prog=f"python -m memejax.bench.{name}",
            description=about,
            formatter_class=_Formatter,
        )
        self.add_argument(
            "--out",
            metavar="FILE",
            help="JSON to write the figures to, with machine and versions; they are "
            "printed in any case",
        )
        if pairs is not None:
            self.number(
                "--pairs", pairs, text="counted runs of each side, after a warm-up"
            )

    def number(
        self,
        option: str,
        default: int | Sequence[int] | None,
        *,
        text: str,
        several: bool = False,
    ) -> None:
        """Adds an option that takes a whole number.

        Args:
            option: with its dashes.
            default: where it is not given.
            text: what --help says, with the unit.
            several: whether it takes one or more.
        """
        nargs = "+" if several else None
        self.add_argument(
            option, type=int, default=default, nargs=nargs, metavar="N", help=text
        )

    def names(
        self, option: str, choices: Iterable[str], *, default: Sequence[str], text: str
    ) -> None:
        """Adds an option that takes one name or more.

        Args:
            option: with its dashes.
            choices: the names that there are.
            default: where it is not given.
            text: what --help says; `%(choices)s` in it are these.
        """
        self.add_argument(
            option,
            choices=choices,
            default=default,
            nargs="+",
            metavar="NAME",
            help=text,
        )


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds defaults to the options' help as they would be typed."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is False or default == argparse.SUPPRESS:
            return text
        values = default if isinstance(default, (list, tuple)) else [default]
        typed = shlex.join(map(str, values)).replace("%", "%%")
        return f"{text} (default: {typed})"
