"""Graph attention layers: a node attends to its neighbours and itself.

Axes: N nodes, E edges, `d` features, `h` heads, `f` features per head, `e` features
per edge.

Both layers sow their weights into the collection "intermediates" under "attention",
one array per call, before dropout: float32 `[E + N, h]`. Row k < E is the weight of
edge k at its receiver, 0 if that edge is a self loop; row E + i is the weight of
node i on itself. The weights of a node sum to 1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import (
    check_nodes,
    edge_features,
    segment_softmax,
    with_self_loops,
)
from memejax.models.layers import Dense, Dropout

_INIT = nn.initializers.glorot_uniform()


class GAT(nn.Module):
    """Graph attention whose logits are the sum of a sender's and a receiver's score.

        h_i = W x_i,   l_ji = leaky_relu(a_s . h_j + a_r . h_i)
        out_i = b + sum_j softmax_j(l_ji) h_j

    for each head, over the edges j -> i and one self loop per node (the graph's own
    are ignored). Heads are concatenated or averaged. Rng "dropout", of the weights.

    Parameters: `linear/kernel` `[in, h * f]`, `att_sender`, `att_receiver` `[h, f]`,
    `bias` (GATConv's `lin.weight`, transposed, `att_src`, `att_dst`, `bias`).

    Attributes:
        features: f, width of a head.
        heads: h.
        concat: whether the output is `[N, h * f]`, or the heads' mean `[N, f]`.
        slope: of leaky_relu below 0.
        dropout: rate of the weights, in [0, 1).

    References:
        Velickovic et al., Graph attention networks, 1710.10903, equations 1 to 6.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0]]), edges=None, globals=None,
    ...     senders=jnp.array([0]), receivers=jnp.array([1]),
    ...     n_node=jnp.array([2]), n_edge=jnp.array([1]))
    >>> params = {"linear": {"kernel": jnp.ones((1, 1))}, "bias": jnp.zeros(1),
    ...           "att_sender": jnp.zeros((1, 1)), "att_receiver": jnp.zeros((1, 1))}
    >>> print(GAT(1).apply({"params": params}, graph).nodes[:, 0])
    [1. 2.]
    """

    features: int
    heads: int = 1
    concat: bool = True
    slope: float = 0.2
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, *, train: bool = False
    ) -> jraph.GraphsTuple:
        """Map nodes `[N, d]` to `[N, h * f]` or `[N, f]`; the rest is unchanged.

        Raises:
            ValueError: if the graph's nodes are not `[N, d]`.
        """
        x = check_nodes(graph)
        shape = (self.heads, self.features)
        linear = Dense(
            self.heads * self.features,
            use_bias=False,
            kernel_init=_INIT,
            name="linear",
        )
        values = linear(x).reshape(len(x), *shape)
        att_sender = self.param("att_sender", _INIT, shape)
        att_receiver = self.param("att_receiver", _INIT, shape)
        loops = with_self_loops(graph, len(x))
        senders, receivers, _ = loops
        logits = jnp.sum(values * att_sender[None], -1)[senders]
        logits = logits + jnp.sum(values * att_receiver[None], -1)[receivers]
        logits = nn.leaky_relu(logits, self.slope)
        out = _attend(self, values, logits, loops=loops, train=train)
        return graph._replace(nodes=out)


class GATv2(nn.Module):
    """Graph attention that scores after the nonlinearity and reads edge features.

        u_i = W_s x_i + b_s,   v_i = W_r x_i + b_r
        l_ji = a . leaky_relu(u_j + v_i + W_e e_ji)
        out_i = b + sum_j softmax_j(l_ji) u_j

    for each head, over the edges j -> i and one self loop per node (the graph's own
    are ignored), whose edge features are the mean over the node's incoming edges, 0
    without any. Heads are concatenated or averaged. Rng "dropout", of the weights.

    Parameters: `sender`, `receiver` `[in, h * f]` with biases, `edge/kernel`
    `[e, h * f]`, `att` `[h, f]`, `bias` (GATv2Conv's `lin_l`, `lin_r`, `lin_edge`,
    `att`, `bias`). With `share_weights` there is no `receiver`.

    Attributes:
        features: f, width of a head.
        heads: h.
        concat: whether the output is `[N, h * f]`, or the heads' mean `[N, f]`.
        slope: of leaky_relu below 0.
        dropout: rate of the weights, in [0, 1).
        share_weights: whether v = u.
        edge_fields: fields of `graph.edges` to use as edge features; an integer field
            `[E]` is encoded one-hot.
        relations: width of that one-hot code.

    References:
        Brody et al., How attentive are graph attention networks?, 2105.14491,
        equation 7.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0]]), edges=None, globals=None,
    ...     senders=jnp.array([0]), receivers=jnp.array([1]),
    ...     n_node=jnp.array([2]), n_edge=jnp.array([1]))
    >>> params = {"sender": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
    ...           "att": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
    >>> shared = GATv2(1, share_weights=True)
    >>> print(shared.apply({"params": params}, graph).nodes[:, 0])
    [1. 2.]
    """

    features: int
    heads: int = 1
    concat: bool = True
    slope: float = 0.2
    dropout: float = 0.0
    share_weights: bool = False
    edge_fields: tuple[str, ...] = ()
    relations: int = 0

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, *, train: bool = False
    ) -> jraph.GraphsTuple:
        """Map nodes `[N, d]` to `[N, h * f]` or `[N, f]`; the rest is unchanged.

        Raises:
            ValueError: if the graph's nodes are not `[N, d]` or an edge field is
                missing.
        """
        x = check_nodes(graph)
        shape = (self.heads, self.features)

        def linear(inputs: jax.Array, name: str, *, bias: bool) -> jax.Array:
            dense = Dense(
                self.heads * self.features,
                use_bias=bias,
                kernel_init=_INIT,
                name=name,
            )
            return dense(inputs).reshape(len(inputs), *shape)

        values = linear(x, "sender", bias=True)
        queries = values if self.share_weights else linear(x, "receiver", bias=True)
        loops = with_self_loops(graph, len(x))
        senders, receivers, where = loops
        scores = values[senders] + queries[receivers]
        if self.edge_fields:
            edges = edge_features(graph, self.edge_fields, relations=self.relations)
            edges = _with_means(edges, receivers, where=where, n=len(x))
            scores = scores + linear(edges, "edge", bias=False)
        att = self.param("att", _INIT, shape)
        logits = jnp.sum(nn.leaky_relu(scores, self.slope) * att[None], -1)
        out = _attend(self, values, logits, loops=loops, train=train)
        return graph._replace(nodes=out)


def _with_means(
    edges: jax.Array, receivers: jax.Array, *, where: jax.Array, n: int
) -> jax.Array:
    """Append the self loops' features to those of the edges: `[E + N, e]`."""
    count = len(edges)
    counts = where[:count].astype(edges.dtype)
    into = receivers[:count]
    total = jraph.segment_sum(edges * counts[:, None], into, n)
    number = jraph.segment_sum(counts, into, n)
    return jnp.concatenate([edges, total / jnp.maximum(number, 1.0)[:, None]])


def _attend(
    layer: GAT | GATv2,
    values_nhf: jax.Array,
    logits: jax.Array,
    *,
    loops: tuple[jax.Array, jax.Array, jax.Array],
    train: bool,
) -> jax.Array:
    """Compute the weighted sums of the values: `[N, h * f]` or `[N, f]`.

    Args:
        layer: the calling layer, which owns the attributes, the parameter `bias` and
            the collection.
        values_nhf: the senders' values, `[N, h, f]`.
        logits: `[E + N, h]`.
        loops: senders, receivers and mask, each `[E + N]`.
        train: whether weights are dropped.
    """
    senders, receivers, where = loops
    n = len(values_nhf)
    weights = segment_softmax(logits, receivers, segments=n, where=where)
    # Kept only if the caller makes "intermediates" mutable; `init` does not.
    layer.sow("intermediates", "attention", weights)
    weights = Dropout(layer.dropout)(weights, deterministic=not train)
    messages = values_nhf[senders] * weights[:, :, None]
    out = jraph.segment_sum(messages, receivers, n)
    out = out.reshape(n, -1) if layer.concat else jnp.mean(out, axis=1)
    bias = layer.param("bias", nn.initializers.zeros, (out.shape[-1],))
    return out + bias[None]
