"""The parts of a step that all objectives share: gradients, update, prediction."""

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
    """A function `(variables, batch) -> {arm: outputs}` of `apply_fn`, not training."""

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


def gather_steps(step: Step) -> Callable[..., Any]:
    """Many updates in one call, each on the rows of the data that a plan lists.

    Args:
        step: `(state, batch) -> (state, metrics)`.

    Returns:
        `(state, rows, data) -> (state, metrics [n])`: `rows` holds `index`, `weight`
        and `draw`, each `[n, b]`, and `data` arrays whose leading axis `index` counts.
    """

    def run(state: Any, rows: Batch, data: Mapping[str, jax.Array]):
        def one(state: Any, row: Batch):
            batch = {name: column[row["index"]] for name, column in data.items()}
            return step(state, batch | dict(row))

        return jax.lax.scan(one, state, dict(rows))

    return run


def make_step(
    objective: StepObjective,
    tx: optax.GradientTransformationExtraArgs,
    *,
    accumulate: int = 1,
    learning_rates: Callable[..., Metrics] | None = None,
    axis_name: str | None = None,
) -> Step:
    """One update of any objective.

    Under pmap a step works on its device's part of the batch. Its loss is then that of
    the whole batch on every device, so that a device's gradient is as many times its
    own examples' share of the whole gradient as there are devices: their mean is it.
    Dropout masks are a device's own there, so other ones than under jit.

    Args:
        objective: what is minimised, and what is computed around it.
        tx: the optimizer; its update receives `value=loss`.
        accumulate: parts that a batch is worked on in; statistics over the batch are
            then over a part, and of a part's outputs only what `objective.reduce`
            returns outlives it.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        axis_name: device axis that the batch is split over, under pmap; None: a step is
            of the whole batch.

    Returns:
        `step(state, batch) -> (state, metrics)`.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        batch = objective.prepare(batch)
        found = _of_parts(
            objective,
            state,
            batch=batch,
            keys=_keys(state, axis_name),
            accumulate=accumulate,
            axis_name=axis_name,
        )
        loss, parts, gradients, _ = found.totals
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
        reduced = Reduced(found.kept, found.totals.sums)
        with jax.named_scope("<metrics>"):
            metrics |= objective.measure(state, reduced, batch=batch)
        new = objective.finish(state, params, stats=found.stats, reduced=reduced)
        return new.replace(step=state.step + 1, opt_state=opt_state), metrics

    return step


def _keys(state: Any, axis_name: str | None) -> dict[str, jax.Array]:
    """A step's PRNG keys: `views`, `dropout` and `batch`."""
    keys = {
        # An example's views do not depend on the step it falls into.
        "views": jax.random.fold_in(state.key, 0),
        "dropout": jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
        "batch": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step),
    }
    if axis_name is not None:
        place = jax.lax.axis_index(axis_name)
        keys["dropout"] = jax.random.fold_in(keys["dropout"], place)
    return keys


class _Totals(NamedTuple):
    """Sums over the parts of a batch; means are weighed by the parts' shares."""

    loss: jax.Array
    parts: Metrics
    gradients: Tree
    sums: Tree


class _Found(NamedTuple):
    """All that an update needs of a batch, or of a part of one."""

    totals: _Totals
    stats: Tree
    kept: Tree


def _of_part(
    objective: StepObjective, state: Any, stats: Tree, *, batch: Batch, keys: Any
) -> _Found:
    """The loss of a batch, its gradient, and its outputs as they are reduced."""
    (loss, aux), gradients = jax.value_and_grad(objective.loss, has_aux=True)(
        state.params, state, stats=stats, batch=batch, keys=keys
    )
    with jax.named_scope("<metrics>"):
        kept, sums = objective.reduce(state, aux.outputs, batch=batch)
    return _Found(_Totals(loss, aux.parts, gradients, sums), aux.stats, kept)


def _of_parts(
    objective: StepObjective,
    state: Any,
    *,
    batch: Batch,
    keys: dict[str, jax.Array],
    accumulate: int,
    axis_name: str | None,
) -> _Found:
    """The same, worked on in `accumulate` parts of the batch, one after another."""
    if accumulate == 1:
        stats = objective.stats(state)
        return _of_part(objective, state, stats, batch=batch, keys=keys)
    size = batch["weight"].shape[0]
    if size % accumulate:
        raise ValueError(f"a batch of {size} cannot be worked on in {accumulate} parts")
    # Interleaved, so that a batch split over devices stays split evenly.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    whole = sum_over_axis(batch["weight"].sum(), axis_name)

    def body(carry: tuple[Tree, _Totals, jax.Array], part: Batch):
        stats, totals, number = carry
        part_keys = keys | {"dropout": jax.random.fold_in(keys["dropout"], number)}
        found = _of_part(objective, state, stats, batch=part, keys=part_keys)
        # Each loss is a mean over its part's weights: weigh it by their share.
        mass = sum_over_axis(part["weight"].sum(), axis_name)
        share = mass / jnp.maximum(whole, 1e-12)
        added = jax.tree.map(lambda x: share * x, found.totals)
        added = added._replace(sums=found.totals.sums)
        totals = jax.tree.map(jnp.add, totals, added)
        return (found.stats, totals, number + 1), found.kept

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
    return _Found(totals, stats, kept)
