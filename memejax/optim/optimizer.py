"""The optimizer of a run: every group's recipe, by one rule and one schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax.optim.groups import Group, label_parameters, layer_of, path_of
from memejax.optim.rules import RULES, Decay, clip_each
from memejax.optim.schedules import Schedule

Tree = Any


def make_optimizer(
    params: Tree,
    groups: Mapping[str, Group],
    *,
    schedule: Schedule,
    plateau: Mapping[str, float] | None = None,
    rule: str = "adamw",
    momentum: float = 0.9,
    weight_decay_schedule: Schedule | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """An update rule with a recipe a group; AdamW unless told otherwise.

    Args:
        params: the tree that the groups must cover.
        groups: name -> recipe.
        schedule: step -> factor of every group's learning rate.
        plateau: `factor`, `patience` and `min_lr` of a rate that falls whenever the
            loss given as `tx.update(..., value=loss)` has not improved for more than
            `patience` updates (PyTorch's meaning of the word); None leaves it out.
        rule: "adamw", "adam" (no weight decay), "sgd" (PyTorch's, decay in the
            gradient) or "lars", of every group that names none of its own.
        momentum: of sgd and lars, in [0, 1).
        weight_decay_schedule: step -> weight decay, in place of the constant of every
            group that has one; groups with weight_decay 0 stay without.
        b1: decay of Adam's first moment.
        b2: decay of its second.
        eps: added to its denominator.

    Returns:
        A transformation whose update takes `value=`.

    Raises:
        ValueError: see `label_parameters`; for an unknown rule, a momentum outside
            [0, 1), or a group with weight decay under the rule "adam".

    References:
        Those of the rules, in `rules.py`.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"got momentum {momentum}, expected one in [0, 1)")
    labels = label_parameters(params, groups)
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    by_group = {}
    for name, group in groups.items():
        own = group.rule or rule
        if own not in RULES:
            raise ValueError(f"unknown rule {own!r}: choose one of {', '.join(RULES)}")
        if own == "adam" and group.weight_decay:
            raise ValueError(
                f"the rule adam has no weight decay, and group {name} asks for "
                f"{group.weight_decay}: choose adamw"
            )
        by_group[name] = _recipe(
            group,
            RULES[own],
            paths=paths,
            schedule=schedule,
            plateau=plateau,
            weight_decay_schedule=weight_decay_schedule,
            numbers=dict(momentum=momentum, b1=b1, b2=b2, eps=eps),
        )
    return optax.with_extra_args_support(optax.partition(by_group, labels))


def make_learning_rates(
    groups: Mapping[str, Group], schedule: Schedule
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """A function (optimizer state, step) -> every group's present learning rate.

    It is 0 in a group's frozen steps, and with layer-wise decay the last layer's.
    """

    def learning_rates(opt_state, step):
        rates = {}
        for name, group in groups.items():
            scale = 1.0
            for state in jax.tree.leaves(
                opt_state.inner_states[name],
                is_leaf=lambda s: isinstance(s, optax.contrib.ReduceLROnPlateauState),
            ):
                if isinstance(state, optax.contrib.ReduceLROnPlateauState):
                    scale = state.scale
            rate = group.lr * schedule(step) * scale if group.lr else 0.0
            rates[name] = _thawed(group, step, rate)
        return rates

    return learning_rates


def make_weight_decays(
    groups: Mapping[str, Group], weight_decay_schedule: Schedule | None = None
) -> Callable[[jax.typing.ArrayLike], dict[str, jax.Array]]:
    """A function step -> every group's present weight decay, 0 while it is frozen."""

    def weight_decays(step):
        decays = {}
        for name, group in groups.items():
            decay = group.weight_decay if group.lr else 0.0
            if decay and weight_decay_schedule is not None:
                decay = weight_decay_schedule(step)
            decays[name] = _thawed(group, step, decay)
        return decays

    return weight_decays


def _thawed(group: Group, step: Any, value: Any) -> jax.Array:
    value = jnp.asarray(value, jnp.float32)
    if not group.frozen_steps:
        return value
    return jnp.where(jnp.asarray(step) < group.frozen_steps, 0.0, value)


def _recipe(
    group: Group,
    rule: Callable[..., optax.GradientTransformation],
    *,
    paths: list[str],
    schedule: Schedule,
    plateau: Mapping[str, float] | None,
    weight_decay_schedule: Schedule | None,
    numbers: Mapping[str, float],
) -> optax.GradientTransformation:
    """One group's transformation, over the leaves that `partition` leaves it."""
    if group.lr == 0:
        return optax.set_to_zero()
    frozen = group.frozen_steps
    decay: Decay = group.weight_decay
    if decay and weight_decay_schedule is not None:
        # The rule's own count starts when the group thaws; schedules count all steps.
        decay = lambda count: weight_decay_schedule(count + frozen)  # noqa: E731

    def decayed(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: group.decays(path_of(path), leaf), tree
        )

    parts = []
    if group.clip_each:
        parts.append(clip_each(group.clip_each))
    if group.clip:
        parts.append(optax.clip_by_global_norm(group.clip))
    parts.append(
        rule(
            lambda count: group.lr * schedule(count + frozen),
            decay=decay,
            decayed=decayed,
            **numbers,
        )
    )
    if group.layer_decay != 1:
        parts.append(_scale_by_layer(group.layer_decay, paths))
    if frozen:
        parts = [optax.conditionally_mask(optax.chain(*parts), lambda n: n >= frozen)]
    if plateau is not None:
        parts.append(
            optax.contrib.reduce_on_plateau(
                factor=plateau["factor"],
                # optax reduces at the `patience`-th bad update, PyTorch after it.
                patience=int(plateau["patience"]) + 1,
                min_scale=plateau["min_lr"] / group.lr,
            )
        )
    return optax.chain(*parts)


def _scale_by_layer(decay: float, paths: list[str]) -> optax.GradientTransformation:
    """Updates times decay^(L - l): all rules are linear in their rate."""
    factors = {}
    for path in paths:
        layer, last = layer_of(path, paths)
        factors[path] = decay ** (last - layer)
    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(
            lambda path, update: factors[path_of(path)] * update, updates
        )
    )
