"""CASS: training two arms of different architectures to agree on each example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from memejax import losses
from memejax.steps.objective import LossAux, Metrics, StepObjective
from memejax.steps.panel import EVERY_STEP, Panel, collapse_metrics
from memejax.steps.state import Averaging
from memejax.steps.update import Step, make_step
from memejax.steps.views import Views


@dataclasses.dataclass(frozen=True)
class CassObjective:
    """The multimodal CASS loss and its terms against collapse.

    As published, everything but the cosine is off. A constant output is then a
    minimiser, and with trainable heads and identical inputs training finds it.

    Attributes:
        standardize: whether outputs are first standardised over the batch, so that the
            covariance term is one on correlations.
        variance: weight of the variance term (VICReg's) of each arm.
        covariance: weight of the covariance term of each arm.
        stop_gradient: whether each arm's prediction targets the other's output held
            constant (SimSiam), instead of gradients to both.
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
    """Compute the objective for two arms, a scalar, and its parts.

    Args:
        outputs: arm -> (output z, prediction of the other arm's), each `[b, d]`.
        weight: float32 `[b]`; 0 masks an example.
        objective: terms and their weights.
        axis_name: device axis over which the batch is split, under pmap.

    Returns:
        The scalar loss, and its unweighted parts `cass`, `variance`, `covariance`.

    Raises:
        ValueError: unless there are exactly two arms.
    """
    if len(outputs) != 2:
        raise ValueError(f"CASS compares two arms, got {sorted(outputs)}")
    where = weight > 0

    def prepare(z: jax.Array) -> jax.Array:
        if objective.standardize:
            return losses.standardize(z, where=where, axis_name=axis_name)
        return z

    a, b = sorted(outputs)
    z = {arm: prepare(output) for arm, (output, _) in outputs.items()}
    if objective.stop_gradient:
        p = {arm: prepare(prediction) for arm, (_, prediction) in outputs.items()}
        pair = 0.5 * (
            losses.negative_cosine(p[a], z[b]) + losses.negative_cosine(p[b], z[a])
        )
    else:
        pair = losses.cass(z[a], z[b])
    parts = {"cass": losses.weighted_mean(pair, weight, axis_name=axis_name)}
    total = parts["cass"]
    if objective.variance or objective.covariance:
        # On the prepared outputs: the covariance of raw ones vanishes as they shrink,
        # and standardising would then enlarge a shared direction again.
        terms = [
            losses.variance_covariance(z[arm], where=where, axis_name=axis_name)
            for arm in (a, b)
        ]
        parts["variance"] = terms[0][0] + terms[1][0]
        parts["covariance"] = terms[0][1] + terms[1][1]
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
    panel: Panel = EVERY_STEP,
    learning_rates: Callable[..., Metrics] | None = None,
    averaging: Averaging | None = None,
    axis_name: str | None = None,
) -> Step:
    """Make the training step of CASS, on images alone or with text.

    Args:
        apply_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: (z, p)},
            new variables)`.
        tx: the optimizer; its update receives `value=loss`.
        objective: the loss.
        views: see `views.make_views`.
        accumulate: number of parts that a batch is processed in; batch statistics are
            then those of a part.
        panel: steps at which the collapse panel is computed.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        averaging: updates `State.average`; pass it to `init_state` too.
        axis_name: device axis over which the batch is split, under pmap; `apply_fn`
            must use the same.

    Returns:
        `step(state, batch) -> (state, metrics)`.
    """

    return make_step(
        _Cass(apply_fn, views, objective, panel, averaging, axis_name),
        tx,
        accumulate=accumulate,
        learning_rates=learning_rates,
        axis_name=axis_name,
    )


@dataclasses.dataclass(frozen=True)
class _Cass(StepObjective):
    """CASS of a model; the arguments of `make_cass_step`."""

    apply_fn: Callable[..., Any]
    views: Callable[..., Views]
    terms: CassObjective
    panel: Panel
    averaging: Averaging | None
    axis_name: str | None

    def loss(self, params, state, *, stats, batch, keys):
        """Compute the loss, its parts, and the outputs for the collapse panel."""
        with jax.named_scope("<views>"):
            views = self.views(keys["views"], batch, train=True, step_key=keys["batch"])
        outputs, new = self.apply_fn(
            {"params": params, "batch_stats": stats},
            views,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        with jax.named_scope("<loss>"):
            loss, parts = cass_loss(
                outputs,
                batch["weight"],
                objective=self.terms,
                axis_name=self.axis_name,
            )
        out = {name: z for name, (z, _) in outputs.items()}
        return loss, LossAux(new.get("batch_stats", {}), parts, out)

    def measure(self, state, reduced, *, batch):
        """Compute the collapse panel."""
        return collapse_metrics(
            reduced.kept,
            batch["weight"],
            step=state.step,
            panel=self.panel,
            axis_name=self.axis_name,
        )

    def finish(self, state, params, *, stats, reduced):
        """Return the next state, with its average."""
        average = state.average
        if self.averaging is not None:
            average = self.averaging.update(average, params, step=state.step)
        return state.replace(params=params, batch_stats=stats, average=average)
