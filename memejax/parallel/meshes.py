"""Meshes of devices."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh


def mesh(n_devices: int | None = None, *, own: bool = False) -> Mesh:
    """Make a mesh of one axis, `data`, over the devices of all processes, in order.

    Args:
        n_devices: number of devices per process, its first ones; None: all.
        own: whether to use only this process's devices.

    Raises:
        ValueError: if a process has fewer devices.
    """
    everyone = [jax.process_index()] if own else range(jax.process_count())
    devices = []
    for process in everyone:
        has = [d for d in jax.devices() if d.process_index == process]
        if n_devices is not None and not 1 <= n_devices <= len(has):
            owner = "this machine" if len(everyone) == 1 else f"process {process}"
            raise ValueError(f"asked for {n_devices} devices, {owner} has {len(has)}")
        devices += has[:n_devices]
    # Auto: under the default, Explicit, gathers and segment sums of sharded arrays
    # raise (jax 0.9 and later).
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def can_branch(mesh: Mesh) -> bool:
    """Whether a branch of a program (`lax.cond`) may contain collectives.

    Not on several CPU devices: XLA runs the parts of a program there as they become
    ready and keeps collectives in order except in branches, so one device may wait in a
    branch's collective while another waits in the next one outside it. After 40 seconds
    XLA aborts the process. On an accelerator a branch runs to its end.
    """
    return mesh.size == 1 or mesh.devices.flat[0].platform != "cpu"


def check_batch(mesh: Mesh, batch: int) -> None:
    """Raise ValueError if a batch cannot be split evenly over the devices."""
    if batch % mesh.size:
        raise ValueError(
            f"a batch of {batch} cannot be split evenly over {mesh.size} devices: "
            "change the batch or --config.parallel.devices"
        )


def own_rows(mesh: Mesh, batch: int) -> slice:
    """Return the slice of a batch's rows that is on this process's devices.

    Args:
        mesh: from `mesh`, with the same number of devices per process.
        batch: rows of all processes, a multiple of the mesh's size.
    """
    everyone = sorted({device.process_index for device in mesh.devices.flat})
    share, place = batch // len(everyone), everyone.index(jax.process_index())
    return slice(place * share, (place + 1) * share)
