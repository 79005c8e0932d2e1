"""The optimizer of a run, from its groups' recipes, a rule and a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax.optim.groups import Group, label_parameters, layer_of, path_of
from memejax.optim.rules import RULES, Decay, clip_each, clip_together
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
    """Make an optimizer with one recipe per parameter group, AdamW by default.

    Args:
        params: the tree that the groups must cover.
        groups: name -> recipe.
        schedule: step -> factor of every group's learning rate.
        plateau: `factor`, `patience` and `min_lr` of a learning rate that falls
            whenever the loss passed as `tx.update(..., value=loss)` has not improved
            for more than `patience` updates (as in PyTorch); None disables it.
        rule: "adamw", "adam" (no weight decay), "sgd" (PyTorch's, decay in the
            gradient) or "lars", for every group that does not set its own.
        momentum: of sgd and lars, in [0, 1).
        weight_decay_schedule: step -> weight decay, which replaces the constant of
            every group with a nonzero weight_decay.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        eps: added to Adam's denominator.

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
                f"the rule adam has no weight decay, but group {name} sets "
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
    """Make a function (optimizer state, step) -> {group: current learning rate}.

    The rate is 0 in a group's frozen steps, and the last layer's with layer-wise decay.
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
            rates[name] = _zero_while_frozen(group, step, rate)
        return rates

    return learning_rates


def make_weight_decays(
    groups: Mapping[str, Group], weight_decay_schedule: Schedule | None = None
) -> Callable[[jax.typing.ArrayLike], dict[str, jax.Array]]:
    """Make a function step -> {group: current weight decay}, 0 while frozen."""

    def weight_decays(step):
        decays = {}
        for name, group in groups.items():
            decay = group.weight_decay if group.lr else 0.0
            if decay and weight_decay_schedule is not None:
                decay = weight_decay_schedule(step)
            decays[name] = _zero_while_frozen(group, step, decay)
        return decays

    return weight_decays


def _zero_while_frozen(group: Group, step: Any, value: Any) -> jax.Array:
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
    """Make one group's transformation, for the leaves that `partition` selects."""
    if group.lr == 0:
        return optax.set_to_zero()
    frozen = group.frozen_steps
    decay: Decay = group.weight_decay
    if decay and weight_decay_schedule is not None:
        # The rule's count starts when the group unfreezes; schedules count all steps.
        decay = lambda count: weight_decay_schedule(count + frozen)  # noqa: E731

    def decayed(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: group.decays(path_of(path), leaf), tree
        )

    parts = []
    if group.clip_each:
        parts.append(clip_each(group.clip_each))
    if group.clip:
        parts.append(clip_together(group.clip))
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
    """Scale updates by decay^(L - l); all rules are linear in their rate."""
    factors = {}
    for path in paths:
        layer, last = layer_of(path, paths)
        factors[path] = decay ** (last - layer)
    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(
            lambda path, update: factors[path_of(path)] * update, updates
        )
    )
