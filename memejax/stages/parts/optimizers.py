"""Optimizers: from a section `optimizer` to an optax transformation."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from memejax import optim

Tree = Any

# Leaves of a section that its groups inherit and may override.
SHARED = ("weight_decay", "clip", "clip_each", "layer_decay", "decay_exempt")


def optimizer(
    section: ConfigDict,
    *,
    params: Tree,
    total: int,
    frozen: int = 0,
    absent: Collection[str] = (),
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., Any], Tree]:
    """Make the optimizer of a stage.

    A group that matches only absent parts is left out.

    Args:
        section: rule, schedule, groups and shared leaves.
        params: parameters that the groups must cover.
        total: updates of the stage.
        frozen: updates before groups with `frozen` set start to train.
        absent: paths that the config describes and the run leaves out.

    Returns:
        The optimizer, `(opt_state, step) -> {group: learning rate}`, and the name of
        the group of each leaf, in the shape of `params`.

    Raises:
        ValueError: for an unknown rule or schedule, or if the groups do not cover
            `params`.
    """
    c = dict(section)
    shared = {name: c.pop(name) for name in SHARED if name in c}
    groups = {}
    leaves = [optim.path_of(p) for p, _ in jax.tree.leaves_with_path(params)]
    for name, group in c.pop("groups").items():
        wanted = functools.partial(re.fullmatch, group["pattern"])
        if any(map(wanted, absent)) and not any(map(wanted, leaves)):
            continue
        group = shared | dict(group)
        if group.pop("frozen", False):
            group["frozen_steps"] = frozen
        groups[name] = optim.Group(**group)
    name, plateau = c.pop("schedule"), c.pop("plateau", None)
    if (name == "plateau") != (plateau is not None):
        raise ValueError(
            "the schedule 'plateau', and no other, needs the section "
            f"optimizer.plateau; got schedule {name!r}"
        )
    rule, decay_end = c.pop("rule"), c.pop("weight_decay_end", None)
    schedule = optim.schedule(name, steps=total, **c)
    tx = optim.make_optimizer(
        params,
        groups,
        schedule=schedule,
        plateau=plateau and dict(plateau),
        rule=rule,
        weight_decay_schedule=(
            None
            if decay_end is None
            else optim.cosine(shared["weight_decay"], decay_end, steps=total)
        ),
    )
    rates = optim.make_learning_rates(groups, schedule)
    return tx, rates, optim.label_parameters(params, groups)
