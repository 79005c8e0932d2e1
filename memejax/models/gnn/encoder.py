"""Projection of nodes of several kinds to features of one width.

The nodes of a meme graph are images, captions and entities, and each kind has features
of its own width. They come as a dict of two arrays, so that shapes are static:

    features  float32 [N, widest]  a node's features, then zeros up to the widest kind
    kind      int32 [N]            the node's kind; -1 on padding

Axes: N nodes, G graphs, `d` features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.layers import Dense, Dropout, LayerNorm, gelu


class Projection(nn.Module):
    """Two affine maps with a residual connection, then layer normalisation.

        p = W_1 x,   out = LayerNorm(p + dropout(W_2 gelu(p)))

    Parameters: `linear`, `hidden`, each a `Dense`, and `norm`.

    References:
        Exploring emerging properties in multimodal neural networks, the projection
        head of its graph networks.
    """

    features: int = 256
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map `[n, d]` to `[n, features]`."""
        linear = Dense(self.features, name="linear")(x)
        hidden = Dense(self.features, name="hidden")(gelu(linear))
        hidden = Dropout(self.dropout)(hidden, deterministic=not train)
        return LayerNorm(eps=1e-5, name="norm")(linear + hidden)


class NodeEncoder(nn.Module):
    """A projection for each kind of node, to features of one width.

    Parameters: `<name>`, a `Projection`, for each name in `names`.

    Attributes:
        widths: feature width of each kind.
        names: the projection of each kind. Kinds with the same name share a projection
            and have one width: `("image", "text", "image")` projects entities as
            images.
        features: width of the output.
        single_kinds: kinds with at most one node per graph. They are gathered before
            they are projected, which takes G products instead of N. If a graph has
            more than one, some nodes of the batch become 0.
        max_counts: the same for kinds with more nodes: the largest number per graph of
            each kind; () if unknown.
        dropout: rate in the projections, in [0, 1).
    """

    widths: Sequence[int]
    names: Sequence[str]
    features: int = 256
    single_kinds: Sequence[int] = ()
    max_counts: Sequence[int] = ()
    dropout: float = 0.1

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jraph.GraphsTuple:
        """Map nodes `{"features": [N, widest], "kind": [N]}` to `[N, features]`.

        Raises:
            ValueError: if the nodes have other fields, are narrower than a kind, or
                kinds with the same name differ in width.
        """
        features, kind = self._checked(graph)
        n = len(kind)
        most = dict(enumerate(self.max_counts)) | dict.fromkeys(self.single_kinds, 1)
        out = jnp.zeros((n, self.features), jnp.float32)
        for name in dict.fromkeys(self.names):
            kinds = [k for k, other in enumerate(self.names) if other == name]
            x = features[:, : self.widths[kinds[0]]]
            project = Projection(self.features, dropout=self.dropout, name=name)
            selected = jnp.isin(kind, jnp.asarray(kinds))
            if set(kinds) <= set(most):
                size = min(n, sum(most[k] for k in kinds) * len(graph.n_node))
                # Unused rows get index n, which mode="drop" discards.
                (rows,) = jnp.nonzero(selected, size=size, fill_value=n)
                projected = project(x[jnp.minimum(rows, n - 1)], train=train)
                out = out.at[rows].set(projected, mode="drop")
            else:
                out = jnp.where(selected[:, None], project(x, train=train), out)
        return graph._replace(nodes=out)

    def _checked(self, graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array]:
        nodes: Any = graph.nodes
        if not isinstance(nodes, Mapping) or not {"features", "kind"} <= set(nodes):
            got = sorted(nodes) if isinstance(nodes, Mapping) else type(nodes).__name__
            raise ValueError(f"got nodes {got}, expected fields 'features' and 'kind'")
        if len(self.widths) != len(self.names):
            raise ValueError(
                f"got {len(self.widths)} widths and {len(self.names)} names, expected "
                "one of each per kind"
            )
        if len(self.max_counts) not in (0, len(self.names)):
            raise ValueError(
                f"got max_counts {tuple(self.max_counts)}, expected a number for each "
                f"of {len(self.names)} kinds, or none"
            )
        width = nodes["features"].shape[-1]
        if width < max(self.widths):
            raise ValueError(
                f"got features of width {width}, expected at least {max(self.widths)}"
            )
        shared = {(n, w) for n, w in zip(self.names, self.widths, strict=True)}
        if len(shared) != len(set(self.names)):
            raise ValueError(
                f"got names {tuple(self.names)} with widths {tuple(self.widths)}, "
                "expected one width per name"
            )
        return jnp.asarray(nodes["features"], jnp.float32), nodes["kind"]
