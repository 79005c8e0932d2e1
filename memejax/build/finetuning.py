"""Fine-tuning: the stage that learns the labels, under a curriculum or without."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, parallel, scores, steps
from memejax.build import curricula
from memejax.build.modules import absent_parts, fusion_arms
from memejax.build.optimizers import optimizer
from memejax.build.stages import (
    Refresh,
    Refreshed,
    Stage,
    applying,
    check_devices,
    embedding,
    key_of,
    on_devices,
    placed,
    plan_of,
    scoring_feeder,
    stream,
)
from memejax.build.variables import init_variables, load_weights, transfer
from memejax.build.viewing import make_views, random_views
from memejax.data import plans

Tree = Any


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
    variables = _first_variables(config, arms, train, views, key, start)
    plan = _plan(config, train, seed, curriculum, uncertainty)
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


def _first_variables(config, arms, train, views, key, start) -> Tree:
    """Of a stage before, where they fit; else of checkpoints; else drawn."""
    variables = load_weights(
        config, init_variables(arms, train, views=views, key=key, method="classify")
    )
    return variables if start is None else transfer(start, variables)


def _source(train: dataset.Split) -> curricula.Source:
    return curricula.Source(np.arange(len(train.ids)), train.labels)


def _plan(config, train, seed, curriculum, uncertainty) -> plans.Plan:
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
