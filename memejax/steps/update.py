"""What all objectives share: gradients, the update, prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax.steps.state import State
from memejax.views import Views

Tree = Any
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[Any, Batch], tuple[Any, Metrics]]


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


def gather_steps(step: Step) -> Callable[..., Any]:
    """Many updates in one call, each on the rows of the data that a plan names.

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
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    accumulate: int = 1,
    learning_rates: Callable[..., Metrics] | None = None,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    stats: Callable[[Any], Tree] = lambda state: state.batch_stats,
    finish: Callable[..., Any] = lambda state, params, stats, outputs, batch: (
        state.replace(params=params, batch_stats=stats)
    ),
    measure: Callable[..., Metrics] = lambda state, outputs, batch: {},
    axis_name: str | None = None,
) -> Step:
    """One update of any objective.

    Under pmap a step works on its device's part of the batch. Its loss is then that of
    the whole batch on every device, so that a device's gradient is as many times its
    own examples' share of the whole gradient as there are devices: their mean is it.
    Dropout masks are a device's own there, so other ones than under jit.

    Args:
      loss_fn: `(params, stats, batch, keys, state) -> (loss, (stats, parts,
        outputs))`: a scalar loss, its named parts, and outputs whose every leaf has
        the batch's leading axis. `keys` holds `views`, `dropout` and `batch`.
      tx: the optimizer; its update is given `value=loss`.
      accumulate: parts that a batch is worked on in; statistics over the batch are
        then over a part.
      learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
      prepare: what is done to a batch first, as giving weight 0 to what cannot count.
      stats: what of a state goes through `loss_fn` as running statistics.
      finish: `(state, params, stats, outputs, batch) -> state`, but for the step and
        the optimizer's state.
      measure: `(state, outputs, batch) -> metrics` of the state before the update.
      axis_name: device axis that the batch is split over, under pmap; None: a step is
        of the whole batch.

    Returns:
      `step(state, batch) -> (state, metrics)`.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        keys = {
            # An example's views do not depend on the step it falls into.
            "views": jax.random.fold_in(state.key, 0),
            "dropout": jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step),
            "batch": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step),
        }
        if axis_name is not None:
            place = jax.lax.axis_index(axis_name)
            keys["dropout"] = jax.random.fold_in(keys["dropout"], place)

        def of_params(params, stats, batch, keys):
            return loss_fn(params, stats, batch, keys, state)

        batch = prepare(batch)
        loss, (new_stats, parts, outputs), gradients = _gradients(
            of_params, state.params, stats(state), batch, keys, accumulate, axis_name
        )
        with jax.named_scope("<optimizer>"):
            updates, opt_state = tx.update(
                gradients, state.opt_state, state.params, value=loss
            )
            params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), **parts}
        if learning_rates is not None:
            rates = learning_rates(opt_state, state.step)
            metrics |= {f"lr/{group}": rate for group, rate in rates.items()}
        with jax.named_scope("<metrics>"):
            metrics |= measure(state, outputs, batch)
        new = finish(state, params, new_stats, outputs, batch)
        return new.replace(step=state.step + 1, opt_state=opt_state), metrics

    return step


def _gradients(loss_fn, params, stats, batch, keys, accumulate, axis_name):
    """Loss, aux and gradients, over `accumulate` parts of the batch one by one."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def over_devices(gradients):
        if axis_name is None:
            return gradients
        return jax.lax.pmean(gradients, axis_name)

    if accumulate == 1:
        (loss, aux), gradients = value_and_grad(params, stats, batch, keys)
        return loss, aux, over_devices(gradients)

    size = batch["weight"].shape[0]
    if size % accumulate:
        raise ValueError(f"a batch of {size} cannot be worked on in {accumulate} parts")
    # Interleaved, so that a batch split over devices stays split evenly.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )

    def body(carry, part):
        stats, gradients, number = carry
        part_keys = keys | {"dropout": jax.random.fold_in(keys["dropout"], number)}
        (loss, aux), new = value_and_grad(params, stats, part, part_keys)
        # Each loss is a mean over its part's weights: weigh it by their share.
        mass, whole = part["weight"].sum(), batch["weight"].sum()
        if axis_name is not None:
            mass, whole = jax.lax.psum((mass, whole), axis_name)
        share = mass / jnp.maximum(whole, 1e-12)
        gradients = jax.tree.map(lambda g, n: g + share * n, gradients, new)
        scaled = jax.tree.map(lambda x: share * x, (loss, aux[1]))
        return (aux[0], gradients, number + 1), (scaled, aux[2])

    zeros = jax.tree.map(jnp.zeros_like, params)
    (stats, gradients, _), ((loss, named), outputs) = jax.lax.scan(
        body, (stats, zeros, 0), parts
    )
    loss, named = jax.tree.map(lambda x: x.sum(0), (loss, named))
    outputs = jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), outputs
    )
    return loss, (stats, named, outputs), over_devices(gradients)
