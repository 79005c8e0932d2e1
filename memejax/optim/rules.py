"""Update rules, which map gradients to parameter updates.

A rule is made for one group: `RULES[name](rate, decay=, decayed=, ...)`. Its state
counts its updates, and `rate` and a scheduled `decay` are functions of that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax.optim.schedules import Schedule

Tree = Any
Decay = float | Schedule
# A tree -> a tree of bools: whether each leaf decays.
Mask = Callable[[Tree], Tree]


def adamw(
    rate: Schedule,
    *,
    decay: Decay,
    decayed: Mask,
    b1: float,
    b2: float,
    eps: float,
    **_: float,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: -rate (adam(g) + decay w).

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 1711.05101.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        _add_decay(decay, decayed),
        optax.scale_by_learning_rate(rate),
    )


def adam(
    rate: Schedule, *, b1: float, b2: float, eps: float, **_: Any
) -> optax.GradientTransformation:
    """Adam without weight decay: -rate adam(g).

    References:
        Kingma and Ba, Adam, 1412.6980, algorithm 1.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps), optax.scale_by_learning_rate(rate)
    )


def sgd(
    rate: Schedule, *, decay: Decay, decayed: Mask, momentum: float, **_: float
) -> optax.GradientTransformation:
    """PyTorch's SGD: v <- momentum v + (g + decay w); -rate v.

    Weight decay is part of the gradient and thus of the momentum; the rate is not.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep
        learning, ICML 2013.
    """
    return optax.chain(
        _add_decay(decay, decayed),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(rate),
    )


def lars(
    rate: Schedule,
    *,
    decay: Decay,
    decayed: Mask,
    momentum: float,
    trust_coefficient: float = 0.001,
    **_: float,
) -> optax.GradientTransformation:
    """LARS: SGD with a step in proportion to the norm of each leaf.

        ratio = trust_coefficient |w| / (|g| + decay |w|)
        v <- momentum v + rate ratio (g + decay w);  -v

    A leaf with fewer than two axes, or with |w| or the denominator 0, has ratio 1. A
    common variant divides by |g + decay w| and keeps the rate out of v; without decay
    and at a constant rate both are the same.

    References:
        You et al., Large batch training of convolutional networks, 1708.03888,
        algorithm 1.
    """

    def scale(g: jax.Array, w: jax.Array, amount: Any) -> jax.Array:
        w_norm, g_norm = (
            jnp.linalg.norm(x.astype(jnp.float32).ravel()) for x in (w, g)
        )
        denominator = g_norm + amount * w_norm
        unscaled = (w_norm == 0) | (denominator == 0)
        ratio = trust_coefficient * w_norm / jnp.where(unscaled, 1.0, denominator)
        return jnp.where(unscaled, 1.0, ratio).astype(g.dtype) * (g + amount * w)

    def update(updates, params, amount):
        return jax.tree.map(
            lambda g, w, on: scale(g, w, amount if on else 0.0) if g.ndim > 1 else g,
            updates,
            params,
            decayed(updates),
        )

    return optax.chain(
        _with_decay(decay, update),
        optax.scale_by_learning_rate(rate),
        optax.trace(decay=momentum),
    )


RULES: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
    "lars": lars,
}


def clip_each(largest: float) -> optax.GradientTransformation:
    """Clip each leaf's gradient to the norm `largest`."""

    def clip(g: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(g.astype(jnp.float32).ravel())
        # At most 1; a gradient of norm 0 is unchanged.
        factor = largest / jnp.maximum(norm, largest)
        return g * factor.astype(g.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def clip_together(largest: float) -> optax.GradientTransformation:
    """Clip the gradients of all leaves, as one vector, to the norm `largest`.

    `optax.clip_by_global_norm` divides them by the norm, for which XLA reads and writes
    all gradients once more; the product with one factor is part of what comes next.

    Args:
        largest: Euclidean norm, above 0.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, 2013.
    """

    def clip(updates: Tree, params: Tree) -> Tree:
        del params
        # At most 1; gradients of norm 0 are unchanged.
        factor = largest / jnp.maximum(optax.tree.norm(updates), largest)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates)

    return optax.stateless(clip)


def _add_decay(decay: Decay, decayed: Mask) -> optax.GradientTransformation:
    if not callable(decay):
        return optax.add_decayed_weights(decay, mask=decayed)

    def add(updates, params, amount):
        return jax.tree.map(lambda g, w: g + amount * w, updates, params)

    return optax.masked(_with_decay(decay, add), decayed)


def _with_decay(
    decay: Decay, update: Callable[[Tree, Tree, Any], Tree]
) -> optax.GradientTransformation:
    """Make a transformation of `update(updates, params, decay)`.

    `optax.add_decayed_weights` accepts a schedule only in the newest versions.
    """

    def init(params):
        del params
        if callable(decay):
            return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))
        return optax.EmptyState()

    def apply(updates, state, params=None):
        if params is None:
            raise ValueError("got no params, expected tx.update(grads, state, params)")
        if not callable(decay):
            return update(updates, params, decay), state
        new = optax.ScaleByScheduleState(count=optax.safe_increment(state.count))
        return update(updates, params, decay(state.count)), new

    return optax.GradientTransformation(init, apply)
