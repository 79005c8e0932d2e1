"""Parameter groups, schedules, and which parameter learns how fast.

A group is a pattern over parameter paths (`cnn/image_encoder/...`) and the recipe
of the leaves it matches. Every leaf is in exactly one group, or it is an error at
start-up: a leaf in none is silently frozen, which is how a published run of this
method came to nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any
Schedule = Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]


@dataclasses.dataclass(frozen=True)
class Group:
    """One parameter group.

    Attributes:
      pattern: regular expression that matches the whole path of a leaf.
      lr: peak learning rate; 0 freezes the group.
      weight_decay: decoupled, on leaves of two axes and more.
      clip: largest global norm of the group's gradient; 0 does not clip.
    """

    pattern: str
    lr: float
    weight_decay: float = 0.0
    clip: float = 0.0


def schedule(name: str, *, steps: int, warmup: int) -> Schedule:
    """A factor in [0, 1] of the step, by which every group's rate is multiplied.

    Args:
      name: "cosine" (to 0 at the end) or "constant" ("plateau" is constant here: its
        factor depends on the loss and lives in the optimizer's state).
      steps: updates of the run.
      warmup: updates of linear warm-up from 0.

    Returns:
      step -> factor.

    Raises:
      ValueError: for an unknown name, or a warm-up longer than the run.
    """
    if warmup > steps:
        raise ValueError(f"a warm-up of {warmup} steps in a run of {steps}")
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else 1.0, 1.0, warmup, max(steps, warmup + 1)
        )
    if name in ("constant", "plateau"):
        if not warmup:
            return optax.constant_schedule(1.0)
        return optax.linear_schedule(0.0, 1.0, warmup)
    raise ValueError(f"unknown schedule {name!r}: choose cosine, constant or plateau")


def path_of(path: tuple[Any, ...]) -> str:
    """A leaf's path as text, `cnn/fusion/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def label_parameters(params: Tree, groups: Mapping[str, Group]) -> Tree:
    """The group's name of every leaf, in the shape of `params`.

    Raises:
      ValueError: naming every leaf that is in no group or in several, and every
        group that holds no leaf.
    """
    problems, used = [], set()

    def label(path, _):
        name = path_of(path)
        found = [g for g, group in groups.items() if re.fullmatch(group.pattern, name)]
        used.update(found)
        if len(found) != 1:
            problems.append(f"  {name} is in {found or 'no group'}")
        return found[0] if found else ""

    labels = jax.tree_util.tree_map_with_path(label, params)
    problems += [
        f"  group {name} ({groups[name].pattern}) holds nothing"
        for name in sorted(set(groups) - used)
    ]
    if problems:
        raise ValueError(
            "every parameter must be in exactly one optimizer group:\n"
            + "\n".join(problems)
        )
    return labels


def make_optimizer(
    params: Tree,
    groups: Mapping[str, Group],
    *,
    schedule: Schedule,
    plateau: Mapping[str, float] | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with a recipe a group.

    Args:
      params: the tree that the groups must cover.
      groups: name -> recipe.
      schedule: step -> factor of every group's learning rate.
      plateau: `factor`, `patience` and `min_lr` of a rate that falls whenever the
        loss given as `tx.update(..., value=loss)` has not improved for more than
        `patience` updates (PyTorch's meaning of the word); None leaves it out.
      b1: decay of Adam's first moment.
      b2: decay of its second.
      eps: added to its denominator.

    Returns:
      A transformation whose update takes `value=`.

    Raises:
      ValueError: see `label_parameters`.

    References:
      Loshchilov and Hutter, Decoupled weight decay regularization, 1711.05101.
    """
    labels = label_parameters(params, groups)

    def recipe(group: Group) -> optax.GradientTransformation:
        if group.lr == 0:
            return optax.set_to_zero()
        parts = []
        if group.clip:
            parts.append(optax.clip_by_global_norm(group.clip))
        parts.append(
            optax.adamw(
                lambda step: group.lr * schedule(step),
                b1=b1,
                b2=b2,
                eps=eps,
                weight_decay=group.weight_decay,
                mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
            )
        )
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

    by_group = {name: recipe(group) for name, group in groups.items()}
    return optax.with_extra_args_support(optax.partition(by_group, labels))


def make_learning_rates(
    groups: Mapping[str, Group], schedule: Schedule
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """A function (optimizer state, step) -> every group's present learning rate."""

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
            rates[name] = jnp.asarray(
                group.lr * schedule(step) * scale if group.lr else 0.0, jnp.float32
            )
        return rates

    return learning_rates
