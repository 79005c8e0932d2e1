"""Drawings of some memes' graphs with the network's attention."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jax
import jraph
import numpy as np
from ml_collections import ConfigDict

from memejax import graphs
from memejax.data import images
from memejax.explain.graph_pictures import Drawing, graph_grid
from memejax.models import gnn
from memejax.stages.parts.graphs.networks import stored_network
from memejax.store.read import SplitFeatures, open_store

FILE = "graphs.png"
# Memes drawn, half of them those with the highest P(hateful).
MEMES = 4
# Side of a drawn picture in pixels.
SIDE = 320


def draw(config: ConfigDict, variables: Any, *, proba: np.ndarray) -> bytes | None:
    """Draw the graphs of some dev memes of a run.

    Args:
        config: the run's config.
        variables: of its network.
        proba: P(hateful) of each meme of the dev split, `[n]`.

    Returns:
        A PNG; None if the network reads no edges of stored graphs, no dev meme has an
        entity, or a picture file is missing.
    """
    store = open_store(config.features)
    split = store.splits[config.data.dev]
    rows = _chosen(split, proba)
    drawn = config.graph.kind == "stored" and config.graph.network in gnn.GNNS
    if not drawn or not len(rows):
        return None
    root = pathlib.Path(config.data.root or store.facts["root"] or "")
    try:
        pictures = [
            images.decode(str(root / split.images[row]), size=SIDE, resize="square")[0]
            for row in rows
        ]
    except images.ImageError:
        return None
    graph = graphs.batch(
        split.features,
        rows,
        relations=tuple(config.graph.relations),
        overlap=config.graph.overlap,
        similar=config.graph.similar,
    )
    weights = graph_attention(
        config, variables, graph, widths=graphs.widths(split.features)
    )
    label_names = {-1: "label unknown", 0: "not hateful", 1: "hateful"}
    return graph_grid(
        [
            _drawing(
                split,
                row,
                graph,
                i,
                weights,
                picture,
                f"{split.ids[row]}: P(hateful) {proba[row]:.2f}, "
                f"is {label_names[int(split.labels[row])]}",
            )
            for i, (row, picture) in enumerate(zip(rows, pictures, strict=True))
        ]
    )


def graph_attention(
    config: ConfigDict,
    variables: Any,
    graph: jraph.GraphsTuple,
    *,
    widths: tuple[int, ...],
) -> np.ndarray | None:
    """Return the attention weight of each edge, averaged over layers and heads.

    Args:
        config: config of a run on stored graphs.
        variables: of its network.
        graph: from `graphs.batch`, with E edges.
        widths: feature width of each kind of node.

    Returns:
        float32 `[E]` in [0, 1]; None if the network has no attention between nodes.
    """
    net = stored_network(config, widths)
    apply = functools.partial(net.apply, train=False, mutable=["intermediates"])
    _, sown = jax.jit(apply)(variables, jax.device_put(graph))
    # A pool's weights are of nodes, [N]; a layer's of edges and self loops, [E + N, h].
    layers = [x for x in jax.tree.leaves(sown) if x.ndim == 2]
    if not layers:
        return None
    edges = [np.asarray(x)[: len(graph.senders)].mean(axis=1) for x in layers]
    return np.mean(edges, axis=0)


def _chosen(split: SplitFeatures, proba: np.ndarray) -> np.ndarray:
    """Choose memes with entities: the highest P(hateful), then the lowest."""
    rows = np.flatnonzero(split.features.where.any(axis=1))
    rows = rows[np.argsort(-proba[rows], kind="stable")]
    if len(rows) <= MEMES:
        return rows
    return np.concatenate([rows[: MEMES // 2], rows[-(MEMES // 2) :]])


def _drawing(
    split: SplitFeatures,
    row: int,
    graph: jraph.GraphsTuple,
    number: int,
    weights: np.ndarray | None,
    picture: np.ndarray,
    title: str,
) -> Drawing:
    """Make the drawing of graph `number` of a batch, the meme in `row` of the split."""
    node = int(graph.n_node[:number].sum())
    nodes = slice(node, node + int(graph.n_node[number]))
    edge = int(graph.n_edge[:number].sum())
    edges = slice(edge, edge + int(graph.n_edge[number]))
    memes, own = split.features, split.masks
    return Drawing(
        title=title,
        picture_hwc=picture,
        size=(int(memes.sizes[row, 0]), int(memes.sizes[row, 1])),
        boxes=memes.boxes[row],
        where=memes.where[row].astype(bool),
        masks=None if own is None else own[row],
        kinds=graph.nodes["kind"][nodes],
        places=graph.nodes["place"][nodes],
        senders=graph.senders[edges] - node,
        receivers=graph.receivers[edges] - node,
        weights=None if weights is None else weights[edges],
    )
