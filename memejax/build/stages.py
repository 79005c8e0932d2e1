"""What a stage is, and what every kind of stage is made with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders, losses, parallel, steps
from memejax.build.choices import STEPS, check_parallel
from memejax.data import plans


def _classifies_nothing(*_: Any) -> Any:
    raise ValueError("this stage has no classifier")


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """A plan drawn again, and what is to be known of it.

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
    """Where a stage's plan is drawn again from what the model knows by then.

    Attributes:
      steps: updates before which it is.
      draw: `(state, plan, step) -> Refreshed`, a function of these alone: after an
        interruption it is asked again.
    """

    steps: tuple[int, ...]
    draw: Callable[[Any, plans.Plan, int], Refreshed]


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop needs.

    Attributes:
      state: before the first update, on the devices; the first update takes its
        memory, and shapes and places are what stays.
      run_chunk: `(state, chunk) -> (state, metrics)`, compiled.
      feeder: gives the chunks.
      embed: `(variables, batch) -> {arm: features [b, d]}`, compiled.
      predict: `(variables, batch) -> {arm: logits [b]}`, compiled; an error
        where nothing is classified.
      eval_every: updates between evaluations on the dev split; 0 never evaluates.
      patience: evaluations without a better AUROC before the stage ends; 0: all.
      refresh: where the plan is drawn again; None where it never is.
      is_collapsed: an arm's panel -> whether it shows collapse, and why.
    """

    state: steps.State
    run_chunk: Callable[..., Any]
    feeder: feeders.Feeder
    embed: Callable[..., Any]
    predict: Callable[..., Any] = _classifies_nothing
    eval_every: int = 0
    patience: int = 0
    refresh: Refresh | None = None
    is_collapsed: Callable[..., tuple[bool, str]] = losses.is_collapsed

    def give_up(self) -> None:
        """Frees the state's memory, as the first update does."""
        for leaf in jax.tree.leaves(self.state):
            leaf.delete()


def mesh(config: ConfigDict) -> Mesh:
    """The devices of the run."""
    return parallel.mesh(config.parallel.devices)


def check_devices(config: ConfigDict, section: ConfigDict, mesh: Mesh) -> None:
    """Raises ValueError where a stage cannot run on the devices as it is asked to.

    Args:
      config: a run's.
      section: of the stage, with `batch` and `accumulate`.
      mesh: of the run.
    """
    check_parallel(config.parallel)
    parallel.check_batch(mesh, section.batch)
    part = section.batch // mesh.size
    if config.parallel.mode == "pmap" and part % section.accumulate:
        raise ValueError(
            f"accumulate={section.accumulate} does not divide the {part} examples that "
            f"each of {mesh.size} devices has of a batch of {section.batch}"
        )


def on_devices(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """What modules in training are to know of devices: `axis_name` and `remat`."""
    mapped = config.parallel.mode == "pmap"
    return dict(
        axis_name=mesh.axis_names[0] if mapped else None,
        remat=config.parallel.remat,
    )


def applying(
    config: ConfigDict, arms: Any, mesh: Mesh, *, method: str
) -> Callable[..., Any]:
    """What a step applies: a method of the arms, on parameters as they lie."""
    apply_fn = functools.partial(arms.apply, method=method)
    if config.parallel.shard_parameters:
        return parallel.gather_parameters(apply_fn, mesh)
    return apply_fn


def placed(
    config: ConfigDict, step: Callable[..., Any], state: Any, mesh: Mesh
) -> tuple[Any, Callable[..., Any]]:
    """A state on the devices, and the step that is compiled for it."""
    make = STEPS[config.parallel.mode]
    if not config.parallel.shard_parameters:
        return parallel.put_state(mesh, state), make(step, mesh)
    where = parallel.state_shardings(mesh, state)
    state = parallel.put_state(mesh, state, shardings=where)
    return state, parallel.jit_step(step, mesh, shardings=where)


def scoring_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split, in order."""
    plan = plans.sequential(len(split.ids), batch=config.finetune.batch)
    return stream(config, split, plan, mesh)


def part_feeder(
    config: ConfigDict, split: dataset.Split, rows: np.ndarray, mesh: Mesh
) -> feeders.Feeder:
    """One pass over some rows of a split, in their order."""
    plan = plans.sequential(len(rows), batch=config.finetune.batch)
    index = np.asarray(rows, plan.index.dtype)[plan.index]
    return stream(config, split, dataclasses.replace(plan, index=index), mesh)


def embedding(arms: Any, views: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`(variables, batch) -> {arm: features [b, d]}`, compiled."""
    apply_fn = functools.partial(arms.apply, method="embeddings")
    return parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)


def key_of(seed: int, stage: int) -> jax.Array:
    """The PRNG key of a stage of a seed."""
    return jax.random.fold_in(jax.random.key(seed), stage)


def plan_of(section: ConfigDict, split: dataset.Split, *, seed: int) -> plans.Plan:
    """A stage's plan: shuffled passes, as many as its steps or epochs say."""
    n, batch = len(split.ids), section.batch
    if (section.steps is None) == (section.epochs is None):
        raise ValueError(
            "set one of steps and epochs, got "
            f"steps={section.steps}, epochs={section.epochs}"
        )
    total = section.steps
    if total is None:
        total = max(1, round(section.epochs * n / batch))
    return plans.shuffled(n, batch=batch, steps=total, seed=seed)


def stream(
    config: ConfigDict, split: dataset.Split, plan: plans.Plan, mesh: Mesh
) -> feeders.Feeder:
    """Batches of a split, read as the plan says."""
    c = config.pipeline
    return feeders.StreamFeeder(
        split.source,
        plan,
        mesh=mesh,
        threads=c.threads,
        workers=c.workers,
    )
