"""The command line: `python -m memejax.main --config=configs/cass_mm.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from absl import app, flags

from memejax import command_line, process_flags

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the run's folder; default runs/<config>-<preset>"
)


def main(argv: Sequence[str]) -> None:
    """Run the experiment given by the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    command_line.prepare()
    with process_flags.joined():
        _run()


def _run() -> None:
    # Imported here to keep --help and a misspelt flag fast.
    from memejax import folder, parallel, stages, train
    from memejax.checkpoint import DamagedCheckpointError
    from memejax.data import hateful_memes
    from memejax.lock import LockedError
    from memejax.stages.parts.pretrained import CheckpointError

    config = _CONFIG.value
    stages.prepare(config)
    workdir = _WORKDIR.value or f"runs/{config.name}-{config.preset}"
    try:
        train.run(config, workdir)
    except (
        hateful_memes.BadRecordsError,
        folder.OtherRunError,
        CheckpointError,
        DamagedCheckpointError,
        LockedError,
        parallel.ProcessError,
    ) as error:
        # These are user errors: the message suffices, without a traceback.
        sys.exit(f"error: {error}")
    except ValueError as error:
        # A config that cannot be run, mostly.
        if os.environ.get("MEMEJAX_TRACEBACK"):
            raise
        sys.exit(f"error: {error}\n(MEMEJAX_TRACEBACK=1 shows where)")


def run() -> None:
    """Parse the flags and run `main`."""
    flags.mark_flag_as_required("config")
    app.run(main)


if __name__ == "__main__":
    run()
