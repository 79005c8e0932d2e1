"""The threads of XLA's CPU backend."""

from __future__ import annotations

import os
import re

import jax


def room_for_collectives() -> None:
    """Two threads for each of several CPU devices, where XLA would have fewer.

    XLA runs a device's part of a program on a thread, which waits in a collective
    until the other devices arrive, and it dispatches later calls on threads of the
    same pool. The pool has a thread a core, or a device if that is more: with three of
    four devices waiting and the fourth thread dispatching, the fourth device never
    starts, and after 40 seconds XLA aborts the process. Twice as many are enough where
    one thread of the program makes the calls: it waits until a call is dispatched.

    Every command calls it, for devices asked for by JAX_NUM_CPU_DEVICES or in
    XLA_FLAGS; a program of your own calls it before the first use of a device, and
    after `jax_num_cpu_devices` is set, if that asks for them. PJRT_NPROC, where it is
    set, stays.
    """
    pattern = r"--xla_force_host_platform_device_count=(\d+)"
    forced = re.findall(pattern, os.environ.get("XLA_FLAGS", ""))
    devices = max(jax.config.jax_num_cpu_devices, *map(int, forced), 1)
    if devices > 1:
        threads = max(os.cpu_count() or 1, 2 * devices)
        os.environ.setdefault("PJRT_NPROC", str(threads))
