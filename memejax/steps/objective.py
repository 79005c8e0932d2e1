"""Training objectives: a loss and the hooks that a step calls around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Tree = Any
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class LossAux(NamedTuple):
    """Auxiliary results of a loss.

    Attributes:
        stats: running statistics after the forward pass.
        parts: scalars to log, means over the batch like the loss.
        outputs: input of `StepObjective.reduce`; discarded after each part of a batch.
    """

    stats: Tree
    parts: Metrics
    outputs: Tree = ()


class Reduced(NamedTuple):
    """Reduced outputs of a batch.

    Attributes:
        kept: arrays whose leading axis is the batch; those of its parts are
            concatenated.
        sums: arrays that add up over the parts of a batch.
    """

    kept: Tree = ()
    sums: Tree = ()


class StepObjective:
    """Base class of objectives for `make_step`; only `loss` has no default.

    All methods are pure functions; `state` is the one before the update.
    """

    def prepare(self, batch: Batch) -> Batch:
        """Prepare a batch, for example by setting weight 0 without a label."""
        return batch

    def stats(self, state: Any) -> Tree:
        """Return the running statistics to pass through `loss`."""
        return state.batch_stats

    def loss(
        self,
        params: Tree,
        state: Any,
        *,
        stats: Tree,
        batch: Batch,
        keys: Mapping[str, jax.Array],
    ) -> tuple[jax.Array, LossAux]:
        """Compute the loss of a batch or a part of one, a scalar, and its aux.

        Args:
            params: parameters to differentiate with respect to.
            state: the rest of the state.
            stats: running statistics before the forward pass.
            batch: as returned by `prepare`.
            keys: PRNG keys `views`, `dropout` and `batch`.
        """
        raise NotImplementedError

    def reduce(self, state: Any, outputs: Tree, *, batch: Batch) -> Reduced:
        """Reduce the outputs of a batch, or of a part of one, before they are kept."""
        del state, batch
        return Reduced(kept=outputs)

    def measure(self, state: Any, reduced: Reduced, *, batch: Batch) -> Metrics:
        """Compute metrics of the whole batch, besides the loss and its parts."""
        del state, reduced, batch
        return {}

    def finish(self, state: Any, params: Tree, *, stats: Tree, reduced: Reduced) -> Any:
        """Return the next state, except its step and optimizer state.

        Args:
            state: state before the update.
            params: parameters after the update.
            stats: running statistics after the update.
            reduced: reduced outputs of the whole batch.
        """
        del reduced
        return state.replace(params=params, batch_stats=stats)
