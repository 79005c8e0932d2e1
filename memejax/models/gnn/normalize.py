"""Nodes made positive and of sum 1, as the published graph networks have them."""

import flax.linen as nn
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import check_nodes, node_graph


def normalize_nodes(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Features less the least of their graph, over their sum.

        y_i = x_i - min(x over the graph),   out_i = y_i / max(1, sum y_i)

    Features that lie close to each other all become about one over their number:
    the published networks' nodes hardly differ, which is one of their faults.

    Args:
        graph: nodes `[N, d]` float.

    Returns:
        The graph with nodes `[N, d]`, at least 0.

    Raises:
        ValueError: if the graph has no such nodes.

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
    # 0 for a graph without nodes, which nobody reads.
    least = jraph.segment_min_or_constant(x.min(axis=-1), ids, len(graph.n_node))
    y = x - least[ids][:, None]
    return graph._replace(nodes=y / jnp.maximum(y.sum(-1, keepdims=True), 1.0))


class Normalized(nn.Module):
    """An encoder whose nodes are normalised by `normalize_nodes`.

    Attributes:
        encoder: nodes of several kinds to `[N, d]`, as `NodeEncoder`.
    """

    encoder: nn.Module

    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jraph.GraphsTuple:
        """Map a graph to one with nodes `[N, d]`."""
        return normalize_nodes(self.encoder(graph, train=train))
