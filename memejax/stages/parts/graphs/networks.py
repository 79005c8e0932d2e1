"""Networks on graphs of stored features: from the section `graph` to Linen modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from memejax.graphs.meme_graph import EDGE_TYPES
from memejax.models import gnn
from memejax.models.gnn.normalize import Normalized
from memejax.stages.parts.choices import choose

# Projection of each kind of node; entities, crops of images, share the images'.
PROJECTIONS = ("image", "text", "image", "token")


def _graph_classifier(c: ConfigDict) -> gnn.GraphClassifier:
    fields = gnn.GNNS[c.network]
    if c.edge_fields:
        fields = fields | dict(edge_fields=tuple(c.edge_fields))
    return gnn.GraphClassifier(
        **{**fields, "readout": c.readout, "relations": len(EDGE_TYPES)}
    )


# Name -> nodes of one width to logits; all but the last three read edges.
GRAPH_NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    **dict.fromkeys(gnn.GNNS, _graph_classifier),
    "mlp": lambda _: gnn.MLP(),
    "deepsets": lambda _: gnn.DeepSets(),
    "text": lambda _: gnn.MLP(places=(1,)),
}


def stored_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
    """Make the network `config.graph.network`.

    Args:
        config: the run's config.
        widths: feature width of each kind of node, from `graphs.widths`.

    Raises:
        ValueError: for an unknown network; if images and entities differ in width.
    """
    c = config.graph
    head = choose(GRAPH_NETWORKS, c.network, "graph.network")(c)
    if widths[0] != widths[2]:
        raise ValueError(
            f"got images of {widths[0]} features and entities of {widths[2]}: expected "
            "those of one encoder, which share their projection"
        )
    encoder: Any = gnn.NodeEncoder(
        widths,
        PROJECTIONS[: len(widths)],
        features=c.width,
        single_kinds=(0, 1),
        dropout=c.projection_dropout,
    )
    if c.normalize_features:
        encoder = Normalized(encoder)
    return gnn.MemeGraphNet(encoder, head)
