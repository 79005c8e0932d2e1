"""The command-line parser shared by all benchmarks."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence


class Parser(argparse.ArgumentParser):
    """Parser of a benchmark's options, with --out for `pairs.write`.

    Its --help prints the benchmark's docstring verbatim, and the default of each option
    unless that is None or a flag that is off.
    """

    def __init__(self, name: str, about: str | None, *, pairs: int | None = None):
        """Make the parser of `python -m memejax.bench.NAME`.

        Args:
            name: the benchmark's module.
            about: its docstring.
            pairs: default of --pairs, for `pairs.in_turn`; no such option if None.
        """
        super().__init__(
            prog=f"python -m memejax.bench.{name}",
            description=about,
            formatter_class=_Formatter,
        )
        self.add_argument(
            "--out",
            metavar="FILE",
            help="JSON file for the figures, with machine and versions; they are "
            "always printed",
        )
        if pairs is not None:
            self.number(
                "--pairs", pairs, text="timed runs of each side, after a warm-up"
            )

    def number(
        self,
        option: str,
        default: int | Sequence[int] | None,
        *,
        text: str,
        several: bool = False,
    ) -> None:
        """Add an option that takes an integer.

        Args:
            option: name with its dashes.
            default: default value.
            text: text for --help, with the unit.
            several: whether it takes one or more.
        """
        nargs = "+" if several else None
        self.add_argument(
            option, type=int, default=default, nargs=nargs, metavar="N", help=text
        )

    def names(
        self, option: str, choices: Iterable[str], *, default: Sequence[str], text: str
    ) -> None:
        """Add an option that takes one or more names.

        Args:
            option: name with its dashes.
            choices: the allowed names.
            default: default value.
            text: text for --help; `%(choices)s` in it is replaced by the choices.
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
    """Help formatter that shows defaults as one would type them."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is False or default == argparse.SUPPRESS:
            return text
        values = default if isinstance(default, (list, tuple)) else [default]
        typed = shlex.join(map(str, values)).replace("%", "%%")
        return f"{text} (default: {typed})"
