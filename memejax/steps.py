"""Training steps: pure functions of (state, batch), made from callables.

    step = make_cass_step(apply_fn, tx, objective=..., make_views=...)
    state, metrics = jax.jit(step, donate_argnums=0)(state, batch)

`apply_fn` and `tx` live in the closure and `State` holds arrays only, so a state can
be stacked and vmapped. Randomness is `fold_in(key, step)`; what is an example's own
(its augmentation) derives from (key, index, draw), so that a resumed run, another
batch size or another number of devices draws the same views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from memejax import losses
from memejax.views import Views

Tree = Any
Batch = Mapping[str, jax.Array]
Step = Callable[[Any, Batch], tuple[Any, dict[str, jax.Array]]]


class State(struct.PyTreeNode):
    """Everything that a run computes, as arrays.

    Attributes:
      step: int32 [], updates done.
      params: the model's parameters.
      batch_stats: running statistics of its BatchNorms, {} without any.
      opt_state: the optimizer's.
      key: PRNG key of the run.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array


def init_state(
    variables: Mapping[str, Tree], tx: optax.GradientTransformation, *, key: jax.Array
) -> State:
    """A state before the first update."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(variables["params"]),
        key=key,
    )


@dataclasses.dataclass(frozen=True)
class CassObjective:
    """The multimodal CASS loss and what keeps it from collapsing.

    As published everything but the cosine is off. Then a constant output is a
    minimiser, and with trainable heads and identical inputs it is what training
    finds.

    Attributes:
      standardize: outputs standardised over the batch before everything else, so
        that the covariance term is one on correlations.
      variance: weight of the variance term (VICReg's) of each arm.
      covariance: weight of the covariance term of each arm.
      stop_gradient: each arm's prediction follows the other's output held constant
        (SimSiam), instead of gradients to both.
    """

    standardize: bool = False
    variance: float = 0.0
    covariance: float = 0.0
    stop_gradient: bool = False


def cass_loss(
    outputs: Mapping[str, tuple[jax.Array, jax.Array]],
    weight: jax.Array,
    *,
    objective: CassObjective,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scalar: the objective over all pairs of arms, and its parts.

    Args:
      outputs: arm -> (output z, prediction of the other arm's), each [b, d].
      weight: float32 [b]; 0 masks an example.
      objective: which terms, and how heavy.
      axis_name: device axis that the batch is split over, under pmap.

    Returns:
      The scalar loss, and `cass`, `variance`, `covariance` as they went into it.

    Raises:
      ValueError: unless there are exactly two arms.
    """
    if len(outputs) != 2:
        raise ValueError(f"CASS compares two arms, got {sorted(outputs)}")
    where = weight > 0

    def prepared(z: jax.Array) -> jax.Array:
        if objective.standardize:
            return losses.standardize(z, where=where, axis_name=axis_name)
        return z

    a, b = sorted(outputs)
    z = {arm: prepared(output) for arm, (output, _) in outputs.items()}
    if objective.stop_gradient:
        p = {arm: prepared(prediction) for arm, (_, prediction) in outputs.items()}
        pair = 0.5 * (
            losses.negative_cosine(p[a], z[b]) + losses.negative_cosine(p[b], z[a])
        )
    else:
        pair = losses.cass(z[a], z[b])
    parts = {"cass": losses.weighted_mean(pair, weight)}
    total = parts["cass"]
    if objective.variance or objective.covariance:
        # On the prepared outputs: of raw ones the covariance goes to 0 by making
        # them small, and standardising then makes one shared direction large again.
        spreads = [
            losses.variance_covariance(z[arm], where=where, axis_name=axis_name)
            for arm in (a, b)
        ]
        parts["variance"] = spreads[0][0] + spreads[1][0]
        parts["covariance"] = spreads[0][1] + spreads[1][1]
        total = (
            total
            + objective.variance * parts["variance"]
            + objective.covariance * parts["covariance"]
        )
    return total, parts


def make_cass_step(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    objective: CassObjective,
    views: Callable[..., Views],
    accumulate: int = 1,
    panel_every: int = 1,
    learning_rates: Callable[..., dict[str, jax.Array]] | None = None,
) -> Step:
    """One update of multimodal CASS.

    Args:
      apply_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: (z, p)},
        new variables)`.
      tx: the optimizer; its update is given `value=loss`.
      objective: the loss.
      views: see `views.make_views`.
      accumulate: parts that a batch is worked on in; statistics over the batch are
        then over a part.
      panel_every: the collapse panel is computed at every so many steps, and is NaN
        at the others.
      learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.

    Returns:
      `step(state, batch) -> (state, metrics)`.
    """

    def loss_fn(params, batch_stats, batch, key):
        made = views(key["views"], batch, train=True, step_key=key["batch"])
        outputs, new = apply_fn(
            {"params": params, "batch_stats": batch_stats},
            made,
            train=True,
            rngs={"dropout": key["dropout"]},
            mutable=["batch_stats"],
        )
        loss, parts = cass_loss(outputs, batch["weight"], objective=objective)
        out = {name: z for name, (z, _) in outputs.items()}
        return loss, (new.get("batch_stats", {}), parts, out)

    def panel(step, outputs, weight):
        def compute(operands):
            outputs, weight = operands
            return {
                f"collapse/{arm}/{name}": value
                for arm, z in outputs.items()
                for name, value in losses.collapse_panel(z, where=weight > 0).items()
            }

        operands = (outputs, weight)
        shapes = jax.eval_shape(compute, operands)
        absent = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        return jax.lax.cond(
            step % panel_every == 0, compute, lambda _: absent, operands
        )

    def extra(state, outputs, batch):
        return panel(state.step, outputs, batch["weight"])

    return _make_step(loss_fn, tx, accumulate, learning_rates, extra)


def make_supervised_step(
    apply_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    views: Callable[..., Views],
    positive_weight: float = 1.0,
    accumulate: int = 1,
    learning_rates: Callable[..., dict[str, jax.Array]] | None = None,
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

    Returns:
      `step(state, batch) -> (state, metrics)`.
    """

    def loss_fn(params, batch_stats, batch, key):
        made = views(key["views"], batch, train=True, step_key=key["batch"])
        logits, new = apply_fn(
            {"params": params, "batch_stats": batch_stats},
            made,
            train=True,
            rngs={"dropout": key["dropout"]},
            mutable=["batch_stats"],
        )
        known = batch["label"] >= 0
        weight = batch["weight"] * known
        parts = {}
        for arm, logit in logits.items():
            each = losses.binary_cross_entropy(
                logit, batch["label"], positive_weight=positive_weight, where=known
            )
            parts[f"bce/{arm}"] = losses.weighted_mean(each, weight)
        loss = sum(parts.values())
        return loss, (new.get("batch_stats", {}), parts, {})

    return _make_step(loss_fn, tx, accumulate, learning_rates, None)


def make_predict(apply_fn: Callable[..., Any], *, views: Callable[..., Views]):
    """A function (variables, batch) -> what `apply_fn` gives an arm, not training."""

    def predict(variables: Mapping[str, Tree], batch: Batch):
        return apply_fn(variables, views(None, batch, train=False), train=False)

    return predict


def scan_steps(step: Step) -> Step:
    """Many updates in one call: `step` over the leading axis of every batch leaf.

    Returns:
      `(state, batches [n, ...]) -> (state, metrics [n, ...])`.
    """

    def run(state: State, batches: Batch):
        return jax.lax.scan(step, state, batches)

    return run


def _make_step(loss_fn, tx, accumulate, learning_rates, extra) -> Step:
    """The part that all objectives share: gradients, update, metrics."""

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        keys = {
            # An example's views do not depend on the step it falls into.
            "views": jax.random.fold_in(state.key, 0),
            "dropout": jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
            "batch": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step),
        }
        loss, (batch_stats, parts, outputs), gradients = _gradients(
            loss_fn, state, batch, keys, accumulate
        )
        updates, opt_state = tx.update(
            gradients, state.opt_state, state.params, value=loss
        )
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), **parts}
        if learning_rates is not None:
            rates = learning_rates(opt_state, state.step)
            metrics |= {f"lr/{group}": rate for group, rate in rates.items()}
        if extra is not None:
            metrics |= extra(state, outputs, batch)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new, metrics

    return step


def _gradients(loss_fn, state, batch, keys, accumulate):
    """Loss, aux and gradients, over `accumulate` parts of the batch one by one."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, aux), gradients = value_and_grad(
            state.params, state.batch_stats, batch, keys
        )
        return loss, aux, gradients

    size = batch["weight"].shape[0]
    if size % accumulate:
        raise ValueError(f"a batch of {size} cannot be worked on in {accumulate} parts")
    # Interleaved, so that a batch split over devices stays split evenly.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )

    def body(carry, part):
        batch_stats, gradients, number = carry
        part_keys = keys | {"dropout": jax.random.fold_in(keys["dropout"], number)}
        (loss, aux), new = value_and_grad(state.params, batch_stats, part, part_keys)
        # Each loss is a mean over its part's weights: weigh it by their share.
        share = part["weight"].sum() / jnp.maximum(batch["weight"].sum(), 1e-12)
        gradients = jax.tree.map(lambda g, n: g + share * n, gradients, new)
        scaled = jax.tree.map(lambda x: share * x, (loss, aux[1]))
        return (aux[0], gradients, number + 1), (scaled, aux[2])

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (batch_stats, gradients, _), ((loss, named), outputs) = jax.lax.scan(
        body, (state.batch_stats, zeros, 0), parts
    )
    loss, named = jax.tree.map(lambda x: x.sum(0), (loss, named))
    outputs = jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), outputs
    )
    return loss, (batch_stats, named, outputs), gradients
