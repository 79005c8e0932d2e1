"""The collapse panel of a step: figures of its outputs, computed now and then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from memejax import losses

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Panel:
    """When a step computes its collapse panel.

    Attributes:
        every: at every so many steps; at the others its figures are NaN.
        branch: whether other steps save the work, in a branch of the program. On
            several CPU devices it has to be False: XLA there runs a branch's
            collectives beside the others, now and then in another order on each device,
            and then none ends (see `parallel.can_branch`).
    """

    every: int = 1
    branch: bool = True

    def compute(
        self, compute: Callable[[Any], Metrics], operands: Any, *, step: jax.Array
    ) -> Metrics:
        """`compute(operands)` at its steps, NaN of the same shapes at others."""
        if self.every == 1:
            return compute(operands)
        now = step % self.every == 0
        if not self.branch:
            return jax.tree.map(lambda x: jnp.where(now, x, jnp.nan), compute(operands))
        shapes = jax.eval_shape(compute, operands)
        absent = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        return jax.lax.cond(now, compute, lambda _: absent, operands)


EVERY_STEP = Panel()


def collapse_metrics(
    outputs: Mapping[str, jax.Array],
    weight: jax.Array,
    *,
    step: jax.Array,
    panel: Panel,
    axis_name: str | None = None,
) -> Metrics:
    """The collapse panel of every arm's outputs [b, d], as `collapse/<arm>/<figure>`.

    NaN at steps at which it is not computed.
    """

    def compute(operands):
        outputs, weight = operands
        return {
            f"collapse/{arm}/{name}": value
            for arm, z in outputs.items()
            for name, value in losses.collapse_panel(
                z, where=weight > 0, axis_name=axis_name
            ).items()
        }

    return panel.compute(compute, (outputs, weight), step=step)
