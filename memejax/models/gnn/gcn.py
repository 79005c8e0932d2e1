"""Graph convolution layer. Axes: N nodes, E edges, `d` features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import check_nodes, edge_field
from memejax.models.layers import Dense


class GCN(nn.Module):
    """Graph convolution: a degree-normalised sum over the neighbours and the node.

        out_i = b + sum_j w_ji / sqrt(deg_j deg_i) W x_j,   deg_i = sum_j w_ji

    over the edges j -> i and one self loop per node. A self loop of the graph keeps
    its weight (the last one's if a node has several); an added one has weight 1. A node
    whose degree is not positive gets the bias alone.

    Parameters: `linear/kernel` `[in, features]`, `bias` `[features]` (GCNConv's
    `lin.weight`, transposed, and `bias`).

    Attributes:
        features: width of the output.
        weight_field: field of `graph.edges` with the weights, float `[E]`; all weights
            are 1 if None.

    References:
        Kipf and Welling, Semi-supervised classification with graph convolutional
        networks, 1609.02907, equation 2.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0]]), edges=None, globals=None,
    ...     senders=jnp.array([0]), receivers=jnp.array([1]),
    ...     n_node=jnp.array([2]), n_edge=jnp.array([1]))
    >>> identity = {"linear": {"kernel": jnp.ones((1, 1))}, "bias": jnp.zeros(1)}
    >>> out = GCN(1).apply({"params": identity}, graph)
    >>> print(out.nodes[:, 0].round(4))  # 1, and 1 / sqrt(1 * 2) + 3 / 2
    [1.     2.2071]
    """

    features: int
    weight_field: str | None = None

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, *, train: bool = False
    ) -> jraph.GraphsTuple:
        """Map nodes `[N, d]` to `[N, features]`; the rest is unchanged.

        Raises:
            ValueError: if the graph's nodes are not `[N, d]` or the weights are
                missing.
        """
        del train  # Training and evaluation do the same.
        x = check_nodes(graph)
        n = len(x)
        senders, receivers = graph.senders, graph.receivers
        weights, own = self._weights(graph, n)
        degree = jraph.segment_sum(weights, receivers, n) + own
        where = degree > 0.0
        scale = jnp.where(where, jax.lax.rsqrt(jnp.where(where, degree, 1.0)), 0.0)
        x = Dense(self.features, use_bias=False, name="linear")(x)
        messages = x[senders] * (scale[senders] * weights)[:, None]
        out = jraph.segment_sum(messages, receivers, n) * scale[:, None]
        out = out + x * (jnp.square(scale) * own)[:, None]
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return graph._replace(nodes=out + bias[None])

    def _weights(self, graph: jraph.GraphsTuple, n: int) -> tuple[jax.Array, jax.Array]:
        """Return weights of edges `[E]`, 0 on self loops, and of self loops `[N]`."""
        loop = graph.senders == graph.receivers
        count = len(graph.senders)
        if self.weight_field is None or not count:
            return jnp.where(loop, 0.0, jnp.ones(count)), jnp.ones(n)
        weights = edge_field(graph, self.weight_field, ndim=1)
        place = jnp.where(loop, jnp.arange(count, dtype=jnp.int32), -1)
        last = jraph.segment_max(place, graph.receivers, n)
        own = jnp.where(last >= 0, weights[jnp.maximum(last, 0)], 1.0)
        return jnp.where(loop, 0.0, weights), own
