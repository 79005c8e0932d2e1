"""Devices: the only file that names them.

A step is a pure function of (state, batch). Here it is compiled for all local
devices: the state is replicated, the batch is split over the axis `data`, and XLA
puts in the reductions, so BatchNorm and the losses are over the global batch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
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


def keep_compiled(folder: str | os.PathLike[str]) -> None:
    """Keeps compiled programs in a folder, for other seeds and for a resumed run.

    A folder that was named before, by this or by JAX_COMPILATION_CACHE_DIR, stays.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))


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


def jit_step(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compiles `step(state, batch) -> (state, metrics)` for the mesh.

    The state is donated: its buffers are written over. The batch is not (it has no
    output of its shapes to give its buffers to).
    """
    return jax.jit(
        step,
        in_shardings=(replicated(mesh), split(mesh)),
        out_shardings=(replicated(mesh), replicated(mesh)),
        donate_argnums=0,
    )


def devices_for_seeds(seeds: int, n_devices: int | None = None) -> Mesh:
    """A mesh over as many devices as the seeds can be split over evenly."""
    most = mesh(n_devices).size
    return mesh(max(n for n in range(1, most + 1) if seeds % n == 0))


def device_a_core() -> None:
    """Makes a CPU's cores devices of their own, one thread each.

    Small models run faster so: a seed a core, instead of threads that wait for each
    other within every product. Without effect on other backends, or where a number of
    CPU devices was set before (JAX_NUM_CPU_DEVICES).

    Raises:
      RuntimeError: if a device was used before.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    jax.config.update("jax_num_cpu_devices", os.cpu_count())


def jit_seeds(
    run: Callable[..., Any], mesh: Mesh, *, vectorize: bool, donate: bool
) -> Callable[..., Any]:
    """Compiles `run(state, rows, data)` of one seed for all seeds at once.

    The seeds are split over the devices. A device has its own one after another, or
    as one batch (`vectorize`), which pays on an accelerator and not on a CPU.

    Args:
      run: pure function of one seed.
      mesh: of the devices.
      vectorize: whether a device's seeds are one batch.
      donate: whether the state's buffers are written over.

    Returns:
      The same function of a state and rows with a leading axis of seeds, and of the
      data, which all seeds share; so has its result.
    """

    def of_a_device(states: Tree, rows: Tree, data: Tree) -> Tree:
        def one(pair: tuple[Tree, Tree]) -> Tree:
            return run(*pair, data)

        over = jax.vmap(one) if vectorize else functools.partial(jax.lax.map, one)
        return over((states, rows))

    seeds, everything = PartitionSpec("data"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            of_a_device,
            mesh=mesh,
            in_specs=(seeds, seeds, everything),
            out_specs=seeds,
            # Nothing couples the seeds: there is nothing to check.
            check_vma=False,
        ),
        donate_argnums=0 if donate else (),
    )


def jit_predict(predict: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compiles `predict(variables, batch) -> outputs` for the mesh."""
    return jax.jit(
        predict,
        in_shardings=(replicated(mesh), split(mesh)),
        out_shardings=replicated(mesh),
    )
