"""Supervised learning of one network on labelled pictures of several classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from memejax import losses
from memejax.steps.update import Metrics, Step, make_step


def make_classify_step(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    inputs: Callable[[jax.Array], jax.Array],
    learning_rates: Callable[..., Metrics] | None = None,
) -> Step:
    """One update of the weighted mean of the examples' cross entropies.

    Args:
      apply_fn: `(variables, images, train=, rngs=, mutable=) -> (logits [b, k], new
        variables)`.
      tx: the optimizer; its update is given `value=loss`.
      inputs: pictures as a batch has them -> what the network takes.
      learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.

    Returns:
      `step(state, batch) -> (state, metrics)`; a batch holds `image`, `label` and
      `weight`.
    """

    def loss_fn(params, batch_stats, batch, keys, _):
        logits, new = apply_fn(
            {"params": params, "batch_stats": batch_stats},
            inputs(batch["image"]),
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        loss = losses.weighted_mean(each, batch["weight"])
        return loss, (new.get("batch_stats", {}), {}, {})

    return make_step(loss_fn, tx, learning_rates=learning_rates)
