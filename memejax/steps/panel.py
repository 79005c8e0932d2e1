"""The collapse panel of a step: measures of its outputs, computed every n steps."""

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
    """Schedule of the collapse panel.

    Attributes:
        every: period in steps; at other steps the measures are NaN.
        branch: whether other steps skip the work, by a branch in the program. It must
            be False on several CPU devices: there XLA runs a branch's collectives
            concurrently with others, sometimes in a different order on each device,
            which deadlocks (see `parallel.can_branch`).
    """

    every: int = 1
    branch: bool = True

    def compute(
        self, measure: Callable[[Any], Metrics], operands: Any, *, step: jax.Array
    ) -> Metrics:
        """Return `measure(operands)` every `every` steps, else NaN of equal shapes."""
        if self.every == 1:
            return measure(operands)
        due = step % self.every == 0
        if not self.branch:
            return jax.tree.map(lambda x: jnp.where(due, x, jnp.nan), measure(operands))
        shapes = jax.eval_shape(measure, operands)
        nans = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        return jax.lax.cond(due, measure, lambda _: nans, operands)


EVERY_STEP = Panel()


def collapse_metrics(
    outputs: Mapping[str, jax.Array],
    weight: jax.Array,
    *,
    step: jax.Array,
    panel: Panel,
    axis_name: str | None = None,
) -> Metrics:
    """Compute `collapse/<arm>/<measure>` of every arm's outputs `[b, d]`.

    All are NaN at steps without a panel.
    """

    def measure(operands):
        outputs, weight = operands
        return {
            f"collapse/{arm}/{name}": value
            for arm, z in outputs.items()
            for name, value in losses.collapse_panel(
                z, where=weight > 0, axis_name=axis_name
            ).items()
        }

    return panel.compute(measure, (outputs, weight), step=step)
