"""A training stage: everything the loop needs, as callables and arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from memejax import datasets, feeders, losses, steps
from memejax.data import plans

Tree = Any
# The metric of the dev split that chooses the best checkpoint.
BEST = "auroc"


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """A redrawn plan.

    Attributes:
        plan: for the whole run; the part from this step on is new.
        values: figures for the log.
        arrays: saved in the stage's folder for the report.
    """

    plan: plans.Plan
    values: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Refresh:
    """A schedule of redrawing the plan from the current model.

    Attributes:
        steps: updates before which the plan is redrawn.
        draw: `(state, plan, step) -> Refreshed`, a pure function: it is called again
            after an interruption.
    """

    steps: tuple[int, ...]
    draw: Callable[[Any, plans.Plan, int], Refreshed]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of an evaluation.

    Attributes:
        values: figures for the log.
        rating: chooses the best checkpoint; larger is better.
        histograms: name -> values, for TensorBoard.
        printed: figures shown on the console; None: all.
    """

    values: Mapping[str, float]
    rating: float
    histograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    printed: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluation of a stage during training.

    Attributes:
        measure: state -> Measured.
        split: name of the evaluated split.
        rating: name of the rating.
        bests: names of values that also have a best checkpoint of their own each.
    """

    measure: Callable[[Any], Measured]
    split: str
    rating: str = BEST
    bests: tuple[str, ...] = ()


def _no_classifier(*_: Any) -> Any:
    raise ValueError("this stage has no classifier")


@dataclasses.dataclass(frozen=True)
class Ahead:
    """Programs of a stage that are compiled in threads while the run prepares.

    JAX finds a program that was compiled once. `result()` waits, and raises what
    compiling raised.

    Attributes:
        init: what `Stage.init` runs.
        step: the first `Stage.run_chunk`.
    """

    init: Future[None]
    step: Future[None]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Training from an initial state to the end of a plan.

    Attributes:
        init: makes the initial state on the devices, from pretrained checkpoints if
            configured. Called only if no checkpoint is restored. That of fine-tuning
            takes a function that returns the previous stage's variables.
        abstract: that state as `jax.ShapeDtypeStruct`s with shardings, the template
            for restoring a checkpoint.
        run_chunk: `(state, chunk) -> (state, metrics)`, compiled; donates the state.
        feeder: yields the chunks.
        scoring: split -> one pass over it in order, for `predict` and `embed`.
        predict: `(variables, batch) -> {arm: logits [b]}`, compiled; raises ValueError
            if the stage has no classifier.
        embed: `(variables, batch) -> {arm: features [b, d]}`, compiled; None if the
            stage's network has no features to probe.
        explain: `(variables, P(hateful) of the dev split [n]) -> {file: PNG}`, pictures
            that explain the network; None without any.
        eval_every: updates between evaluations on the dev split; 0: no evaluation.
        patience: evaluations without a better rating before the stage stops; 0: never.
        groups: name of the optimizer group of each leaf, in the shape of the params;
            None without groups.
        refresh: when to redraw the plan; None: never.
        is_collapsed: panel of an arm -> whether it shows collapse, and the reason.
        compile_init: compiles what `init` runs, before it is called; None: `init`
            cannot be compiled by itself.
        ahead: its programs on their way, of `compile_ahead`.
    """

    init: Callable[..., steps.State]
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
    compile_init: Callable[[], None] | None = None
    ahead: Ahead | None = None

    def trace(self) -> None:
        """Trace the first step without compiling or running it.

        Raises:
            ValueError, TypeError: for whatever the step cannot be made of.
        """
        jax.eval_shape(self.run_chunk, self.abstract, self._first_chunk())

    def compile_ahead(self) -> Stage:
        """Return the stage with its programs on their way, if it can.

        While XLA compiles, or reads compiled programs, Python goes on, more slowly. At
        an error in the meantime the process ends when they are through.
        """
        if self.compile_init is None:
            return self
        chunk, run_chunk = self._first_chunk(), self.run_chunk
        pool = ThreadPoolExecutor(2, thread_name_prefix="compile")
        init = pool.submit(self.compile_init)
        step = pool.submit(lambda: run_chunk.lower(self.abstract, chunk).compile())
        ahead = Ahead(init=init, step=step)
        pool.shutdown(wait=False)
        return dataclasses.replace(self, ahead=ahead)

    def _first_chunk(self) -> Any:
        return next(iter(self.feeder.chunks(0, 1)))[1]
