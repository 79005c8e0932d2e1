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
    """Compile `step(state, batch) -> (state, metrics)` for the mesh.

    The step sees the whole batch, and XLA inserts the communication between devices.
    The state is donated: its buffers are reused. The batch is not, as no output has its
    shapes.

    Args:
        step: takes a batch whose leaves all have the batch axis first.
        mesh: devices that the batch is split over.
        shardings: of the state, from `state_shardings`, before and after the step;
            None: replicated.
    """
    if shardings is None:
        shardings = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, split(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def pmap_step(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compile a step on one device's part of the batch, with `jax.pmap`.

    For compatibility: JAX has pmap in maintenance mode, and since 0.10 it is a wrapper
    around `jax.jit` and `jax.shard_map`. Prefer `jit_step`.

    The step has to reduce over the mesh's axis, `data`, so that its state and metrics
    are the same on every device.

    Args:
        step: as for `jit_step`, but on a part of the batch.
        mesh: devices that the batch is split over; of one process.

    Returns:
        `(state, batch) -> (state, metrics)`, where the state is replicated and donated,
        and the batch `[b, ...]` is split over the devices.

    Raises:
        ValueError: for devices of several processes; when called, for a batch that
            cannot be split evenly.
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
        # The parts are the devices' own rows: no data moves.
        parts = jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch)
        return mapped(state, parts)

    # jit around the pmap, so that splitting the batch is not a separate program.
    return jit_step(run, mesh)


def jit_predict(predict: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compile `predict(variables, batch) -> outputs` for the mesh.

    Variables may be replicated or divided over the devices; divided ones are gathered.
    """

    def whole(variables: Tree, batch: Tree) -> Tree:
        everywhere = jax.lax.with_sharding_constraint(variables, replicated(mesh))
        return predict(everywhere, batch)

    return jax.jit(
        whole,
        in_shardings=(None, split(mesh)),
        out_shardings=replicated(mesh),
    )
