"""Supervised learning of every arm at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from memejax import losses
from memejax.steps.update import Metrics, Step, make_step
from memejax.views import Views


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
    """One update of supervised learning: the arms' binary cross entropies, summed.

    Arms that share no parameter are so trained as if each were alone.

    Args:
      apply_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: logits [b]},
        new variables)`.
      tx: the optimizer; its update is given `value=loss`.
      views: see `views.make_views`.
      positive_weight: of the positive class in the loss.
      accumulate: parts that a batch is worked on in.
      learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
      axis_name: device axis that the batch is split over, under pmap; `apply_fn` has
        to know it too.

    Returns:
      `step(state, batch) -> (state, metrics)`.
    """

    def loss_fn(params, batch_stats, batch, keys, _):
        with jax.named_scope("<views>"):
            made = views(keys["views"], batch, train=True, step_key=keys["batch"])
        logits, new = apply_fn(
            {"params": params, "batch_stats": batch_stats},
            made,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        parts = {}
        with jax.named_scope("<loss>"):
            for arm, logit in logits.items():
                each = losses.binary_cross_entropy(
                    logit,
                    batch["label"],
                    positive_weight=positive_weight,
                    where=batch["label"] >= 0,
                )
                parts[f"bce/{arm}"] = losses.weighted_mean(
                    each, batch["weight"], axis_name=axis_name
                )
        loss = sum(parts.values())
        return loss, (new.get("batch_stats", {}), parts, {})

    def only_labelled(batch):
        return dict(batch, weight=batch["weight"] * (batch["label"] >= 0))

    return make_step(
        loss_fn,
        tx,
        accumulate=accumulate,
        learning_rates=learning_rates,
        prepare=only_labelled,
        axis_name=axis_name,
    )
