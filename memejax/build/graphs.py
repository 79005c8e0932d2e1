"""Networks on graphs of memes: from a config and stored features to a stage.

Features lie in the device's memory, and every meme's graph in a static slot of it: a
batch is gathered inside of the compiled step, and a stretch of the plan is one call.
The networks are too small for a second device to help.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jraph
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders, graphs, parallel, steps
from memejax.build.choices import choose
from memejax.build.optimizers import optimizer
from memejax.build.stages import Stage, key_of
from memejax.data import plans
from memejax.graphs.meme_graph import EDGE_TYPES
from memejax.graphs.stacked import stack
from memejax.graphs.store import Store, open_store
from memejax.models import gnn
from memejax.models.gnn.normalize import Normalized

# Kinds of nodes -> the projection that each has; entities are cut out of images.
PROJECTIONS = ("image", "text", "image", "token")


def _graph_classifier(c: ConfigDict) -> gnn.GraphClassifier:
    fields = gnn.GNNS[c.network]
    if c.edge_fields:
        fields = fields | dict(edge_fields=tuple(c.edge_fields))
    return gnn.GraphClassifier(
        **{**fields, "readout": c.readout, "relations": len(EDGE_TYPES)}
    )


# Name -> nodes of one width to logits; all but the last three read edges.
GRAPH_NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    **dict.fromkeys(gnn.GNNS, _graph_classifier),
    "mlp": lambda _: gnn.MLP(),
    "deepsets": lambda _: gnn.DeepSets(),
    "text": lambda _: gnn.MLP(places=(1,)),
}


def graph_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
    """The network that `config.graph` names.

    Args:
      config: a run's.
      widths: of the features of each kind of node, as `graphs.widths` gives them.

    Raises:
      ValueError: for an unknown network; if images and entities differ in width.
    """
    c = config.graph
    head = choose(GRAPH_NETWORKS, c.network, "graph.network")(c)
    if widths[0] != widths[2]:
        raise ValueError(
            f"got images of {widths[0]} features and entities of {widths[2]}: expected "
            "those of one encoder, which share their projection"
        )
    encoder: Any = gnn.NodeEncoder(
        widths,
        PROJECTIONS[: len(widths)],
        features=c.width,
        once=(0, 1),
        dropout=c.projection_dropout,
    )
    if c.normalize_features:
        encoder = Normalized(encoder)
    return gnn.MemeGraphNet(encoder, head)


def graph_data(config: ConfigDict) -> dataset.Data:
    """Stored features as the stages use data: a column of graphs a split.

    Raises:
      ValueError: if no store is named; if it lacks the training or the dev split;
        if a feature is not finite; for relations that its memes cannot have.
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
    c = config.graph
    splits = {}
    for name, split in store.splits.items():
        column = stack(
            split.features,
            relations=tuple(c.relations),
            overlap=c.overlap,
            similar=c.similar,
        )
        source: Any = {"graph": column, "label": np.asarray(split.labels, np.int32)}
        splits[name] = dataset.Split(name, source, split.ids, source["label"])
    facts = {
        "name": "memes",
        "features": config.features,
        "sizes": {name: len(split.ids) for name, split in splits.items()},
        "widths": list(graphs.widths(store.splits["train"].features)),
        "bad_records": 0,
        "truncated_captions": 0,
        "vocabulary": 0,
    } | _origin(config, store)
    return dataset.Data(splits, config.data.dev, 0, facts)


def graph_attention(
    config: ConfigDict,
    variables: Any,
    graph: jraph.GraphsTuple,
    *,
    widths: tuple[int, ...],
) -> np.ndarray | None:
    """What each edge's receiver gives its sender: the mean over layers and heads.

    Args:
      config: a run's.
      variables: of its network.
      graph: with E edges, as `graphs.batch` makes it.
      widths: as `graph_network` takes them.

    Returns:
      float32 `[E]` in [0, 1]; None where the network has no attention between nodes.
    """
    net = graph_network(config, widths)
    apply = functools.partial(net.apply, train=False, mutable=["intermediates"])
    _, sown = jax.jit(apply)(variables, jax.device_put(graph))
    # A pool's weights are of nodes, [N]; a layer's of edges and self loops, [E + N, h].
    layers = [x for x in jax.tree.leaves(sown) if x.ndim == 2]
    if not layers:
        return None
    edges = [np.asarray(x)[: len(graph.senders)].mean(axis=1) for x in layers]
    return np.mean(edges, axis=0)


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


def graph(config: ConfigDict, data: dataset.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Supervised training of a network on the memes' graphs.

    Args:
      config: a run's; `graph` is the section.
      data: as `graph_data` gives it.
      seed: of parameters, order and dropout.
      mesh: of one device.

    Raises:
      ValueError: as `graph_network` does; if there is nothing of one label to train
        on.
    """
    c, train = config.graph, data.splits["train"]
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    column: Any = train.source["graph"]
    net = graph_network(config, tuple(data.facts["widths"]))
    key = key_of(seed, 2)
    variables = jax.jit(functools.partial(net.init, train=False))(
        key, column[np.arange(2) % len(column)]
    )
    total = max(1, round(c.epochs * len(column) / c.batch))
    tx, rates = optimizer(c.optimizer, params=variables["params"], total=total)
    positives = float(np.mean(train.labels == 1))
    apply_fn = _arm(net, c.network)
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=lambda _, batch, **__: batch["graph"],
        positive_weight=(1 - positives) / positives if c.balance else 1.0,
        learning_rates=rates,
    )
    many = steps.gather_steps(step)

    def run_chunk(state: Any, chunk: Mapping[str, Any]) -> Any:
        # The plan has an axis of seeds, of which this is one.
        rows = jax.tree.map(lambda x: x[0], chunk["rows"])
        return many(state, rows, chunk["data"])

    plan = plans.shuffled(len(column), batch=c.batch, steps=total, seed=2 * seed + 1)
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    return Stage(
        state=parallel.put_state(mesh, state),
        run_chunk=jax.jit(run_chunk, donate_argnums=0),
        feeder=feeders.ArrayFeeder(
            train.source,
            plans.stacked([plan]),
            mesh=mesh,
            marks=(c.eval_every, config.checkpoint.every, config.log.every),
        ),
        embed=lambda *_: {},
        predict=jax.jit(
            steps.make_predict(
                apply_fn,
                views=lambda _, batch, **__: batch["data"]["graph"][batch["index"]],
            )
        ),
        eval_every=c.eval_every,
        patience=c.patience,
    )


def graph_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split in order, as a graph stage's `predict` takes it."""
    plan = plans.sequential(len(split.ids), batch=config.graph.batch)
    return _Rows(jax.device_put(dict(split.source), parallel.replicated(mesh)), plan)


class _Rows:
    """The plan's rows, one batch a chunk, beside data that lies on the device."""

    def __init__(self, data: Mapping[str, Any], plan: plans.Plan):
        self.plan = plan
        self._data = data

    def with_plan(self, plan: plans.Plan) -> _Rows:
        return _Rows(self._data, plan)

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        for step in range(start, len(self.plan) if stop is None else stop):
            yield 1, self.plan.row(step) | {"data": self._data}


def _arm(net: gnn.MemeGraphNet, name: str) -> Callable[..., Any]:
    """`(variables, graph, train=, ...) -> {name: logits [b]}`, as an arm's."""

    def apply_fn(variables: Any, graph: Any, *, train: bool, **more: Any) -> Any:
        out = net.apply(variables, graph, train=train, **more)
        # Every other graph is padding.
        if "mutable" not in more:
            return {name: out[::2]}
        return {name: out[0][::2]}, out[1]

    return apply_fn
