"""Several processes as one run: how they start and end, and what they agree on.

Every process runs the same program on the same config, on devices of its own; the
mesh is over the devices of all. A process alone is the first of one: nothing is started
for it, and nothing here but `start` then does anything.

Where several compute together, all of them call the same functions in the same order.
What only one is to do (write a file, print a line) asks `is_first`; what depends on a
file's being there asks the first process and tells the others (`from_first`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from memejax.parallel.device_placement import put_batch, replicated
from memejax.parallel.meeting import ProcessError, meet
from memejax.parallel.meshes import mesh

Tree = Any

# Seconds until a process that says nothing counts as lost, and until one that ends
# gives up waiting for the others to end too.
HEARTBEAT, SHUTDOWN = 30, 10
# Calls between two questions whether any process has received a signal.
EVERY = 10


def start(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    detect: bool = False,
    timeout: int = 60,
) -> None:
    """Makes this process one of several; does nothing where nothing is given.

    Args:
        coordinator: "HOST:PORT", a free port of the host of process 0, the same for
            all.
        processes: how many there are, at least 1; of 1 nothing is started.
        process: which one this is, 0 to processes - 1.
        detect: take all three from SLURM or MPI, which started this process.
        timeout: seconds to wait for the others, at least 1.

    Raises:
        ProcessError: if some of the first three are missing or out of range, or
            `detect` goes with them or finds nothing; if a process does not come in
            time.
        RuntimeError: if a device was used before.
    """
    given = {
        "--coordinator": coordinator,
        "--processes": processes,
        "--process": process,
    }
    missing = [name for name, value in given.items() if value is None]
    if timeout < 1:
        raise ProcessError(f"--start_timeout must be at least 1 second, got {timeout}")
    if detect and len(missing) < len(given):
        raise ProcessError(
            "--distributed finds --coordinator, --processes and --process by itself: "
            "leave these away, or that"
        )
    where: dict[str, Any] = {}
    if not detect:
        if coordinator is None or processes is None or process is None:
            if len(missing) < len(given):
                raise ProcessError(
                    "--coordinator, --processes and --process go together: "
                    f"{' and '.join(missing)} missing"
                )
            return
        if processes < 1 or not 0 <= process < processes:
            raise ProcessError(
                f"got --process={process} of --processes={processes}, expected at "
                "least 1 process, and a number from 0 to one less than there are"
            )
        if processes == 1:
            return
        meet(coordinator, processes=processes, process=process, timeout=timeout)
        where = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
    # It would take SIGTERM for itself; see memejax/loop/signals.py.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **where,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if detect and isinstance(error, ValueError):
            raise ProcessError(
                "--distributed finds neither SLURM's variables (they are set by srun, "
                f"not by sbatch) nor MPI's ({error}): give --coordinator, --processes "
                "and --process"
            ) from error
        raise ProcessError(f"the processes cannot be joined: {error}") from error
    # The devices' own connections are made here, where all processes just met.
    sync("started")


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Runs the body, and then ends what `start` began, with the other processes.

    What is raised passes where this process is alone. Of several, one that fails says
    why and ends at once, with status 1, which ends the others; SystemExit is taken to
    be all processes' and waits for them.
    """
    try:
        yield
    except SystemExit as ended:
        if count() == 1:
            raise
        # Said before: jax aborts where the others do not end, too.
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr, flush=True)
        jax.distributed.shutdown()
        raise SystemExit(1 if isinstance(ended.code, str) else ended.code) from None
    except BaseException as error:
        leave(error)
        raise
    jax.distributed.shutdown()


def count() -> int:
    """How many processes there are."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def sync(name: str) -> None:
    """Returns when all processes have come to the point of this name."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_before_others(name: str) -> Iterator[None]:
    """Runs the body in the first process, and when it is through in the others.

    For files that the first writes and the others find. The body computes nothing that
    takes all devices. An error in the first lets the others come to theirs.
    """
    if not is_first():
        sync(name)
    try:
        yield
    finally:
        if is_first():
            sync(name)


def from_first(value: Any) -> Any:
    """The first process's value, JSON, in all of them."""
    if count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    mine = text if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(mine)))


def fetch(tree: Tree) -> Tree:
    """The tree on the host, with whole arrays, of whatever devices they lie on."""

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not (
            x.is_fully_addressable or x.is_fully_replicated
        ):
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.device_get(jax.tree.map(whole, tree))


class Agreement:
    """The largest number that any process names, known to all of them at one call.

    The processes ask each other at every tenth call only, and read the answer at the
    call after it, by when the devices have it: nobody waits.
    """

    def __init__(self):
        self._calls, self._coming = 0, None

    def largest(self, number: int, *, now: bool = False) -> int:
        """The largest, 0 where nothing was asked; of one process its own number.

        Args:
            number: this process's, an int32 that is at least 0.
            now: whether to ask, and wait for the answer.
        """
        if count() == 1:
            return number
        if now:
            return int(_largest(number))
        self._calls += 1
        came, self._coming = self._coming, None
        if self._calls % EVERY == 0:
            self._coming = _largest(number)
        return 0 if came is None else int(came)


def _largest(number: int) -> jax.Array:
    """The largest of all processes' numbers, on every device."""
    everywhere = mesh()
    mine = np.full(jax.local_device_count(), number, np.int32)
    return _max_over(everywhere)(put_batch(everywhere, mine))


@functools.cache
def _max_over(mesh: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.max, out_shardings=replicated(mesh))


def leave(error: BaseException) -> None:
    """Ends this process, one of several, because of an error, which it prints.

    It does not return then: whatever would be tidied up waits for all processes, and
    they wait for this one. For a process alone it does nothing.
    """
    if count() == 1:
        return
    sys.stdout.flush()
    # Not by its class: jax raises ValueError where it is told of it early.
    if _LOST.search(str(error)):
        print(
            f"error: process {jax.process_index()} of {count()} lost another process "
            f"({str(error).strip().splitlines()[0]}); the same command, with any "
            "number of processes, goes on from the last checkpoint",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


# What errors of a broken connection say, on a CPU, a GPU and from the coordinator.
_LOST = re.compile(
    "Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|Connection (reset|closed)"
)
