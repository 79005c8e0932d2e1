"""Steps compiled for all devices of a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from memejax.parallel.device_placement import replicated, split

Tree = Any


def jit_step(
    step: Callable[..., Any], mesh: Mesh, *, shardings: Tree | None = None
) -> Callable[..., Any]:
    """Compiles `step(state, batch) -> (state, metrics)` for the mesh.

    The step is of the whole batch, and XLA puts in what the devices tell each other.
    The state is donated: its buffers are written over. The batch is not (it has no
    output of its shapes to give its buffers to).

    Args:
        step: of a batch whose leaves all have its axis first.
        mesh: over which the batch is split.
        shardings: of the state, as `state_shardings` gives them, before and after the
            step; None: whole on every device.
    """
    where = replicated(mesh) if shardings is None else shardings
    return jax.jit(
        step,
        in_shardings=(where, split(mesh)),
        out_shardings=(where, replicated(mesh)),
        donate_argnums=0,
    )


def pmap_step(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The same from a step of a device's part of the batch, with `jax.pmap`.

    For compatibility: JAX has pmap in maintenance mode, and since 0.10 it is a wrapper
    around `jax.jit` and `jax.shard_map`. `jit_step` is what to use.

    The step names the mesh's axis, `data`, wherever its part has to become the whole;
    its state and metrics have to be the same on every device.

    Args:
        step: as `jit_step` takes it, but of a part.
        mesh: over which the batch is split; of one process.

    Returns:
        `(state, batch) -> (state, metrics)`: a state that every device holds whole, and
        is donated, and a batch `[b, ...]` that is split over the devices.

    Raises:
        ValueError: for devices of several processes; when called, for a batch that the
            devices do not divide.
    """
    if len({device.process_index for device in mesh.devices.flat}) > 1:
        raise ValueError(
            "pmap is for the devices of one process, got those of several: choose "
            "--config.parallel.mode=jit"
        )
    mapped = jax.pmap(
        step,
        axis_name=mesh.axis_names[0],
        in_axes=(None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )

    def run(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        # A device's rows are its part: nothing moves.
        parts = jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch)
        return mapped(state, parts)

    # Around the pmap, so that to take the batch apart is no program of its own.
    return jit_step(run, mesh)


def jit_predict(predict: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compiles `predict(variables, batch) -> outputs` for the mesh.

    Variables are taken as they lie, whole on every device or divided, and made whole.
    """

    def whole(variables: Tree, batch: Tree) -> Tree:
        everywhere = jax.lax.with_sharding_constraint(variables, replicated(mesh))
        return predict(everywhere, batch)

    return jax.jit(
        whole,
        in_shardings=(None, split(mesh)),
        out_shardings=replicated(mesh),
    )
