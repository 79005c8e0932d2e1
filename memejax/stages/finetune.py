"""The stage "finetune": supervised training of the arms, optionally in a curriculum."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import atomic, datasets, metrics, parallel, scoring, steps
from memejax.data import plans
from memejax.stage import BEST, Evaluation, Measured, Refresh, Refreshed, Stage
from memejax.stages.context import Context, Ended, Weights
from memejax.stages.parts import curricula, training
from memejax.stages.parts.meme_uncertainty import make_uncertainty
from memejax.stages.parts.models import absent_parts, fusion_arms
from memejax.stages.parts.optimizers import optimizer
from memejax.stages.parts.variables import (
    check_transfer,
    load_weights,
    random_variables,
    transfer,
)
from memejax.stages.parts.views import make_views, random_views

Tree = Any
NAME = "finetune"
# The same fine-tuning in shuffled passes, whose scores "bac" ranks by.
BASELINE = "baseline"


def make(
    config: ConfigDict,
    data: datasets.Data,
    *,
    seed: int,
    mesh: Mesh,
    curriculum: ConfigDict | None = None,
    uncertainty: np.ndarray | None = None,
) -> Stage:
    """Make supervised training of every arm.

    The stage's `init` takes a function that returns the previous stage's variables,
    which are copied where they fit. Other variables come from the config's checkpoints,
    or else are random.

    Args:
        config: the run's config; uses the section `finetune`.
        data: memes.
        seed: seeds parameters, order and randomness.
        mesh: the devices.
        curriculum: the section for drawing examples; None: shuffled passes.
        uncertainty: float `[n]` of the training examples, for "bac" to rank by.

    Raises:
        ValueError: if the data are not memes with both labels, or the config is
            inconsistent.
    """
    c = config.finetune
    training.check_devices(config, c, mesh)
    _check_memes(config, data)
    train = data.splits["train"]
    devices = training.device_options(config, mesh)
    arms = fusion_arms(config, data.vocabulary, **devices)
    views = make_views(config, random_views(config.augment), independent=True)
    key = functools.partial(training.key_of, seed, 1)
    variables = random_variables(arms, train, views=views, key=key, method="classify")
    shapes = jax.eval_shape(variables)
    plan = _plan(config, train, seed, curriculum, uncertainty)
    tx, rates, groups = optimizer(
        c.optimizer,
        params=shapes["params"],
        total=len(plan),
        absent=absent_parts(config),
    )
    step = steps.make_supervised_step(
        training.make_apply_fn(config, arms, mesh, method="classify"),
        tx,
        views=views,
        positive_weight=training.positive_weight(train, balance=c.balance),
        accumulate=c.accumulate,
        learning_rates=rates,
        axis_name=devices["axis_name"],
    )

    def replace(variables: Tree, start: Callable[[], Tree] | None = None) -> Tree:
        variables = load_weights(config, variables)
        return variables if start is None else transfer(start(), variables)

    start = training.make_init(
        variables,
        lambda variables: steps.init_state(
            variables, tx, key=jax.random.fold_in(key(), 1)
        ),
        shapes=shapes,
        mesh=mesh,
        divided=config.parallel.shard_parameters,
        replace=replace,
    )
    apply_fn = functools.partial(arms.apply, method="classify")
    predict = parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)
    one_pass = training.scoring(config, mesh, batch=c.batch)
    return Stage(
        init=start.init,
        compile_init=start.compile_init,
        abstract=start.abstract,
        run_chunk=training.compiled_step(config, step, start.abstract, mesh),
        feeder=training.stream(config, train, plan, mesh),
        scoring=one_pass,
        embed=training.embedding(arms, views, mesh),
        predict=predict,
        eval_every=c.eval_every,
        patience=c.patience,
        groups=groups,
        refresh=None
        if curriculum is None
        else _refresh(config, data, len(plan), seed=seed, mesh=mesh),
    )


def check(
    config: ConfigDict, data: datasets.Data, *, mesh: Mesh, before: Stage | None
) -> Stage:
    """Build the stage and trace its first step, before a run's folder is claimed.

    Raises:
        ValueError: as `make` does; if the dev split lacks one of the labels, or nothing
            of the stage before fits.
    """
    check_dev(data)
    section = config.curriculum if "curriculum" in config else None
    uncertainty = None
    if _is_ranked(config):
        uncertainty = np.zeros(len(data.splits["train"].ids), np.float32)
    stage = make(
        config,
        data,
        seed=config.seed,
        mesh=mesh,
        curriculum=section,
        uncertainty=uncertainty,
    )
    if before is not None:
        check_transfer(before.abstract.weights(), stage.abstract.weights())
    stage.trace()
    return stage


def check_dev(data: datasets.Data) -> None:
    """Raise ValueError unless the dev split has both labels to choose by."""
    dev = data.splits[data.dev]
    if not dev.labelled:
        known = int(np.sum(dev.labels >= 0))
        raise ValueError(
            f"data.dev={data.dev} chooses the checkpoint and needs memes of both "
            f"labels: {known} of its {len(dev.ids)} memes are labelled, "
            f"{int(np.sum(dev.labels == 1))} of them hateful; "
            "--config.data.dev=validation holds out a part of train"
        )


def updates(config: ConfigDict, data: datasets.Data) -> dict[str, int]:
    """Return the planned updates, of the baseline as well if there is one."""
    total = training.updates_of(config.finetune, data.splits["train"])
    return ({BASELINE: total} if _is_ranked(config) else {}) | {NAME: total}


def _is_ranked(config: ConfigDict) -> bool:
    """Whether a curriculum ranks by the scores of a baseline."""
    return "curriculum" in config and curricula.needs_baseline(config.curriculum)


def run(context: Context, before: Ended | None) -> Ended:
    """Fine-tune the previous stage's final variables, unless already done."""
    start = before.weights if before is not None else None

    @functools.cache
    def stage() -> Stage:
        made = context.checked(NAME)
        if made is None or _is_ranked(context.config):
            made = make(
                context.config,
                context.data,
                seed=context.seed,
                mesh=context.mesh,
                **_curriculum(context, start),
            )
        return dataclasses.replace(made, init=functools.partial(made.init, start))

    return supervised(context, NAME, stage)


