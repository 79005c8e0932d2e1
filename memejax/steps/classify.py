"""Supervised training of one network on labelled pictures of several classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from memejax import augment, losses
from memejax.steps.objective import LossAux, Metrics, StepObjective
from memejax.steps.update import Step, make_step


def make_classify_step(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    inputs: Callable[[jax.Array], jax.Array],
    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    learning_rates: Callable[..., Metrics] | None = None,
) -> Step:
    """Make a training step on the weighted mean of the cross-entropy.

    Args:
        apply_fn: `(variables, images, train=, rngs=, mutable=) -> (logits [b, k], new
            variables)`.
        tx: the optimizer; its update receives `value=loss`.
        inputs: maps pictures, float32 `[b, h, w, c]` in [0, 1], to the network's
            inputs.
        augmentation: `(keys [b], images) -> images` before that; an example's key
            derives from its index and draw. None disables it.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.

    Returns:
        `step(state, batch) -> (state, metrics)`; a batch holds `image` uint8, `label`
        and `weight`, and with augmentation `index` and `draw`.
    """

    objective = _Classify(apply_fn, inputs, augmentation)
    return make_step(objective, tx, learning_rates=learning_rates)


@dataclasses.dataclass(frozen=True)
class _Classify(StepObjective):
    """Cross-entropy of a network; the arguments of `make_classify_step`."""

    apply_fn: Callable[..., Any]
    inputs: Callable[[jax.Array], jax.Array]
    augmentation: Callable[[jax.Array, jax.Array], jax.Array] | None

    def loss(self, params, state, *, stats, batch, keys):
        """Compute the weighted mean of the cross-entropy."""
        del state
        images = augment.to_float(batch["image"])
        if self.augmentation is not None:
            own = augment.example_keys(keys["views"], batch["index"], batch["draw"], 0)
            images = self.augmentation(own, images)
        logits, new = self.apply_fn(
            {"params": params, "batch_stats": stats},
            self.inputs(images),
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        values = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        loss = losses.weighted_mean(values, batch["weight"])
        return loss, LossAux(new.get("batch_stats", {}), {})
