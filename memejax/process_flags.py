"""Flags of a program that may run as several processes.

    --coordinator=HOST:PORT --processes=2 --process=0     one command per process
    --distributed                                         started by SLURM or MPI

Without them the program is a single process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from absl import flags

from memejax.errors import reported

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT, a free port on the host of process 0"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "number of processes")
_PROCESS = flags.DEFINE_integer("process", None, "number of this process, from 0")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed",
    False,
    "whether SLURM or MPI started the processes, and gives the rest",
)
_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 60, "seconds to wait for all processes to start"
)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes given by the flags, for the duration of the body.

    A UserError of the body ends all processes, with status 2.

    Raises:
        parallel.ProcessError: if they cannot be joined; its message gives the reason.
    """
    # Imported here to keep --help and a misspelt flag fast.
    from memejax import parallel

    parallel.start(
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process=_PROCESS.value,
        detect=_DISTRIBUTED.value,
        timeout=_TIMEOUT.value,
    )
    with parallel.ending_together(), reported():
        yield
