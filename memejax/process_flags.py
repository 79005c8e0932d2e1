"""The flags of a program that may be one process of several.

    --coordinator=HOST:PORT --processes=2 --process=0     by hand, a command each
    --distributed                                         started by SLURM or MPI

Without them a program is alone, and nothing is started.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from absl import flags

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT, a free port of the host of process 0"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are")
_PROCESS = flags.DEFINE_integer("process", None, "which one this is, from 0")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed",
    False,
    "whether SLURM or MPI started the processes, and says the rest",
)
_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 60, "seconds in which all processes have to be started"
)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that the flags name, for the time of the body.

    Raises:
        SystemExit: with a message, where they cannot be joined.
    """
    # Imported here, so that --help and a misspelt flag answer at once.
    from memejax import parallel

    try:
        parallel.start(
            coordinator=_COORDINATOR.value,
            processes=_PROCESSES.value,
            process=_PROCESS.value,
            detect=_DISTRIBUTED.value,
            timeout=_TIMEOUT.value,
        )
    except parallel.ProcessError as error:
        sys.exit(f"error: {error}")
    with parallel.ending_together():
        yield
