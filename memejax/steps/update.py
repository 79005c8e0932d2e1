"""The parts of a step shared by all objectives: gradients, update, prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from memejax.losses.reductions import sum_over_axis
from memejax.steps.objective import Batch, Metrics, Reduced, StepObjective
from memejax.steps.state import State
from memejax.steps.views import Views

Tree = Any
Step = Callable[[Any, Batch], tuple[Any, Metrics]]


def make_predict(apply_fn: Callable[..., Any], *, views: Callable[..., Views]):
    """Make `(variables, batch) -> {arm: outputs}` from `apply_fn`, for evaluation."""

    def predict(variables: Mapping[str, Tree], batch: Batch):
        return apply_fn(variables, views(None, batch, train=False), train=False)

    return predict


def scan_steps(step: Step) -> Step:
    """Make a function that scans `step` over the leading axis of every batch leaf.

    Returns:
        `(state, batches [n, ...]) -> (state, metrics [n, ...])`.
    """

    def run(state: State, batches: Batch):
        return jax.lax.scan(step, state, batches)

    return run


def gather_steps(step: Step) -> Callable[..., Any]:
    """Make a function that scans `step` over batches gathered from data by a plan.

    Args:
        step: `(state, batch) -> (state, metrics)`.

    Returns:
        `(state, rows, data) -> (state, metrics [n])`: `rows` has `index`, `weight` and
        `draw`, each `[n, b]`, and `index` selects along the leading axis of the arrays
        in `data`.
    """

    def run(state: Any, rows: Batch, data: Mapping[str, jax.Array]):
        def gathered_step(state: Any, row: Batch):
            batch = {name: column[row["index"]] for name, column in data.items()}
            return step(state, batch | dict(row))

        return jax.lax.scan(gathered_step, state, dict(rows))

    return run


def make_step(
    objective: StepObjective,
    tx: optax.GradientTransformationExtraArgs,
    *,
    accumulate: int = 1,
    learning_rates: Callable[..., Metrics] | None = None,
    axis_name: str | None = None,
) -> Step:
    """Make the training step of any objective.

    Under pmap a step processes its device's part of the batch. The loss is that of the
    whole batch on every device, so a device's gradient is its examples' share of the
    whole gradient times the number of devices, and the mean over devices is the whole
    gradient. Dropout masks there differ by device, and so from those under jit.

    Args:
        objective: the loss and the hooks around it.
        tx: the optimizer; its update receives `value=loss`.
        accumulate: number of parts that a batch is processed in; batch statistics are
            then those of a part, and of a part's outputs only the result of
            `objective.reduce` is kept.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        axis_name: device axis over which the batch is split, under pmap; None if a step
            processes the whole batch.

    Returns:
        `step(state, batch) -> (state, metrics)`.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        batch = objective.prepare(batch)
        result = _compute_in_parts(
            objective,
            state,
            batch=batch,
            keys=_keys(state, axis_name),
            accumulate=accumulate,
            axis_name=axis_name,
        )
        loss, parts, gradients, _ = result.totals
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
        with jax.named_scope("<optimizer>"):
            updates, opt_state = tx.update(
                gradients, state.opt_state, state.params, value=loss
            )
            params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), **parts}
        if learning_rates is not None:
            rates = learning_rates(opt_state, state.step)
            metrics |= {f"lr/{group}": rate for group, rate in rates.items()}
        reduced = Reduced(result.kept, result.totals.sums)
        with jax.named_scope("<metrics>"):
            metrics |= objective.measure(state, reduced, batch=batch)
        new = objective.finish(state, params, stats=result.stats, reduced=reduced)
        return new.replace(step=state.step + 1, opt_state=opt_state), metrics

    return step


def _keys(state: Any, axis_name: str | None) -> dict[str, jax.Array]:
    """Derive a step's PRNG keys `views`, `dropout` and `batch`."""
    keys = {
        # An example's views do not depend on the step.
        "views": jax.random.fold_in(state.key, 0),
        "dropout": jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
        "batch": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step),
    }
    if axis_name is not None:
        device = jax.lax.axis_index(axis_name)
        keys["dropout"] = jax.random.fold_in(keys["dropout"], device)
    return keys


class _Totals(NamedTuple):
    """Sums over the parts of a batch; means are weighted by the parts' shares."""

    loss: jax.Array
    parts: Metrics
    gradients: Tree
    sums: Tree


class _Result(NamedTuple):
    """Results of a batch, or of a part of one, for an update."""

    totals: _Totals
    stats: Tree
    kept: Tree


def _compute(
    objective: StepObjective, state: Any, stats: Tree, *, batch: Batch, keys: Any
) -> _Result:
    """Compute the loss of a batch, its gradient, and its reduced outputs."""
    (loss, aux), gradients = jax.value_and_grad(objective.loss, has_aux=True)(
        state.params, state, stats=stats, batch=batch, keys=keys
    )
    with jax.named_scope("<metrics>"):
        kept, sums = objective.reduce(state, aux.outputs, batch=batch)
    return _Result(_Totals(loss, aux.parts, gradients, sums), aux.stats, kept)


def _compute_in_parts(
    objective: StepObjective,
    state: Any,
    *,
    batch: Batch,
    keys: dict[str, jax.Array],
    accumulate: int,
    axis_name: str | None,
) -> _Result:
    """Compute the same in `accumulate` parts of the batch, one after another."""
    if accumulate == 1:
        stats = objective.stats(state)
        return _compute(objective, state, stats, batch=batch, keys=keys)
    size = batch["weight"].shape[0]
    if size % accumulate:
        raise ValueError(f"a batch of {size} does not divide into {accumulate} parts")
    # Interleaved, so that a batch sharded over devices stays evenly sharded.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    whole = sum_over_axis(batch["weight"].sum(), axis_name)

    def body(carry: tuple[Tree, _Totals, jax.Array], part: Batch):
        stats, totals, number = carry
        part_keys = keys | {"dropout": jax.random.fold_in(keys["dropout"], number)}
        result = _compute(objective, state, stats, batch=part, keys=part_keys)
        # Each loss is a mean over its part's weights: weight it by their share.
        mass = sum_over_axis(part["weight"].sum(), axis_name)
        share = mass / jnp.maximum(whole, 1e-12)
        added = jax.tree.map(lambda x: share * x, result.totals)
        added = added._replace(sums=result.totals.sums)
        totals = jax.tree.map(jnp.add, totals, added)
        return (result.stats, totals, number + 1), result.kept

    def forward(part: Batch) -> _Totals:
        stats = objective.stats(state)
        loss, aux = objective.loss(
            state.params, state, stats=stats, batch=part, keys=keys
        )
        sums = objective.reduce(state, aux.outputs, batch=part).sums
        return _Totals(loss, aux.parts, state.params, sums)

    shapes = jax.eval_shape(forward, {name: x[0] for name, x in parts.items()})
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (stats, totals, _), kept = jax.lax.scan(
        body, (objective.stats(state), zeros, 0), parts
    )
    kept = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), kept)
    return _Result(totals, stats, kept)
