"""GraphSAGE: a map of a node's features plus a map of its neighbours' aggregate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.segments import check_nodes

AGGREGATES = ("mean", "max")
# PyTorch's default for a linear layer: uniform within 1 / sqrt(in).
_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class GraphSAGE(nn.Module):
    """GraphSAGE: a linear map of the neighbours' mean or maximum, and one of the node.

        out_i = W_n aggregate_{j -> i} x_j + b + W_r x_i

    over the edges j -> i, without added self loops; a node without edges aggregates
    to 0. Axes: N nodes, `d` features.

    Parameters: `neighbours/kernel`, `root/kernel` `[in, features]`, `bias`
    `[features]` (SAGEConv's `lin_l.weight`, `lin_r.weight`, `lin_l.bias`).

    Attributes:
        features: width of the output.
        aggregate: "mean" or "max".

    References:
        Hamilton et al., Inductive representation learning on large graphs,
        1706.02216, algorithm 1.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0], [10.0]]), edges=None, globals=None,
    ...     senders=jnp.array([0, 1]), receivers=jnp.array([2, 2]),
    ...     n_node=jnp.array([3]), n_edge=jnp.array([2]))
    >>> one = {"kernel": jnp.ones((1, 1))}
    >>> params = {"neighbours": one, "root": one, "bias": jnp.zeros(1)}
    >>> print(GraphSAGE(1).apply({"params": params}, graph).nodes[:, 0])
    [ 1.  3. 12.]
    """

    features: int
    aggregate: str = "mean"

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, *, train: bool = False
    ) -> jraph.GraphsTuple:
        """Map nodes `[N, d]` to `[N, features]`; the rest is unchanged.

        Raises:
            ValueError: if the graph's nodes are not `[N, d]`, or the aggregate is
                unknown.
        """
        del train  # Training and evaluation do the same.
        if self.aggregate not in AGGREGATES:
            raise ValueError(
                f"aggregate must be one of {AGGREGATES}, got {self.aggregate!r}"
            )
        x = check_nodes(graph)
        n, width = x.shape
        senders, receivers = graph.senders, graph.receivers
        neighbours = _Kernel(self.features, name="neighbours")(width)
        root = _Kernel(self.features, name="root")(width)
        if self.aggregate == "max":
            # 0, not the -inf of an empty maximum, at a node without edges.
            most = jraph.segment_max_or_constant(x[senders], receivers, n)
            out, own = most @ neighbours, x @ root
        else:
            # Map first: the mean is then over the outputs, which are usually narrower.
            # One product for both maps is faster than two.
            both = x @ jnp.concatenate([neighbours, root], axis=1)
            mapped, own = jnp.split(both, 2, axis=1)
            total = jraph.segment_sum(mapped[senders], receivers, n)
            count = jraph.segment_sum(jnp.ones(len(receivers)), receivers, n)
            out = total / jnp.maximum(count, 1.0)[:, None]
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return graph._replace(nodes=out + bias[None] + own)


class _Kernel(nn.Module):
    """The matrix of a linear map, `kernel` `[in, features]`."""

    features: int

    @nn.compact
    def __call__(self, width: int) -> jax.Array:
        return self.param("kernel", _INIT, (width, self.features), jnp.float32)
