"""Supervised training of all arms at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from memejax import losses
from memejax.steps.objective import LossAux, Metrics, StepObjective
from memejax.steps.update import Step, make_step
from memejax.steps.views import Views


def make_supervised_step(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    views: Callable[..., Views],
    positive_weight: float = 1.0,
    accumulate: int = 1,
    learning_rates: Callable[..., Metrics] | None = None,
    axis_name: str | None = None,
) -> Step:
    """Make a supervised training step on the sum of the arms' cross-entropies.

    Arms without shared parameters are thus trained as if each were alone.

    Args:
        apply_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: logits [b]},
            new variables)`.
        tx: the optimizer; its update receives `value=loss`.
        views: see `views.make_views`.
        positive_weight: weight of the positive class in the loss.
        accumulate: number of parts that a batch is processed in.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        axis_name: device axis over which the batch is split, under pmap; `apply_fn`
            must use the same.

    Returns:
        `step(state, batch) -> (state, metrics)`.
    """

    return make_step(
        _Supervised(apply_fn, views, positive_weight, axis_name),
        tx,
        accumulate=accumulate,
        learning_rates=learning_rates,
        axis_name=axis_name,
    )


@dataclasses.dataclass(frozen=True)
class _Supervised(StepObjective):
    """Binary cross-entropies of a model; the arguments of `make_supervised_step`."""

    apply_fn: Callable[..., Any]
    views: Callable[..., Views]
    positive_weight: float
    axis_name: str | None

    def prepare(self, batch):
        """Set the weight of unlabelled examples to 0."""
        return dict(batch, weight=batch["weight"] * (batch["label"] >= 0))

    def loss(self, params, state, *, stats, batch, keys):
        """Compute the sum of the arms' losses, and each loss."""
        del state
        with jax.named_scope("<views>"):
            views = self.views(keys["views"], batch, train=True, step_key=keys["batch"])
        logits, new = self.apply_fn(
            {"params": params, "batch_stats": stats},
            views,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        parts = {}
        with jax.named_scope("<loss>"):
            for arm, logit in logits.items():
                values = losses.binary_cross_entropy(
                    logit,
                    batch["label"],
                    positive_weight=self.positive_weight,
                    where=batch["label"] >= 0,
                )
                parts[f"bce/{arm}"] = losses.weighted_mean(
                    values, batch["weight"], axis_name=self.axis_name
                )
        return sum(parts.values()), LossAux(new.get("batch_stats", {}), parts)
