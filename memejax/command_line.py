"""The --config flag and the process set-up shared by all commands."""

from __future__ import annotations

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from memejax.config import load_config

# In --help the flags belong to the command that defines them.
flags.disclaim_key_flags()


class _Parser(flags.ArgumentParser):
    """Parse a config with `load_config`, which reports errors in one line."""

    def parse(self, argument: str) -> ConfigDict:
        return load_config(argument).lock()

    def flag_type(self) -> str:
        return "config object"


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

    Must run before the first use of a device.
    """
    # jax and orbax are verbose at INFO; messages for the user are printed.
    logging.set_verbosity(logging.WARNING)
    # grain's worker processes read absl's flags, which argparse does not parse.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # Imported here to keep --help and a misspelt flag fast.
    from memejax import parallel

    parallel.reserve_collective_threads()
