"""The threads of XLA's CPU backend."""

from __future__ import annotations

import os
import re

import jax


def reserve_collective_threads() -> None:
    """Reserve two threads for each of several CPU devices, if XLA would have fewer.

    XLA runs a device's part of a program on a thread, which waits in a collective until
    the other devices arrive, and dispatches later calls on threads of the same pool.
    The pool has one thread per core, or per device if there are more devices: with
    three of four devices waiting and the fourth thread dispatching, the fourth device
    never starts, and after 40 seconds XLA aborts the process. Twice as many threads
    suffice if one thread of the program makes the calls: it waits for each dispatch.

    Every command calls it, for devices set by JAX_NUM_CPU_DEVICES or XLA_FLAGS; your
    own program should call it before the first use of a device, and after setting
    `jax_num_cpu_devices`, if it does. PJRT_NPROC stays if set.
    """
    pattern = r"--xla_force_host_platform_device_count=(\d+)"
    forced = re.findall(pattern, os.environ.get("XLA_FLAGS", ""))
    devices = max(jax.config.jax_num_cpu_devices, *map(int, forced), 1)
    if devices > 1:
        threads = max(os.cpu_count() or 1, 2 * devices)
        os.environ.setdefault("PJRT_NPROC", str(threads))
