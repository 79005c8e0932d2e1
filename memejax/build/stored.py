"""Networks on one graph a meme: from a config and stored features to a stage.

Features lie in the device's memory, and every meme's graph in a static slot of it: a
batch is gathered inside of the compiled step, and a stretch of the plan is one call.
The networks are too small for a second device to help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders, graphs, parallel, steps
from memejax.build.choices import choose
from memejax.build.graph_parts import facts_of, open_features, supervised
from memejax.build.stages import Stage
from memejax.data import plans
from memejax.graphs.meme_graph import EDGE_TYPES
from memejax.graphs.stacked import stack
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


def stored_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
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


def stored_data(config: ConfigDict) -> dataset.Data:
    """Stored features as the stages use data: a column of graphs a split.

    Raises:
      ValueError: as `open_features` does; if a feature is not finite; for relations
        that its memes cannot have.
    """
    store = open_features(config)
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
    widths = graphs.widths(store.splits["train"].features)
    facts = facts_of(config, store, widths=widths)
    return dataset.Data(splits, config.data.dev, 0, facts)


def stored_stage(
    config: ConfigDict, data: dataset.Data, *, seed: int, mesh: Mesh
) -> Stage:
    """Supervised training of a network on the memes' graphs.

    Args:
      config: a run's; `graph` is the section.
      data: as `stored_data` gives it.
      seed: of parameters, order and dropout.
      mesh: of one device.

    Raises:
      ValueError: as `stored_network` and `supervised` do.
    """
    c, train = config.graph, data.splits["train"]
    column: Any = train.source["graph"]
    training = supervised(
        config,
        train,
        net=stored_network(config, tuple(data.facts["widths"])),
        example=column[np.arange(2) % len(column)],
        # Every other graph is padding.
        memes=slice(None, None, 2),
        seed=seed,
    )
    many = steps.gather_steps(training.step)

    def run_chunk(state: Any, chunk: Mapping[str, Any]) -> Any:
        # The plan has an axis of seeds, of which this is one.
        rows = jax.tree.map(lambda x: x[0], chunk["rows"])
        return many(state, rows, chunk["data"])

    return Stage(
        state=parallel.put_state(mesh, training.state),
        run_chunk=jax.jit(run_chunk, donate_argnums=0),
        feeder=feeders.ArrayFeeder(
            train.source,
            plans.stacked([training.plan]),
            mesh=mesh,
            marks=(c.eval_every, config.checkpoint.every, config.log.every),
        ),
        embed=lambda *_: {},
        predict=jax.jit(
            steps.make_predict(
                training.apply_fn,
                views=lambda _, batch, **__: batch["data"]["graph"][batch["index"]],
            )
        ),
        eval_every=c.eval_every,
        patience=c.patience,
    )


def stored_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split in order, as the stage's `predict` takes it."""
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
