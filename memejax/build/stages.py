"""Stages: everything that the loop needs, made from a config."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders, losses, parallel, scores, steps
from memejax.build import curricula
from memejax.build.choices import STEPS, check_parallel
from memejax.build.modules import absent_parts, fusion_arms
from memejax.build.optimizers import optimizer
from memejax.build.variables import init_variables, load_weights, transfer
from memejax.build.viewing import make_views, random_views
from memejax.data import plans

Tree = Any


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
      state: before the first update, on the devices.
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


def finetune(
    config: ConfigDict,
    data: dataset.Data,
    *,
    seed: int,
    mesh: Mesh,
    start: Mapping[str, Tree] | None = None,
    curriculum: ConfigDict | None = None,
    uncertainty: np.ndarray | None = None,
) -> Stage:
    """Supervised training of every arm.

    From the variables `start` of a stage before, where they fit; else from
    checkpoints, where the config names them; else from scratch. Examples come as the
    section `curriculum` says, in shuffled passes where there is none; "bac" ranks the
    training examples by `uncertainty` [n].
    """
    c = config.finetune
    check_devices(config, c, mesh)
    _check_memes(config, data)
    train = data.splits["train"]
    devices = on_devices(config, mesh)
    arms = fusion_arms(config, data.vocabulary, **devices)
    views = make_views(config, random_views(config.augment), independent=True)
    key = key_of(seed, 1)
    variables = load_weights(
        config, init_variables(arms, train, views=views, key=key, method="classify")
    )
    if start is not None:
        variables = transfer(start, variables)
    plan = _finetuning_plan(config, train, seed, curriculum, uncertainty)
    tx, rates = optimizer(
        c.optimizer,
        params=variables["params"],
        total=len(plan),
        absent=absent_parts(config),
    )
    positives = float(np.mean(train.labels == 1))
    step = steps.make_supervised_step(
        applying(config, arms, mesh, method="classify"),
        tx,
        views=views,
        positive_weight=(1 - positives) / positives if c.balance else 1.0,
        accumulate=c.accumulate,
        learning_rates=rates,
        axis_name=devices["axis_name"],
    )
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    state, run_chunk = placed(config, step, state, mesh)
    apply_fn = functools.partial(arms.apply, method="classify")
    predict = parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)
    return Stage(
        state=state,
        run_chunk=run_chunk,
        feeder=stream(config, train, plan, mesh),
        embed=embedding(arms, views, mesh),
        predict=predict,
        eval_every=c.eval_every,
        patience=c.patience,
        refresh=_refresh(config, curriculum, train, len(plan), predict, seed, mesh),
    )


def _check_memes(config: ConfigDict, data: dataset.Data) -> None:
    """Raises ValueError unless the data are memes, of both labels to train on."""
    if data.classes != 2 or not data.vocabulary:
        raise ValueError(
            "fine-tuning is of memes (two classes, with captions): for data.name="
            f"{config.data.name!r} choose stages=('pretrain','probe')"
        )
    if not data.splits["train"].labelled:
        raise ValueError("fine-tuning needs training memes of both labels")


def _source(train: dataset.Split) -> curricula.Source:
    return curricula.Source(np.arange(len(train.ids)), train.labels)


def _finetuning_plan(config, train, seed, curriculum, uncertainty) -> plans.Plan:
    """Shuffled passes, or what the curriculum makes of as many updates."""
    plan = plan_of(config.finetune, train, seed=2 * seed + 1)
    if curriculum is None:
        return plan
    return curricula.first_plan(
        curriculum,
        _source(train),
        batch=plan.batch,
        steps=len(plan),
        seed=seed,
        uncertainty=uncertainty,
    )


def _refresh(config, curriculum, train, updates, predict, seed, mesh) -> Refresh | None:
    """Where a plan is drawn again by the scores of now, None without a curriculum."""
    if curriculum is None:
        return None
    feeder, source = scoring_feeder(config, train, mesh), _source(train)

    def draw(state: Any, plan: plans.Plan, step: int) -> Refreshed:
        proba = scores.probabilities(predict, state.weights(), feeder)
        u = scores.uncertainty(curriculum.score, proba, train.labels)
        new, drawn = curricula.redrawn(
            curriculum, plan, source, uncertainty=u, step=step, seed=seed
        )
        return Refreshed(
            new,
            curricula.shares(drawn, train.labels),
            {"uncertainty": u, "probs": drawn.probs, "rows": source.rows},
        )

    return Refresh(curricula.refresh_steps(curriculum, steps=updates), draw)


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
