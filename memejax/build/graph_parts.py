"""What each kind of graph network is built of: a store, parameters, one update."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax import dataset, steps
from memejax.build.optimizers import optimizer
from memejax.build.stages import key_of
from memejax.data import plans
from memejax.graphs.store import Store, open_store
from memejax.models import gnn

Tree = Any


def open_features(config: ConfigDict) -> Store:
    """The store that a config names.

    Raises:
      ValueError: if none is named, or it lacks the training or the dev split.
    """
    if config.features is None:
        raise ValueError(
            "a graph network needs features=STORE, the folder that "
            "python -m memejax.extract --config=configs/graph.py --out=STORE wrote"
        )
    store = open_store(config.features)
    needed = {"train", config.data.dev}
    if not needed <= set(store.splits):
        raise ValueError(
            f"{config.features} has the splits {sorted(store.splits)}, but the config "
            f"asks for train and data.dev={config.data.dev}"
        )
    return store


def facts_of(
    config: ConfigDict, store: Store, *, widths: tuple[int, ...]
) -> dict[str, Any]:
    """What results.json says of the data: sizes, widths of features, origin."""
    return {
        "name": "memes",
        "features": config.features,
        "sizes": {name: len(split.ids) for name, split in store.splits.items()},
        "widths": list(widths),
        "bad_records": 0,
        "truncated_captions": 0,
        "vocabulary": 0,
    } | _origin(config, store)


def _origin(config: ConfigDict, store: Store) -> dict[str, Any]:
    """Where the memes are from; of built-in ones the best possible scores."""
    root = config.data.root or store.facts["root"]
    own = store.folder.absolute() / "memes"
    if root is None or pathlib.Path(root) != own:
        return {"root": root}
    # The extraction writes built-in memes into the store.
    made = own / "bayes.json"
    bayes = json.loads(made.read_text("utf-8"))["bayes"] if made.exists() else None
    return {"root": None} | ({"bayes": bayes} if bayes else {})


class Training(NamedTuple):
    """A network's supervised training, before its first update.

    Attributes:
      state: parameters as they begin.
      step: `(state, batch) -> (state, metrics)`; a batch has `graph`, `label`,
        `index`, `weight` and `draw`.
      apply_fn: `(variables, graph, train=, ...) -> {network: logits [b]}`.
      plan: shuffled passes over the training memes.
    """

    state: steps.State
    step: Callable[..., Any]
    apply_fn: Callable[..., Any]
    plan: plans.Plan


def supervised(
    config: ConfigDict,
    train: dataset.Split,
    *,
    net: gnn.MemeGraphNet,
    example: Tree,
    memes: slice,
    seed: int,
) -> Training:
    """The supervised training that the section `graph` describes.

    Args:
      config: a run's.
      train: the training split.
      net: the network.
      example: a graph as it will read them.
      memes: which of a batch's graphs are the memes'; the others are padding.
      seed: of parameters, order and dropout.

    Raises:
      ValueError: if there is nothing of one label to train on.
    """
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    c, n = config.graph, len(train.labels)
    key = key_of(seed, 2)
    variables = jax.jit(functools.partial(net.init, train=False))(key, example)
    total = max(1, round(c.epochs * n / c.batch))
    tx, rates = optimizer(c.optimizer, params=variables["params"], total=total)
    positives = float(np.mean(train.labels == 1))
    apply_fn = _arm(net, c.network, memes)
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=lambda _, batch, **__: batch["graph"],
        positive_weight=(1 - positives) / positives if c.balance else 1.0,
        learning_rates=rates,
    )
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    plan = plans.shuffled(n, batch=c.batch, steps=total, seed=2 * seed + 1)
    return Training(state, step, apply_fn, plan)


def _arm(net: gnn.MemeGraphNet, name: str, memes: slice) -> Callable[..., Any]:
    """`(variables, graph, train=, ...) -> {name: logits [b]}`, as an arm's."""

    def apply_fn(variables: Any, graph: Any, *, train: bool, **more: Any) -> Any:
        out = net.apply(variables, graph, train=train, **more)
        if "mutable" not in more:
            return {name: out[memes]}
        return {name: out[0][memes]}, out[1]

    return apply_fn
