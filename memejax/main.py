"""The command line: `python -m memejax.main --config=configs/cass_mm.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from memejax import processes
from memejax.config import located

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "the experiment, FILE.py or FILE.py:PRESET"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the run's folder; default runs/<config>-<preset>"
)


def main(argv: Sequence[str]) -> None:
    """Runs the experiment that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    # jax and orbax narrate at INFO; what the user is to read is printed.
    logging.set_verbosity(logging.WARNING)
    with processes.joined():
        _run()


def _run() -> None:
    # Imported here, so that --help and a misspelt flag answer at once.
    from memejax import build, folder, parallel, train
    from memejax.data import hateful_memes

    config = _CONFIG.value
    if "classify" in config.stages and config.seeds > 1:
        # A device to each core, for seeds side by side; one seed has all cores.
        parallel.device_a_core()
    workdir = _WORKDIR.value or f"runs/{config.name}-{config.preset}"
    try:
        train.run(config, workdir)
    except (
        hateful_memes.BadRecordsError,
        folder.OtherRunError,
        build.CheckpointError,
        parallel.ProcessError,
    ) as error:
        # These speak to the user, who has no need of a traceback.
        sys.exit(f"error: {error}")


def run() -> None:
    """Entry point."""
    flags.mark_flag_as_required("config")
    app.run(main, argv=[located(argument) for argument in sys.argv])


if __name__ == "__main__":
    run()
