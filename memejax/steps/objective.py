"""An objective of training: the loss, and what a step computes around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Tree = Any
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class LossAux(NamedTuple):
    """All that a loss returns beside its value.

    Attributes:
        stats: running statistics after the forward pass.
        parts: scalars that are logged, means over the batch as the loss is.
        outputs: what `StepObjective.reduce` reads; does not outlive the part of a batch
            that it is of.
    """

    stats: Tree
    parts: Metrics
    outputs: Tree = ()


class Reduced(NamedTuple):
    """The part of a batch's outputs that is kept.

    Attributes:
        kept: arrays whose leading axis is the batch; those of its parts are joined.
        sums: arrays that add up over the parts of a batch.
    """

    kept: Tree = ()
    sums: Tree = ()


class StepObjective:
    """The base of objectives for `make_step`; only `loss` has no default.

    All are pure functions of their arguments; `state` is the one before the update.
    """

    def prepare(self, batch: Batch) -> Batch:
        """The batch as it counts, as with weight 0 for what has no label."""
        return batch

    def stats(self, state: Any) -> Tree:
        """The running statistics that go through `loss`."""
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
        """Scalar: the loss of a batch or of a part of one, and what comes with it.

        Args:
            params: the loss is differentiated with respect to them.
            state: everything else that is known.
            stats: running statistics before.
            batch: as `prepare` returns it.
            keys: PRNG keys `views`, `dropout` and `batch`.
        """
        raise NotImplementedError

    def reduce(self, state: Any, outputs: Tree, *, batch: Batch) -> Reduced:
        """Reduce the outputs of a batch, or of a part of one, to what is kept."""
        del state, batch
        return Reduced(kept=outputs)

    def measure(self, state: Any, reduced: Reduced, *, batch: Batch) -> Metrics:
        """Metrics, beside the loss and its parts, of the whole batch."""
        del state, reduced, batch
        return {}

    def finish(self, state: Any, params: Tree, *, stats: Tree, reduced: Reduced) -> Any:
        """The next state, but for its step and its optimizer's state.

        Args:
            state: before.
            params: after.
            stats: after.
            reduced: of the whole batch.
        """
        del reduced
        return state.replace(params=params, batch_stats=stats)
