"""Update rules: what a gradient becomes before it is added to a parameter.

A rule is made for one group: `RULES[name](rate, decay=, decayed=, ...)`. Its state
counts the updates it has made, and `rate` and a scheduled `decay` are functions of
that count.
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
# A tree -> the same with a bool at every leaf: whether it decays.
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
    """Adam, and weight decay beside it: -rate (adam(g) + decay w).

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

    Weight decay is in the gradient, and so in the momentum; the rate is not.

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
    """SGD whose step in every leaf is in proportion to the leaf's norm.

        ratio = trust_coefficient |w| / (|g| + decay |w|)
        v <- momentum v + rate ratio (g + decay w);  -v

    A leaf of fewer than two axes, and one where |w| or the denominator is 0, has
    ratio 1. A common variant divides by |g + decay w| and keeps the rate out of v;
    without decay and at a constant rate both are the same.

    References:
        You et al., Large batch training of convolutional networks, 1708.03888,
        algorithm 1.
    """

    def scale(g: jax.Array, w: jax.Array, amount: Any) -> jax.Array:
        norm, change = (jnp.linalg.norm(x.astype(jnp.float32).ravel()) for x in (w, g))
        below = change + amount * norm
        alone = (norm == 0) | (below == 0)
        ratio = trust_coefficient * norm / jnp.where(alone, 1.0, below)
        return jnp.where(alone, 1.0, ratio).astype(g.dtype) * (g + amount * w)

    def update(updates, params, amount):
        return jax.tree.map(
            lambda g, w, own: scale(g, w, amount if own else 0.0) if g.ndim > 1 else g,
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
    """Each leaf's gradient, scaled down to the norm `largest` if it is longer."""

    def clip(g: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(g.astype(jnp.float32).ravel())
        # At most 1; a norm of 0 is below `largest` and stays.
        factor = largest / jnp.maximum(norm, largest)
        return g * factor.astype(g.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def _add_decay(decay: Decay, decayed: Mask) -> optax.GradientTransformation:
    if not callable(decay):
        return optax.add_decayed_weights(decay, mask=decayed)

    def add(updates, params, amount):
        return jax.tree.map(lambda g, w: g + amount * w, updates, params)

    return optax.masked(_with_decay(decay, add), decayed)


def _with_decay(
    decay: Decay, update: Callable[[Tree, Tree, Any], Tree]
) -> optax.GradientTransformation:
    """`update(updates, params, decay)` as a transformation that knows the decay.

    optax.add_decayed_weights takes a schedule only in the newest versions.
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