def supervised(context: Context, name: str, stage: Callable[[], Stage]) -> Ended:
    """Train a stage that is evaluated on the dev split, unless already done."""
    outcome = context.outcome(name)
    if outcome is None:
        # Drop the last state, which would stay in memory beside the best one.
        arms = context.config.arms if "arms" in context.config else ()
        evaluation = on_dev(context.data, stage(), arms=arms)
        _, outcome = context.train(stage(), name, evaluation)
        context.finish(name, outcome)
    weights = Weights(lambda: context.last_weights(name, stage()))
    return Ended(name, {name: outcome}, stage, weights)


def on_dev(
    data: datasets.Data, stage: Stage, *, arms: Sequence[str] = ()
) -> Evaluation:
    """Evaluate the AUROC of the arms and their average on the dev split.

    The average chooses the best checkpoint; if there are several arms, each has a best
    checkpoint of its own as well.
    """
    dev = data.splits[data.dev]
    feeder = stage.scoring(dev)

    def measure(state: Any) -> Measured:
        proba = scoring.probabilities(stage.predict, state.weights(), feeder)
        values = {
            f"{BEST}/{arm}": metrics.auroc(p, dev.labels) for arm, p in proba.items()
        }
        return Measured(
            values,
            rating=values[f"{BEST}/{metrics.AVERAGE}"],
            histograms={f"scores/{arm}": p for arm, p in proba.items()},
            printed=tuple(f"{BEST}/{arm}" for arm in metrics.shown_arms(proba)),
        )

    bests = tuple(f"{BEST}/{arm}" for arm in arms) if len(arms) > 1 else ()
    return Evaluation(measure, dev.name, bests=bests)


def _curriculum(context: Context, start: Callable[[], Tree] | None) -> dict[str, Any]:
    """Return the curriculum section and, for "bac", the baseline's scores."""
    if "curriculum" not in context.config:
        return {}
    section = context.config.curriculum
    if not curricula.needs_baseline(section):
        return {"curriculum": section}
    file = context.folder / BASELINE / "uncertainty.npy"
    if parallel.from_first(file.exists()):
        return {"curriculum": section, "uncertainty": np.load(file)}
    stage = make(context.config, context.data, seed=context.seed, mesh=context.mesh)
    stage = dataclasses.replace(stage, init=functools.partial(stage.init, start))
    state, outcome = context.train(stage, BASELINE)
    uncertainty = make_uncertainty(
        context.config, context.data, seed=context.seed, mesh=context.mesh
    )(state.weights(), outcome["steps"])
    if parallel.is_first():
        with atomic.replacing(file) as opened:
            np.save(opened, uncertainty)
    return {"curriculum": section, "uncertainty": uncertainty}


def _check_memes(config: ConfigDict, data: datasets.Data) -> None:
    """Raise ValueError unless the data are memes with both labels to train on."""
    if data.classes != 2 or not data.vocabulary:
        raise ValueError(
            "fine-tuning is of memes (two classes, with captions): for data.name="
            f"{config.data.name!r} choose --config=FILE.py:PRESET,then=probe"
        )
    if not data.splits["train"].labelled:
        raise ValueError("fine-tuning needs training memes of both labels")


def _source(train: datasets.Split) -> curricula.Source:
    return curricula.Source(np.arange(len(train.ids)), train.labels)


def _plan(config, train, seed, curriculum, uncertainty) -> plans.Plan:
    """Return shuffled passes, or the curriculum's plan of equal length."""
    plan = training.plan_of(config.finetune, train, seed=2 * seed + 1)
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


def _refresh(config, data, updates, *, seed, mesh) -> Refresh:
    """Return the schedule of redraws by current scores."""
    c, source = config.curriculum, _source(data.splits["train"])
    uncertainty = make_uncertainty(config, data, seed=seed, mesh=mesh)

    def draw(state: Any, plan: plans.Plan, step: int) -> Refreshed:
        u = uncertainty(state.weights(), step)
        new, drawn = curricula.redrawn(
            c, plan, source, uncertainty=u, step=step, seed=seed
        )
        return Refreshed(
            new,
            curricula.shares(drawn, source.labels),
            {"uncertainty": u, "probs": drawn.probs, "rows": source.rows},
        )

    return Refresh(curricula.refresh_steps(c, steps=updates), draw)
