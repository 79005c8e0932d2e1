"""Several processes as one run: start, end and agreement.

Every process runs the same program on the same config, with its own devices; the mesh
is over the devices of all. A single process is the first of one: nothing is started
for it, and these functions are no-ops.

Processes that compute together have to call the same functions in the same order. Work
for one process only (write a file, print a line) is guarded by `is_first`; anything
that depends on whether a file exists uses the first process's answer (`from_first`).
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

from memejax.errors import UserError, is_disk_full, printable
from memejax.parallel.device_placement import put_batch, replicated
from memejax.parallel.meshes import mesh
from memejax.parallel.rendezvous import ProcessError, rendezvous

Tree = Any

# Seconds until a silent process counts as lost, and until one that ends stops waiting
# for the others to end too.
HEARTBEAT, SHUTDOWN = 30, 10
# Calls between two checks whether any process has received a signal.
EVERY = 10


def start(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    detect: bool = False,
    timeout: int = 60,
) -> None:
    """Join this process with the others; without arguments, do nothing.

    Args:
        coordinator: "HOST:PORT", a free port on the host of process 0, the same for
            all.
        processes: number of processes, at least 1; for 1 nothing is started.
        process: number of this process, 0 to processes - 1.
        detect: take all three from SLURM or MPI, which started this process.
        timeout: seconds to wait for the others, at least 1.

    Raises:
        ProcessError: if some of the first three are missing or out of range, or
            combined with `detect`; if `detect` finds nothing; if a process does not
            arrive in time.
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
            "leave out these, or --distributed"
        )
    options: dict[str, Any] = {}
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
        rendezvous(coordinator, processes=processes, process=process, timeout=timeout)
        options = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            "cluster_detection_method": "deactivate",
        }
    # It would intercept SIGTERM; see memejax/signals.py.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **options,
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
    # Connect the devices now, while all processes are at the same point.
    sync("started")


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Run the body, then shut down what `start` began, together with the others.

    In a single process exceptions pass. One of several that fails prints the error and
    exits at once with status 1, which ends the others; SystemExit is assumed to occur
    in all processes and waits for them.
    """
    try:
        yield
    except SystemExit as ended:
        if count() == 1:
            raise
        jax.distributed.shutdown()
        raise SystemExit(ended.code) from None
    except BaseException as error:
        leave(error)
        raise
    jax.distributed.shutdown()


def count() -> int:
    """Return the number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def sync(name: str) -> None:
    """Wait until all processes have reached the point of this name."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_before_others(name: str) -> Iterator[None]:
    """Run the body in the first process, and then in the others.

    For files that the first process writes and the others read. The body must not
    compute on all devices. After an error in the first process the others still run.
    """
    if not is_first():
        sync(name)
    try:
        yield
    finally:
        if is_first():
            sync(name)


def from_first(value: Any) -> Any:
    """Return the first process's value (JSON) in all processes."""
    if count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    mine = text if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(mine)))


def fetch(tree: Tree) -> Tree:
    """Copy a tree of whole arrays to the host, from the devices of all processes."""

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not (
            x.is_fully_addressable or x.is_fully_replicated
        ):
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.device_get(jax.tree.map(whole, tree))


class Agreement:
    """Agree on the largest number of any process, at the same call in all of them.

    The processes exchange numbers only at every tenth call, and read the result at the
    next call, when the devices have it: no process waits.
    """

    def __init__(self):
        self._calls, self._pending = 0, None

    def largest(self, number: int, *, now: bool = False) -> int:
        """Return the largest number, 0 between exchanges; its own in a single process.

        Args:
            number: this process's number, an int32 that is at least 0.
            now: whether to exchange numbers now, and wait for the result.
        """
        if count() == 1:
            return number
        if now:
            return int(_largest(number))
        self._calls += 1
        result, self._pending = self._pending, None
        if self._calls % EVERY == 0:
            self._pending = _largest(number)
        return 0 if result is None else int(result)


def _largest(number: int) -> jax.Array:
    """Compute the largest of all processes' numbers, on every device."""
    everywhere = mesh()
    mine = np.full(jax.local_device_count(), number, np.int32)
    return _max_over(everywhere)(put_batch(everywhere, mine))


@functools.cache
def _max_over(mesh: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.max, out_shardings=replicated(mesh))


def leave(error: BaseException) -> None:
    """Print an error and end this process, if it is one of several.

    It does not return then: clean-up would wait for all processes, which wait for this
    one. In a single process it does nothing.
    """
    if count() == 1:
        return
    sys.stdout.flush()
    # Not by class: jax raises ValueError if it detects the loss early.
    if _LOST.search(str(error)):
        print(
            f"error: process {jax.process_index()} of {count()} lost another process "
            f"({str(error).strip().splitlines()[0]}); the same command, with any "
            "number of processes, resumes from the last checkpoint",
            file=sys.stderr,
        )
    elif isinstance(error, UserError) or is_disk_full(error):
        print(f"error: {printable(str(error))}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


# Messages of a broken connection, on a CPU, a GPU and from the coordinator.
_LOST = re.compile(
    "Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|Connection (reset|closed)"
)
