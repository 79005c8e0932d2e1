"""The stage "pretrain": multimodal CASS, CASS or DINO, without labels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, losses, optim, parallel, steps
from memejax.stage import Stage
from memejax.stages.context import Context, Ended, Weights
from memejax.stages.parts.choices import choose
from memejax.stages.parts.models import (
    absent_parts,
    arm_names,
    dino_arms,
    fusion_arms,
    image_arms,
)
from memejax.stages.parts.optimizers import optimizer
from memejax.stages.parts.training import (
    check_devices,
    compiled_step,
    device_options,
    embedding,
    key_of,
    make_apply_fn,
    make_init,
    plan_of,
    scoring,
    stream,
    updates_of,
)
from memejax.stages.parts.variables import (
    load_classifiers,
    load_weights,
    random_variables,
)
from memejax.stages.parts.views import cass_views, crops, make_views, random_views

NAME = "pretrain"
# Not at every update: the collapse panel needs a singular value decomposition.
PANEL_EVERY = 10


def make(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make self-supervised training on the training split, without labels."""
    method = choose(PRETRAIN, config.pretrain.method, "pretrain.method")
    check_devices(config, config.pretrain, mesh)
    return method(config, data, seed=seed, mesh=mesh)


def run(context: Context, before: Ended | None) -> Ended:
    """Pretrain, unless already done; the outcome has the collapse panel."""
    del before  # The first stage of a run.

    @functools.cache
    def stage() -> Stage:
        return context.checked(NAME) or make(
            context.config, context.data, seed=context.seed, mesh=context.mesh
        )

    outcome, kept = context.outcome(NAME), None
    if outcome is None:
        state, outcome = context.train(stage(), NAME)
        context.finish(NAME, outcome)
        # Not the whole state: its moments, teacher and centre are no longer needed.
        kept = state.weights()
    weights = Weights(lambda: context.last_weights(NAME, stage()), kept)
    return Ended(NAME, {NAME: outcome}, stage, weights)


def updates(config: ConfigDict, data: datasets.Data) -> dict[str, int]:
    """Return the planned updates."""
    return {NAME: updates_of(config.pretrain, data.splits["train"])}


def multimodal_cass(
    config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh
) -> Stage:
    """Make CASS between two arms of image and text."""
    if not data.vocabulary:
        raise ValueError("multimodal_cass needs captions: data.name='memes' has them")
    c = config.pretrain
    views = make_views(
        config,
        random_views(config.augment),
        independent=c.independent_views,
        token_dropout=c.token_dropout,
        # An arm of text alone would be left without input.
        caption_dropout=(
            0.0 if config.model.arm.modalities == "text" else c.caption_dropout
        ),
    )
    arms = fusion_arms(config, data.vocabulary, **device_options(config, mesh))
    return _cass(config, data, arms, views=views, seed=seed, mesh=mesh, heads=False)


