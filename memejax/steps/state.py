"""Training state, as arrays, and averaging of its weights."""

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
    """The training state, as arrays.

    Attributes:
        step: int32 scalar, the number of updates done.
        params: the model's parameters.
        batch_stats: running statistics of its BatchNorms, {} without any.
        opt_state: the optimizer's state.
        key: PRNG key of the run.
        average: average of the parameters over the run, {} if disabled.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array
    average: Tree

    def weights(self) -> dict[str, Tree]:
        """Return the variables for evaluation, fine-tuning and export."""
        params = self.average if self.average else self.params
        return {"params": params, "batch_stats": self.batch_stats}


@dataclasses.dataclass(frozen=True)
class Averaging:
    """Averaging of the trained parameters.

    BatchNorm's running statistics are those of the trained parameters.

    Attributes:
        kind: "ema", an exponential moving average, or "swa", the mean over updates.
        momentum: of "ema", in [0, 1].
        start: updates before averaging begins; until then the average equals the
            parameters.

    Raises:
        ValueError: for an unknown kind, or a number out of range.

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
                f"got momentum {self.momentum} and start {self.start}, expected a "
                "momentum in [0, 1] and a start of at least 0"
            )

    def update(self, average: Tree, params: Tree, *, step: jax.Array) -> Tree:
        """Update the average with the `params` after `step` (counted from 0)."""
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
    """Make the initial state, before the first update."""
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
