"""Normalisation of nodes to nonnegative features of sum 1, as published."""

import flax.linen as nn
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import check_nodes, node_graph


def normalize_nodes(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Subtract each graph's minimum from its features, then divide by their sum.

        y_i = x_i - min(x over the graph),   out_i = y_i / max(1, sum y_i)

    Features of similar size all become about 1 / d, so the nodes of the published
    networks hardly differ, which is one of their faults.

    Args:
        graph: nodes `[N, d]` float.

    Returns:
        The graph with nodes `[N, d]`, at least 0.

    Raises:
        ValueError: if the graph's nodes are not `[N, d]`.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0, 3.0], [5.0, 1.0]]), edges=None, globals=None,
    ...     senders=jnp.array([0]), receivers=jnp.array([1]),
    ...     n_node=jnp.array([2]), n_edge=jnp.array([1]))
    >>> print(normalize_nodes(graph).nodes)
    [[0. 1.]
     [1. 0.]]
    """
    x = check_nodes(graph)
    ids = node_graph(graph, len(x))
    # 0 for a graph without nodes, where it is unused.
    least = jraph.segment_min_or_constant(x.min(axis=-1), ids, len(graph.n_node))
    y = x - least[ids][:, None]
    return graph._replace(nodes=y / jnp.maximum(y.sum(-1, keepdims=True), 1.0))


class Normalized(nn.Module):
    """An encoder whose nodes are normalised by `normalize_nodes`.

    Attributes:
        encoder: maps nodes of several kinds to `[N, d]`, such as `NodeEncoder`.
    """

    encoder: nn.Module

    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jraph.GraphsTuple:
        """Map a graph to one with nodes `[N, d]`."""
        return normalize_nodes(self.encoder(graph, train=train))
