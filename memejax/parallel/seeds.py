"""Seeds of small models side by side on the devices."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from memejax.parallel.meshes import mesh

Tree = Any


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
