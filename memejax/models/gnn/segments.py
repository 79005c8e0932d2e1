"""Segment operations: over the edges of each node, or the nodes of each graph.

A `jraph.GraphsTuple` concatenates the nodes of all its graphs, and likewise the edges.
Axes: N nodes, E edges, G graphs, `d` features, `h` heads.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph

# As in PyTorch Geometric: a softmax over nothing is 0, not 0 / 0.
EPS = 1e-16


def check_nodes(graph: jraph.GraphsTuple) -> jax.Array:
    """Check and return the node features of a graph.

    Args:
        graph: nodes `[N, d]` float, senders and receivers int `[E]`.

    Returns:
        The nodes.

    Raises:
        ValueError: if a shape or dtype differs.
    """
    nodes: Any = graph.nodes
    if isinstance(nodes, Mapping) or jnp.ndim(nodes) != 2:
        got = sorted(nodes) if isinstance(nodes, Mapping) else jnp.shape(nodes)
        raise ValueError(f"got nodes {got}, expected one array [nodes, features]")
    if not jnp.issubdtype(nodes.dtype, jnp.floating):
        raise ValueError(f"got nodes of dtype {nodes.dtype}, expected a float")
    shapes = jnp.shape(graph.senders), jnp.shape(graph.receivers)
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(
            f"got senders {shapes[0]} and receivers {shapes[1]}, expected [edges] both"
        )
    # numpy arrays cannot be indexed by tracers.
    return jnp.asarray(nodes)


def edge_field(
    graph: jraph.GraphsTuple, name: str, *, ndim: int | None = None
) -> jax.Array:
    """Check and return one field of the edges.

    Args:
        graph: its `edges` is a dict of arrays `[E, ...]`.
        name: name of the field.
        ndim: required number of axes; any number from 1 if None.

    Returns:
        The array.

    Raises:
        ValueError: if the field is missing or has another shape.
    """
    edges: Any = graph.edges
    if not isinstance(edges, Mapping) or name not in edges:
        got = sorted(edges) if isinstance(edges, Mapping) else type(edges).__name__
        raise ValueError(f"got edges {got}, expected a field {name!r}")
    field = edges[name]
    count = len(graph.senders)
    if field.shape[:1] != (count,) or ndim not in (None, field.ndim):
        axes = "any number of" if ndim is None else ndim
        raise ValueError(
            f"got {name!r} of shape {field.shape}, expected {axes} axes, the first of "
            f"length {count}"
        )
    return jnp.asarray(field)


def edge_features(
    graph: jraph.GraphsTuple, fields: Sequence[str], *, relations: int
) -> jax.Array:
    """Concatenate fields of the edges to one array of features.

    Args:
        graph: its `edges` is a dict of arrays `[E]` or `[E, d]`.
        fields: names; a float field is used as it is, an integer field `[E]` is
            encoded one-hot.
        relations: number of edge types, the width of a one-hot code.

    Returns:
        float32 `[E, ...]`, the fields side by side.

    Raises:
        ValueError: if a field is missing, none is named, or a field of types comes
            with no relations.
    """
    if not fields:
        raise ValueError("got no edge fields, expected at least one")
    columns = []
    for name in fields:
        field = edge_field(graph, name)
        if jnp.issubdtype(field.dtype, jnp.integer):
            if relations < 1:
                raise ValueError(
                    f"got {relations} relations for the types {name!r}, expected at "
                    "least 1"
                )
            field = jax.nn.one_hot(field, relations)
        width = math.prod(field.shape[1:])
        columns.append(field.reshape(len(field), width).astype(jnp.float32))
    return jnp.concatenate(columns, axis=-1)


def with_self_loops(
    graph: jraph.GraphsTuple, n: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Append one self loop per node to the edges.

    The graph's own self loops stay in place but are masked, so that each node has
    exactly one.

    Args:
        graph: senders and receivers `[E]`.
        n: N, the number of nodes.

    Returns:
        Senders, receivers, int32 `[E + N]`, and the mask of valid edges, bool
        `[E + N]`.
    """
    loops = jnp.arange(n, dtype=jnp.int32)
    senders = jnp.concatenate([jnp.asarray(graph.senders, jnp.int32), loops])
    receivers = jnp.concatenate([jnp.asarray(graph.receivers, jnp.int32), loops])
    own = jnp.arange(len(senders)) < len(senders) - n
    return senders, receivers, ~(own & (senders == receivers))


def segment_softmax(
    logits: jax.Array, segment_ids: jax.Array, *, segments: int, where: jax.Array
) -> jax.Array:
    """Compute a softmax over the unmasked elements of each segment.

    w_k = exp(l_k) / (1e-16 + sum over the segment of exp(l_j))

    Args:
        logits: `[k, ...]` float.
        segment_ids: int `[k]` in [0, segments).
        segments: number of segments.
        where: bool `[k]`; masked elements have weight 0 and no gradient.

    Returns:
        Weights `[k, ...]`. They sum to 1 per segment, to 0 if all of it is masked.
    """
    where = where.reshape(-1, *(1,) * (logits.ndim - 1))
    masked = jnp.where(where, logits, -jnp.inf)
    highest = jraph.segment_max(masked, segment_ids, segments)
    # A fully masked segment has -inf, and -inf - -inf is NaN.
    highest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0.0))
    shifted = jnp.where(where, logits - highest[segment_ids], 0.0)
    powers = jnp.where(where, jnp.exp(shifted), 0.0)
    totals = jraph.segment_sum(powers, segment_ids, segments) + EPS
    return powers / totals[segment_ids]


def node_graph(graph: jraph.GraphsTuple, n: int) -> jax.Array:
    """Return the index of each node's graph, int32 `[N]`.

    Args:
        graph: `n_node` int `[G]`, which sums to N.
        n: N, the number of nodes.
    """
    ids = jnp.arange(len(graph.n_node), dtype=jnp.int32)
    return jnp.repeat(ids, jnp.asarray(graph.n_node), total_repeat_length=n)
