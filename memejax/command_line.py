"""The flag --config and the start of a process, which the commands share."""

from __future__ import annotations

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from memejax.config import load_config

# The flags are those of the command that defines them, for its --help.
flags.disclaim_key_flags()


class _Parser(flags.ArgumentParser):
    """Reads a config as `load_config` does, and says in one line what is wrong."""

    def parse(self, argument: str) -> ConfigDict:
        return load_config(argument).lock()

    def flag_type(self) -> str:
        return "config object"


def define_config() -> flags.FlagHolder:
    """Define the flag --config=FILE.py[:TEXT], and --config.LEAF=VALUE for its leaves.

    `configs/x.py` is found where only the installed package has that file, too.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, "the experiment, FILE.py, FILE.py:PRESET or FILE.py:NAME=VALUE"
    )
    # ml_collections' own looks for the file in the working folder alone.
    flags.FLAGS["config"].parser = _Parser()
    return holder


def prepare() -> None:
    """Prepare the process of a command: quiet libraries, parsed flags, enough threads.

    Call it before the first use of a device.
    """
    # jax and orbax narrate at INFO; what the user is to read is printed.
    logging.set_verbosity(logging.WARNING)
    # grain's worker processes read absl's flags, which argparse does not parse.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # Imported here, so that --help and a misspelt flag answer at once.
    from memejax import parallel

    parallel.room_for_collectives()
