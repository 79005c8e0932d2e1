"""Nodes of several kinds to features of one width.

A graph of memes has images, captions and entities for nodes, whose features have
widths of their own. They come as a dict with two arrays, so that shapes are static:

    features  float32 [N, widest]  a node's features, then zeros up to the widest kind
    kind      int32 [N]            which kind it is; -1 on padding

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
    """Two affine maps with a residual between them, normalised.

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
    """A projection for each kind of node, into features of one width.

    Parameters: `<name>`, a `Projection`, for each name in `names`.

    Attributes:
        widths: of each kind's features.
        names: the projection of each kind. Kinds of one name share it and have one
            width: `("image", "text", "image")` projects entities as images.
        features: width of the output.
        once: kinds of which a graph has at most one node. They are gathered before
            they are projected, which takes G products and not N. Where a graph has
            more of them than one, some of the batch become 0.
        most: the same for kinds that a graph has more of: of each kind, how many at
            most; () where that is not known.
        dropout: of the projections, in [0, 1).
    """

    widths: Sequence[int]
    names: Sequence[str]
    features: int = 256
    once: Sequence[int] = ()
    most: Sequence[int] = ()
    dropout: float = 0.1

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jraph.GraphsTuple:
        """Map nodes `{"features": [N, widest], "kind": [N]}` to `[N, features]`.

        Raises:
            ValueError: if the nodes have other fields, are narrower than a kind, or
                kinds of one name differ in width.
        """
        features, kind = self._checked(graph)
        n, most = len(kind), dict(enumerate(self.most)) | dict.fromkeys(self.once, 1)
        out = jnp.zeros((n, self.features), jnp.float32)
        for name in dict.fromkeys(self.names):
            kinds = [k for k, other in enumerate(self.names) if other == name]
            x = features[:, : self.widths[kinds[0]]]
            project = Projection(self.features, dropout=self.dropout, name=name)
            shown = jnp.isin(kind, jnp.asarray(kinds))
            if set(kinds) <= set(most):
                size = min(n, sum(most[k] for k in kinds) * len(graph.n_node))
                # Places beyond the last stand for none: they are dropped.
                (rows,) = jnp.nonzero(shown, size=size, fill_value=n)
                found = project(x[jnp.minimum(rows, n - 1)], train=train)
                out = out.at[rows].set(found, mode="drop")
            else:
                out = jnp.where(shown[:, None], project(x, train=train), out)
        return graph._replace(nodes=out)

    def _checked(self, graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array]:
        nodes: Any = graph.nodes
        if not isinstance(nodes, Mapping) or not {"features", "kind"} <= set(nodes):
            got = sorted(nodes) if isinstance(nodes, Mapping) else type(nodes).__name__
            raise ValueError(f"got nodes {got}, expected fields 'features' and 'kind'")
        if len(self.widths) != len(self.names):
            raise ValueError(
                f"got {len(self.widths)} widths and {len(self.names)} names, expected "
                "one of each a kind"
            )
        if len(self.most) not in (0, len(self.names)):
            raise ValueError(
                f"got most {tuple(self.most)}, expected a number for each of "
                f"{len(self.names)} kinds, or none"
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
                "expected one width a name"
            )
        return jnp.asarray(nodes["features"], jnp.float32), nodes["kind"]
