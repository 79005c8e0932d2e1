"""The --config flag, and how all commands start and end."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from memejax import huge_pages
from memejax.config import load_config, unknown_leaf
from memejax.errors import STATUS, leave_out_full_disks, printable, reported

# In --help the flags belong to the command that defines them.
flags.disclaim_key_flags()


class _Parser(flags.ArgumentParser):
    """Parse a config with `load_config`, which reports errors in one line."""

    def parse(self, argument: str) -> ConfigDict:
        config = load_config(argument).lock()
        # Here, because ml_collections raises KeyError without the nearest name.
        for override in sys.argv[1:]:
            found = re.match(r"--?(?:no)?config\.([^=]+)", override)
            if found:
                _check_leaf(config, found.group(1))
        return config

    def flag_type(self) -> str:
        return "config object"


def _check_leaf(config: ConfigDict, name: str) -> None:
    """Raise ValueError if a config has no such leaf or section."""
    problem = unknown_leaf(config, name)
    if problem is not None:
        raise ValueError(problem)


def define_config() -> flags.FlagHolder:
    """Define the flag --config=FILE.py[:TEXT], and --config.LEAF=VALUE for its leaves.

    `configs/x.py` also resolves to the file in the installed package.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, "the experiment, FILE.py, FILE.py:PRESET or FILE.py:NAME=VALUE"
    )
    # ml_collections' own parser looks only in the working folder.
    flags.FLAGS["config"].parser = _Parser()
    return holder


def prepare() -> None:
    """Set up a command's process: quiet libraries, parsed flags, enough threads.

    Must run before the first use of a device. The command may start again here, see
    `huge_pages`.
    """
    huge_pages.restart()
    # Tracing makes many small objects, hardly any of them garbage: with Python's own
    # (700, 10, 10) a sixth of the time until a first step is spent looking for it.
    gc.set_threshold(10_000, 20, 20)
    # jax and orbax are verbose at INFO; messages for the user are printed.
    logging.set_verbosity(logging.WARNING)
    leave_out_full_disks()
    # grain's worker processes read absl's flags, which argparse does not parse.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # Imported here to keep --help and a misspelt flag fast.
    from memejax import parallel

    parallel.reserve_collective_threads()


def run(body: Callable[[], Any], *, required: Sequence[str]) -> None:
    """Parse the flags of absl, and run a command under `errors.reported`.

    Args:
        body: called after `prepare`.
        required: flags that must be given.
    """
    if not any(argument.lstrip("-").startswith("help") for argument in sys.argv[1:]):
        # Before the config is read, and read again.
        huge_pages.restart()
    flags.mark_flags_as_required(list(required))

    def main(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _end(f"unexpected arguments: {' '.join(argv[1:])}")
        prepare()
        with reported():
            body()

    app.run(main, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parse flags; a wrong one ends the program with one line and status 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # absl names the flag whose parser failed, and then repeats its value.
        text = re.sub(r"^flag --config=[^:]*(:[^:]*)?: (?=--config\.)", "", str(error))
        _end(text)


def _end(message: str) -> NoReturn:
    print(f"error: {printable(message)}", file=sys.stderr)
    print("--help lists the flags", file=sys.stderr)
    raise SystemExit(STATUS)
