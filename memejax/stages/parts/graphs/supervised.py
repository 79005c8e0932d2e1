"""Parts shared by all kinds of graph networks: a store, parameters, one update."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, steps
from memejax.data import plans
from memejax.models import gnn
from memejax.stages.parts import features
from memejax.stages.parts.optimizers import optimizer
from memejax.stages.parts.training import (
    key_of,
    make_init,
    positive_weight,
    total_steps,
)
from memejax.store.read import Store

Tree = Any


def open_features(config: ConfigDict) -> Store:
    """Open the feature store of a config.

    Raises:
        ValueError: if `features` is not set, or the store lacks the training or the dev
            split.
    """
    if config.features is None:
        raise ValueError(
            "a graph network needs features=STORE, the folder that "
            "python -m memejax.extract --config=configs/graph.py --out=STORE wrote"
        )
    return features.open_features(config, config.features)


class Training(NamedTuple):
    """A network's supervised training, before its first update.

    Attributes:
        abstract: shapes and shardings of the initial state.
        init: `() -> state`.
        step: `(state, batch) -> (state, metrics)`; a batch has `graph`, `label`,
            `index`, `weight` and `draw`.
        apply_fn: `(variables, graph, train=, ...) -> {network: logits [b]}`.
        plan: shuffled passes over the training memes.
        groups: name of the optimizer group of each parameter.
    """

    abstract: Any
    init: Callable[[], Any]
    step: Callable[..., Any]
    apply_fn: Callable[..., Any]
    plan: plans.Plan
    groups: Tree


def supervised(
    config: ConfigDict,
    train: datasets.Split,
    *,
    net: gnn.MemeGraphNet,
    example: Tree,
    memes: slice,
    seed: int,
    mesh: Mesh,
) -> Training:
    """Make the supervised training that the section `graph` describes.

    Args:
        config: the run's config.
        train: the training split.
        net: the network.
        example: an example input graph.
        memes: slice of the memes' graphs in a batch; the others are padding.
        seed: seeds parameters, order and dropout.
        mesh: of one device.

    Raises:
        ValueError: if the training memes lack one of the labels.
    """
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    c = config.graph
    key = functools.partial(key_of, seed, 2)

    def variables() -> Tree:
        return net.init(key(), example, train=False)

    shapes = jax.eval_shape(variables)
    plan = graph_plan(c, train, seed=seed)
    tx, rates, groups = optimizer(c.optimizer, params=shapes["params"], total=len(plan))
    apply_fn = as_arm(net, c.network, memes)
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=lambda _, batch, **__: batch["graph"],
        positive_weight=positive_weight(train, balance=c.balance),
        learning_rates=rates,
    )
    abstract, init, _ = make_init(
        variables,
        lambda variables: steps.init_state(
            variables, tx, key=jax.random.fold_in(key(), 1)
        ),
        shapes=shapes,
        mesh=mesh,
    )
    return Training(abstract, init, step, apply_fn, plan, groups)


def graph_plan(section: ConfigDict, train: datasets.Split, *, seed: int) -> plans.Plan:
    """Return shuffled passes over the training memes for the section `graph`."""
    n, total = len(train.labels), graph_updates(section, train)
    return plans.shuffled(n, batch=section.batch, steps=total, seed=2 * seed + 1)


def graph_updates(section: ConfigDict, train: datasets.Split) -> int:
    """Return the updates of the section `graph`."""
    n = len(train.labels)
    return total_steps(n, batch=section.batch, epochs=section.epochs)


def as_arm(net: Any, name: str, memes: slice) -> Callable[..., Any]:
    """Make `(variables, inputs, train=, ...) -> {name: logits [b]}`, like an arm's.

    Args:
        net: a network with one logit per graph of a batch.
        name: name of the arm.
        memes: slice of the memes' graphs in a batch; the others are padding.
    """

    def apply_fn(variables: Any, graph: Any, *, train: bool, **more: Any) -> Any:
        out = net.apply(variables, graph, train=train, **more)
        if "mutable" not in more:
            return {name: out[memes]}
        return {name: out[0][memes]}, out[1]

    return apply_fn