def cass(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make CASS between two image encoders."""
    c = config.pretrain
    own = {"cass": cass_views, "random": random_views}
    image = choose(own, c.augmentation, "pretrain.augmentation")
    views = make_views(config, image(c.augment), independent=c.independent_views)
    averaging = steps.Averaging(**c.average) if "average" in c else None
    return _cass(
        config,
        data,
        image_arms(config, **device_options(config, mesh)),
        views=views,
        seed=seed,
        mesh=mesh,
        heads=config.weights.heads,
        averaging=averaging,
    )


def dino(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make DINO for each arm, side by side."""
    c = config.pretrain
    _check_dino(config)
    views = make_views(config, crops(c.augment), independent=True)
    devices = device_options(config, mesh)
    student = dino_arms(config, student=True, **devices)
    teacher = dino_arms(config, student=False, **devices)
    train, key = data.splits["train"], functools.partial(key_of, seed, 0)
    variables = random_variables(student, train, views=views, key=key, method="project")
    shapes = jax.eval_shape(variables)
    plan = plan_of(c, train, seed=2 * seed)
    total, epoch = len(plan), max(1, len(train.ids) // c.batch)
    tx, rates, groups = optimizer(
        c.optimizer,
        params=shapes["params"],
        total=total,
        absent=absent_parts(config),
        frozen=round(c.freeze_last_layer * epoch),
    )
    step = steps.make_dino_step(
        make_apply_fn(config, student, mesh, method="project"),
        tx,
        teacher_fn=make_apply_fn(config, teacher, mesh, method="project"),
        objective=steps.DinoObjective(
            momentum=optim.cosine(c.teacher.momentum, 1.0, steps=total),
            teacher_temperature=_teacher_temperature(c.teacher, epoch),
            student_temperature=c.student_temperature,
            center_momentum=c.center_momentum,
        ),
        views=views,
        accumulate=c.accumulate,
        panel=_panel(mesh),
        learning_rates=rates,
        axis_name=devices["axis_name"],
    )
    start = make_init(
        variables,
        lambda variables: steps.init_dino_state(
            variables,
            tx,
            key=jax.random.fold_in(key(), 1),
            prototypes={arm: c.head.out for arm in arm_names(config)},
        ),
        shapes=shapes,
        mesh=mesh,
        divided=config.parallel.shard_parameters,
        replace=functools.partial(load_weights, config),
    )
    return _stage(
        *(config, train, teacher, views, plan, step, start, mesh, groups),
        is_collapsed=_is_dino_collapsed,
    )


PRETRAIN: dict[str, Callable[..., Stage]] = {
    "multimodal_cass": multimodal_cass,
    "cass": cass,
    "dino": dino,
}


def _cass(config, data, arms, *, views, seed, mesh, heads, averaging=None) -> Stage:
    """Make CASS between any two arms."""
    c = config.pretrain
    if len(arm_names(config)) != 2:
        raise ValueError(f"CASS compares two arms, got arms={config.arms}")
    train, key = data.splits["train"], functools.partial(key_of, seed, 0)
    variables = random_variables(arms, train, views=views, key=key, method="project")
    shapes = jax.eval_shape(variables)
    plan = plan_of(c, train, seed=2 * seed)
    tx, rates, groups = optimizer(
        c.optimizer,
        params=shapes["params"],
        total=len(plan),
        absent=absent_parts(config),
    )
    step = steps.make_cass_step(
        make_apply_fn(config, arms, mesh, method="project"),
        tx,
        objective=steps.CassObjective(**c.objective),
        views=views,
        accumulate=c.accumulate,
        panel=_panel(mesh),
        learning_rates=rates,
        averaging=averaging,
        axis_name=device_options(config, mesh)["axis_name"],
    )

    def from_checkpoints(variables: Any) -> Any:
        variables = load_weights(config, variables)
        if heads:
            variables = load_classifiers(config, variables)
        return variables

    start = make_init(
        variables,
        lambda variables: steps.init_state(
            variables, tx, key=jax.random.fold_in(key(), 1), averaging=averaging
        ),
        shapes=shapes,
        mesh=mesh,
        divided=config.parallel.shard_parameters,
        replace=from_checkpoints,
    )
    return _stage(
        *(config, train, arms, views, plan, step, start, mesh, groups),
        is_collapsed=losses.is_collapsed,
    )


def _stage(
    config, train, arms, views, plan, step, start, mesh, groups, *, is_collapsed
) -> Stage:
    return Stage(
        init=start.init,
        compile_init=start.compile_init,
        abstract=start.abstract,
        run_chunk=compiled_step(config, step, start.abstract, mesh),
        feeder=stream(config, train, plan, mesh),
        scoring=scoring(config, mesh, batch=config.pretrain.batch),
        embed=embedding(arms, views, mesh),
        groups=groups,
        is_collapsed=is_collapsed,
    )


def _panel(mesh: Mesh) -> steps.Panel:
    return steps.Panel(PANEL_EVERY, branch=parallel.can_branch(mesh))


def _is_dino_collapsed(panel: dict[str, Any]) -> tuple[bool, str]:
    """Detect collapse by the outputs' spread and by the teacher's outputs."""
    verdicts = (losses.is_collapsed(panel), losses.is_dino_collapsed(panel))
    return any(yes for yes, _ in verdicts), ", ".join(why for _, why in verdicts if why)


def _teacher_temperature(section: ConfigDict, epoch: int) -> Callable[..., Any]:
    """Return update -> temperature: constant, after an optional warm-up."""
    start, epochs = section.temperature, 0
    if "warmup_epochs" in section:
        start, epochs = section.warmup_temperature, section.warmup_epochs
        if start <= 0:
            raise ValueError(
                f"pretrain.teacher.warmup_temperature must be above 0, got {start}"
            )
    return optim.linear_then_constant(
        start, section.temperature, steps_per_epoch=epoch, epochs=epochs
    )


def _check_dino(config: ConfigDict) -> None:
    """Raise ValueError if a number of the section is out of range."""
    c = config.pretrain
    for name in ("global_size", "local_size"):
        if not 1 <= c.augment[name] <= config.data.image_size:
            raise ValueError(
                f"pretrain.augment.{name} is {c.augment[name]}, and crops are cut from "
                f"pictures of {config.data.image_size} pixels (data.image_size)"
            )
    for name, value in (
        ("student_temperature", c.student_temperature),
        ("teacher.temperature", c.teacher.temperature),
    ):
        if value <= 0:
            raise ValueError(f"pretrain.{name} must be above 0, got {value}")
    for name, value in (
        ("teacher.momentum", c.teacher.momentum),
        ("center_momentum", c.center_momentum),
    ):
        if not 0 <= value <= 1:
            raise ValueError(f"pretrain.{name} must be in [0, 1], got {value}")
    if c.head.out < 2:
        raise ValueError(f"pretrain.head.out, prototypes: at least 2, got {c.head.out}")
