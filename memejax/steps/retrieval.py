"""Training of a head by cross-entropy and retrieval-guided contrastive learning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax import losses
from memejax.steps.objective import LossAux, StepObjective
from memejax.steps.update import gather_steps, make_step

Tree = Any
# Of the two losses, as in RGCL's code.
CE_WEIGHT = 0.5
# Neighbours among which its code looks for positive and negative.
WITHIN = 12


def make_retrieval_epoch(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    positive_weight: float = 1.0,
    within: int | None = WITHIN,
) -> Callable[..., Any]:
    """Make one epoch of RGCL: mine neighbours of all examples, then train on batches.

    At the start of the epoch all training examples are embedded without dropout. Each
    example's positive and hard negative are the nearest of its own and of the other
    label, itself excluded, and stay for the epoch. The loss is

        CE_WEIGHT bce + (1 - CE_WEIGHT) rgcl_hinge

    No gradient flows into the mined embeddings. In the published code it does at the
    first step of each epoch, and an example is usually its own positive.

    Args:
        apply_fn: `(variables, inputs, train=, rngs=, mutable=) -> ((logits [b],
            embeddings [b, d]), new variables)`.
        tx: the optimizer; its update receives `value=loss`.
        positive_weight: weight of the positive class in the cross-entropy.
        within: neighbours among which both are looked for; None: all.

    Returns:
        `(state, rows, data) -> (state, metrics [n])`, as of `gather_steps`; `rows` has
        `member` too, bool [m], which rows of the data are training examples.

    References:
        Mei et al. 2024, Improving hateful meme detection through retrieval-guided
        contrastive learning, arXiv:2311.08110, section 3.
    """
    steps = gather_steps(make_step(_Retrieval(apply_fn, positive_weight), tx))

    def run(state: Any, rows: Mapping[str, jax.Array], data: Mapping[str, jax.Array]):
        plan = {k: v for k, v in rows.items() if k != "member"}
        (_, embeddings), _ = apply_fn(
            state.weights(), data, train=False, mutable=["batch_stats"]
        )
        labels = jnp.where(rows["member"], data["label"], -1)
        found = losses.mine(
            embeddings,
            embeddings,
            query_labels=labels,
            store_labels=labels,
            query_index=jnp.arange(len(labels)),
            within=within,
        )
        mined = {
            "positive": jax.lax.stop_gradient(embeddings[found.positive]),
            "negative": jax.lax.stop_gradient(embeddings[found.negative]),
            "has_positive": found.has_positive,
            "has_negative": found.has_negative,
        }
        return steps(state, plan, {**data, **mined})

    return run


@dataclasses.dataclass(frozen=True)
class _Retrieval(StepObjective):
    """Cross-entropy and hinge; the arguments of `make_retrieval_epoch`."""

    apply_fn: Callable[..., Any]
    positive_weight: float

    def loss(self, params, state, *, stats, batch, keys):
        """Compute the weighted sum of both losses, and each of them."""
        del state
        (logits, embeddings), new = self.apply_fn(
            {"params": params, "batch_stats": stats},
            batch,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        where = batch["label"] >= 0
        parts = {
            "bce": losses.binary_cross_entropy(
                logits,
                batch["label"],
                positive_weight=self.positive_weight,
                where=where,
            ),
            "rgcl": losses.rgcl_hinge(
                embeddings,
                batch["label"],
                positives=batch["positive"],
                negatives=batch["negative"],
                where_positive=batch["has_positive"],
                where_negative=batch["has_negative"],
                where=where,
            ),
        }
        means = {
            name: losses.weighted_mean(values, batch["weight"])
            for name, values in parts.items()
        }
        loss = CE_WEIGHT * means["bce"] + (1 - CE_WEIGHT) * means["rgcl"]
        return loss, LossAux(new.get("batch_stats", {}), means)
