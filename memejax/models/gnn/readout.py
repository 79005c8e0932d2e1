"""Readouts: one vector per graph from its nodes.

Axes: N nodes, G graphs, `d` features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import check_nodes, node_graph, segment_softmax
from memejax.models.layers import Dense


def mean_nodes(graph: jraph.GraphsTuple) -> jax.Array:
    """Average the nodes of each graph.

    Args:
        graph: nodes `[N, d]` float.

    Returns:
        `[G, d]`; 0 for a graph without nodes.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0], [10.0]]), edges=None, globals=None,
    ...     senders=jnp.zeros(0, int), receivers=jnp.zeros(0, int),
    ...     n_node=jnp.array([2, 1, 0]), n_edge=jnp.array([0, 0, 0]))
    >>> print(mean_nodes(graph)[:, 0], node_at(graph, 1)[:, 0])
    [ 2. 10.  0.] [3. 0. 0.]
    """
    x = check_nodes(graph)
    ids = node_graph(graph, len(x))
    total = jraph.segment_sum(x, ids, len(graph.n_node))
    count = jnp.maximum(jnp.asarray(graph.n_node), 1).astype(x.dtype)
    return total / count[:, None]


def node_at(graph: jraph.GraphsTuple, place: int) -> jax.Array:
    """Select one node of each graph, such as the image (0) or the text (1).

    Args:
        graph: nodes `[N, d]` float.
        place: index counted from the first node of each graph, at least 0.

    Returns:
        `[G, d]`; 0 for a graph with too few nodes.
    """
    x = check_nodes(graph)
    n_node = jnp.asarray(graph.n_node)
    row = jnp.minimum(jnp.cumsum(n_node) - n_node + place, len(x) - 1)
    return jnp.where((place < n_node)[:, None], x[row], 0.0)


class AttentionPool(nn.Module):
    """Attention pooling: a mean over each graph's nodes, weighted by node scores.

        out_g = sum_{i in g} softmax_g(w . x_i + b) x_i

    The weights, float32 `[N]`, are sown into "intermediates" under "attention".

    Parameters: `score`, a `Dense` to one feature (the `gate_nn` of PyTorch
    Geometric's AttentionalAggregation).

    References:
        Ilse et al., Attention-based deep multiple instance learning, 1802.04712,
        equation 7, with a linear score.
    """

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Map nodes `[N, d]` to `[G, d]`; 0 for a graph without nodes."""
        x = check_nodes(graph)
        ids, count = node_graph(graph, len(x)), len(graph.n_node)
        scores = Dense(1, name="score")(x)[:, 0]
        everywhere = jnp.ones(len(x), bool)
        weights = segment_softmax(scores, ids, segments=count, where=everywhere)
        self.sow("intermediates", "attention", weights)
        return jraph.segment_sum(x * weights[:, None], ids, count)
