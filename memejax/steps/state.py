"""Everything that a run computes, as arrays, and an average of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memejax import optim

Tree = Any


class State(struct.PyTreeNode):
    """Everything that a run computes, as arrays.

    Attributes:
        step: int32 [], updates done.
        params: the model's parameters.
        batch_stats: running statistics of its BatchNorms, {} without any.
        opt_state: the optimizer's.
        key: PRNG key of the run.
        average: average of the parameters over the run, {} where none is kept.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array
    average: Tree

    def weights(self) -> dict[str, Tree]:
        """The variables that are evaluated, fine-tuned and exported."""
        params = self.average if self.average else self.params
        return {"params": params, "batch_stats": self.batch_stats}


@dataclasses.dataclass(frozen=True)
class Averaging:
    """An average of the parameters beside the ones that are trained.

    BatchNorm's running statistics are those of the trained parameters.

    Attributes:
        kind: "ema", an exponential moving average, or "swa", the mean over updates.
        momentum: of "ema", in [0, 1].
        start: updates before the average begins; until then it is the parameters.

    Raises:
        ValueError: for an unknown kind, or a number out of its range.

    References:
        Izmailov et al., Averaging weights leads to wider optima, 1803.05407.
    """

    kind: str
    momentum: float = 0.999
    start: int = 0

    def __post_init__(self):
        if self.kind not in ("ema", "swa"):
            raise ValueError(f"averaging must be 'ema' or 'swa', got {self.kind!r}")
        if not 0 <= self.momentum <= 1 or self.start < 0:
            raise ValueError(
                "averaging takes a momentum in [0, 1] and a start of at least 0, got "
                f"{self.momentum} and {self.start}"
            )

    def update(self, average: Tree, params: Tree, *, step: jax.Array) -> Tree:
        """The average after the update that ended `step` (from 0) with `params`."""
        count = jnp.maximum(step - self.start, 0).astype(jnp.float32)
        if self.kind == "swa":
            return optim.swa(average, params, count=count)
        momentum = jnp.where(step < self.start, 0.0, self.momentum)
        return optim.ema(average, params, momentum=momentum)


def init_state(
    variables: Mapping[str, Tree],
    tx: optax.GradientTransformation,
    *,
    key: jax.Array,
    averaging: Averaging | None = None,
) -> State:
    """A state before the first update."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(variables["params"]),
        key=key,
        # A copy: a buffer cannot be donated twice.
        average=(
            {} if averaging is None else jax.tree.map(jnp.copy, variables["params"])
        ),
    )
