"""Networks on graphs of memes: which graph, and a stage from a config and a store."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jraph
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders
from memejax.build import along, hetero, stored
from memejax.build.choices import choose
from memejax.build.stages import Stage
from memejax.build.stored import GRAPH_NETWORKS as GRAPH_NETWORKS
from memejax.models import gnn


class GraphKind(NamedTuple):
    """What is made of a config where its memes are graphs of one kind.

    Attributes:
      network: `(config, widths)` -> the network.
      data: `config` -> splits whose source has the column `graph`.
      stage: `(config, data, *, seed, mesh)` -> the stage.
      feeder: `(config, split, mesh)` -> one pass, as the stage's `predict` takes it.
    """

    network: Callable[[ConfigDict, tuple[int, ...]], gnn.MemeGraphNet]
    data: Callable[[ConfigDict], dataset.Data]
    stage: Callable[..., Stage]
    feeder: Callable[[ConfigDict, dataset.Split, Mesh], feeders.Feeder]


# Name -> the kind: a graph a meme, of stored features or with their encoders trained
# along, or one graph over all memes.
GRAPHS = {
    "stored": GraphKind(
        stored.stored_network,
        stored.stored_data,
        stored.stored_stage,
        stored.stored_feeder,
    ),
    "trained": GraphKind(
        stored.stored_network,
        along.along_data,
        along.along_stage,
        along.along_feeder,
    ),
    "hetero": GraphKind(
        hetero.hetero_network,
        hetero.hetero_data,
        hetero.hetero_stage,
        hetero.hetero_feeder,
    ),
}


def graph_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
    """The network that `config.graph` names.

    Args:
      config: a run's.
      widths: of the features of each kind of node, as `graph_data` states them.

    Raises:
      ValueError: for an unknown kind of graph, as that kind's own function does.
    """
    return _kind(config).network(config, widths)


def graph_data(config: ConfigDict) -> dataset.Data:
    """Stored features as the stages use data; raises as `graph_network` does."""
    return _kind(config).data(config)


def graph(config: ConfigDict, data: dataset.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Supervised training of a network on graphs of memes.

    Args:
      config: a run's; `graph` is the section.
      data: as `graph_data` gives it.
      seed: of parameters, order and dropout, and of what is sampled.
      mesh: of one device.

    Raises:
      ValueError: as `graph_network` does; if there is nothing of one label to train
        on.
    """
    return _kind(config).stage(config, data, seed=seed, mesh=mesh)


def graph_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split in order, as a graph stage's `predict` takes it."""
    return _kind(config).feeder(config, split, mesh)


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
      float32 `[E]` in [0, 1]; None where the network has no attention between nodes,
      or reads graphs of another kind.
    """
    if config.graph.kind != "stored":
        return None
    net = graph_network(config, widths)
    apply = functools.partial(net.apply, train=False, mutable=["intermediates"])
    _, sown = jax.jit(apply)(variables, jax.device_put(graph))
    # A pool's weights are of nodes, [N]; a layer's of edges and self loops, [E + N, h].
    layers = [x for x in jax.tree.leaves(sown) if x.ndim == 2]
    if not layers:
        return None
    edges = [np.asarray(x)[: len(graph.senders)].mean(axis=1) for x in layers]
    return np.mean(edges, axis=0)


def _kind(config: ConfigDict) -> GraphKind:
    return choose(GRAPHS, config.graph.kind, "graph.kind")
