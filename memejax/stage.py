"""A stage of training: everything that the loop needs, made of callables and arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from memejax import datasets, feeders, losses, steps
from memejax.data import plans

Tree = Any
# The metric of the dev split that chooses the best checkpoint.
BEST = "auroc"


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """A plan drawn again.

    Attributes:
        plan: the whole run's; its part from this step on is new.
        values: figures for the log.
        arrays: kept in the stage's folder, for the report.
    """

    plan: plans.Plan
    values: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Refresh:
    """The updates before which a plan is drawn again from the model of that moment.

    Attributes:
        steps: those updates.
        draw: `(state, plan, step) -> Refreshed`, a function of these alone: after an
            interruption it is called again.
    """

    steps: tuple[int, ...]
    draw: Callable[[Any, plans.Plan, int], Refreshed]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of an evaluation.

    Attributes:
        values: figures for the log.
        rating: the one that chooses the best checkpoint; larger is better.
        histograms: name -> values, for TensorBoard.
        printed: the figures that the console shows; None shows all.
    """

    values: Mapping[str, float]
    rating: float
    histograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    printed: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a stage while it runs.

    Attributes:
        measure: state -> Measured.
        split: name of the split that is measured.
        rating: name of the rating.
    """

    measure: Callable[[Any], Measured]
    split: str
    rating: str = BEST


def _no_classifier(*_: Any) -> Any:
    raise ValueError("this stage has no classifier")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Training from a first state to the end of a plan.

    Attributes:
        init: makes the state before the first update, on the devices. It is called only
            where no checkpoint is restored, and reads the checkpoints to start from.
        abstract: that state as `jax.ShapeDtypeStruct`s with shardings; a checkpoint is
            restored like it.
        run_chunk: `(state, chunk) -> (state, metrics)`, compiled; donates the state.
        feeder: gives the chunks.
        scoring: split -> one pass over it in order, as `predict` and `embed` take it.
        predict: `(variables, batch) -> {arm: logits [b]}`, compiled; raises ValueError
            if the stage has no classifier.
        embed: `(variables, batch) -> {arm: features [b, d]}`, compiled; None if the
            stage's network has no features to probe.
        explain: `(variables, P(hateful) of the dev split [n]) -> {file: PNG}`, pictures
            of what the network does; None if there are none.
        eval_every: updates between evaluations on the dev split; 0 never evaluates.
        patience: evaluations without a better rating before the stage ends; 0: all.
        groups: name of the optimizer group of each leaf, in the shape of the params;
            None if they have none.
        refresh: when the plan is drawn again; None if it never is.
        is_collapsed: panel of an arm -> whether it shows collapse, and the reason.
    """

    init: Callable[[], steps.State]
    abstract: steps.State
    run_chunk: Callable[..., Any]
    feeder: feeders.Feeder
    scoring: Callable[[datasets.Split], feeders.Feeder]
    predict: Callable[..., Any] = _no_classifier
    embed: Callable[..., Any] | None = None
    explain: Callable[[Tree, np.ndarray], Mapping[str, bytes]] | None = None
    eval_every: int = 0
    patience: int = 0
    groups: Tree | None = None
    refresh: Refresh | None = None
    is_collapsed: Callable[..., tuple[bool, str]] = losses.is_collapsed
