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
    """Make the largest mesh that the seeds can be split over evenly."""
    most = mesh(n_devices).size
    return mesh(max(n for n in range(1, most + 1) if seeds % n == 0))


def device_per_core() -> None:
    """Make each CPU core a device with one thread.

    Small models are faster with one seed per core than with threads that wait for each
    other within every product. No effect on other backends, or if the number of CPU
    devices was set before (JAX_NUM_CPU_DEVICES).

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
    """Compile `run(state, rows, data)` of one seed for all seeds at once.

    The seeds are split over the devices. A device runs its seeds one after another, or
    as one batch (`vectorize`), which is faster on an accelerator but not on a CPU.

    Args:
        run: pure function of one seed.
        mesh: the devices.
        vectorize: whether a device runs its seeds as one batch.
        donate: whether the state's buffers are reused.

    Returns:
        The same function with a leading axis of seeds on the state, the rows and the
        result; all seeds share the data.
    """

    def run_on_device(states: Tree, rows: Tree, data: Tree) -> Tree:
        def one(pair: tuple[Tree, Tree]) -> Tree:
            return run(*pair, data)

        over = jax.vmap(one) if vectorize else functools.partial(jax.lax.map, one)
        return over((states, rows))

    seeds, everything = PartitionSpec("data"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            run_on_device,
            mesh=mesh,
            in_specs=(seeds, seeds, everything),
            out_specs=seeds,
            # The seeds are independent: nothing to check.
            check_vma=False,
        ),
        donate_argnums=0 if donate else (),
    )
