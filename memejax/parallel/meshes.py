"""Meshes of devices, and arrays laid out over them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = Any


def mesh(n_devices: int | None = None) -> Mesh:
    """A mesh of one axis, `data`, over the first `n_devices` local devices.

    Raises:
      ValueError: if there are fewer devices than asked for.
    """
    devices = jax.local_devices()
    if n_devices is not None:
        if not 1 <= n_devices <= len(devices):
            raise ValueError(
                f"asked for {n_devices} devices, this machine has {len(devices)}"
            )
        devices = devices[:n_devices]
    # Auto: under the default, Explicit, gathers and segment sums of sharded arrays
    # raise (jax 0.9 and later).
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch(mesh: Mesh, batch: int) -> None:
    """Raises ValueError if a batch cannot be split evenly."""
    if batch % mesh.size:
        raise ValueError(
            f"a batch of {batch} cannot be split evenly over {mesh.size} devices: "
            "change the batch or --config.parallel.devices"
        )


def put_batch(mesh: Mesh, batch: Tree) -> Tree:
    """Starts the transfer of a host batch to its devices; does not wait for it."""
    return jax.device_put(batch, split(mesh))


def put_state(mesh: Mesh, state: Tree) -> Tree:
    """A copy of the state on every device; the caller's own survives donation."""
    # device_put alone may hand out the caller's own buffers.
    return jax.device_put(jax.tree.map(jnp.copy, state), replicated(mesh))
