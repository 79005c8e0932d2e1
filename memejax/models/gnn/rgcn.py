"""Relational graph convolution: one matrix per edge type."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from memejax.models.gnn.segments import check_nodes, edge_field
from memejax.models.layers import contract

_INIT = nn.initializers.glorot_uniform()


class RGCN(nn.Module):
    """Relational graph convolution: a mean over neighbours and a matrix per relation.

        out_i = b + W_root x_i + sum_r mean_{j -> i of type r} W_r x_j

    over the edges j -> i, without added self loops; a relation without edges at a node
    contributes 0. Axes: N nodes, E edges, R relations, `d` features.

    Parameters: `kernel` `[R, in, features]`, `root` `[in, features]`, `bias`
    `[features]` (RGCNConv's `weight`, `root`, `bias`).

    Attributes:
        features: width of the output.
        relations: R, at least 1.
        type_field: field of `graph.edges` with the types, int `[E]` in [0, R). Under
            jit, edges of other types are ignored.

    References:
        Schlichtkrull et al., Modeling relational data with graph convolutional
        networks, 1703.06103, equation 2 with c_ir = |N_ir|.

    >>> graph = jraph.GraphsTuple(
    ...     nodes=jnp.array([[1.0], [3.0], [10.0]]), globals=None,
    ...     edges={"type": jnp.array([0, 0, 1])},
    ...     senders=jnp.array([0, 1, 0]), receivers=jnp.array([2, 2, 2]),
    ...     n_node=jnp.array([3]), n_edge=jnp.array([3]))
    >>> params = {"kernel": jnp.array([[[1.0]], [[100.0]]]),
    ...           "root": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    >>> print(RGCN(1, relations=2).apply({"params": params}, graph).nodes[:, 0])
    [  1.   3. 112.]
    """

    features: int
    relations: int
    type_field: str = "type"

    @nn.compact
    def __call__(
        self, graph: jraph.GraphsTuple, *, train: bool = False
    ) -> jraph.GraphsTuple:
        """Map nodes `[N, d]` to `[N, features]`; the rest is unchanged.

        Raises:
            ValueError: if the graph's nodes are not `[N, d]`, the types are missing,
                or a concrete type is outside [0, R).
        """
        del train  # Training and evaluation do the same.
        x = check_nodes(graph)
        n, (senders, receivers) = len(x), (graph.senders, graph.receivers)
        types = edge_field(graph, self.type_field, ndim=1)
        self._check(types)
        shape = (x.shape[-1], self.features)
        init = nn.initializers.glorot_uniform(batch_axis=(0,))
        kernel = self.param("kernel", init, (self.relations, *shape))
        root = self.param("root", _INIT, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        where = (types >= 0) & (types < self.relations)
        types = jnp.where(where, types, 0)
        # An edge's weight in the mean: 1 / (edges of its type at its receiver).
        group = types * n + receivers
        count = jraph.segment_sum(where.astype(x.dtype), group, self.relations * n)
        share = jnp.where(where, 1.0 / jnp.maximum(count, 1.0)[group], 0.0)
        mapped = contract("nd,rdo->rno", x, b=kernel, dtype=jnp.float32)
        messages = mapped[types, senders] * share[:, None]
        out = jraph.segment_sum(messages, receivers, n)
        out = out + contract("nd,do->no", x, b=root, dtype=jnp.float32)
        return graph._replace(nodes=out + bias[None])

    def _check(self, types: jax.Array) -> None:
        if self.relations < 1:
            raise ValueError(f"got {self.relations} relations, expected at least 1")
        if not jnp.issubdtype(types.dtype, jnp.integer):
            raise ValueError(f"got types of dtype {types.dtype}, expected integers")
        if isinstance(types, jax.core.Tracer) or not len(types):
            return
        known = np.asarray(types)
        if known.min() < 0 or known.max() >= self.relations:
            raise ValueError(
                f"got types {known.min()} to {known.max()}, expected them in "
                f"[0, {self.relations})"
            )
