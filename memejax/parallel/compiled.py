"""Steps compiled for all devices of a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from memejax.parallel.meshes import replicated, split


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


def jit_predict(predict: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compiles `predict(variables, batch) -> outputs` for the mesh."""
    return jax.jit(
        predict,
        in_shardings=(replicated(mesh), split(mesh)),
        out_shardings=replicated(mesh),
    )
