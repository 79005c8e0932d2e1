"""Classifiers of meme graphs: graph layers, a readout, one logit.

Every classifier here maps a graph with nodes `[N, d]` to logits `[G]`, one per graph,
padding included: `logits[:b]` belong to the b memes of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.gat import GAT, GATv2
from memejax.models.gnn.gcn import GCN
from memejax.models.gnn.readout import AttentionPool, mean_nodes, node_at
from memejax.models.gnn.rgcn import RGCN
from memejax.models.gnn.sage import GraphSAGE
from memejax.models.heads import Classifier
from memejax.models.layers import Dropout

LAYERS = ("gcn", "sage", "gat", "gatv2", "rgcn")
READOUTS = ("mean", "attention", "node")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "relu": nn.relu,
    "tanh": jnp.tanh,
}
# The first three are the published networks; on 256 features they have 42,209, 84,193
# and 17,665 parameters.
GNNS: dict[str, dict[str, Any]] = {
    "gcn": dict(
        layer="gcn",
        widths=(128, 64, 16),
        activation="tanh",
        last_activation=True,
        dropouts=(0.0, 0.0, 0.0, 0.5),
    ),
    "sage": dict(
        layer="sage",
        widths=(128, 64, 16),
        activation="relu",
        dropouts=(0.0, 0.5, 0.2, 0.5),
    ),
    "gat": dict(
        layer="gat",
        widths=(8, 16),
        heads=(8, 1),
        activation="elu",
        dropouts=(0.6, 0.5, 0.5),
        attention_dropout=0.6,
    ),
    "gatv2": dict(
        layer="gatv2",
        widths=(8, 16),
        heads=(8, 1),
        activation="elu",
        dropouts=(0.6, 0.5, 0.5),
        attention_dropout=0.6,
    ),
    "rgcn": dict(
        layer="rgcn",
        widths=(128, 64, 16),
        activation="relu",
        dropouts=(0.0, 0.5, 0.2, 0.5),
        edge_fields=("type",),
    ),
}


class GraphClassifier(nn.Module):
    """Graph layers with activations between them, a readout, one logit per graph.

    Parameters: `layer<i>`, `pool` with the readout "attention", `classifier/logit`.

    Attributes:
        layer: one of `LAYERS`.
        widths: width of each layer; of each head in "gat" and "gatv2".
        dropouts: rates before each layer and before the logit: one more than layers.
        activation: one of `ACTIVATIONS`.
        last_activation: whether the activation also follows the last layer.
        heads: number of heads per layer in "gat" and "gatv2". They are concatenated,
            but averaged in the last layer.
        attention_dropout: dropout rate of the attention weights.
        aggregate: "mean" or "max", in "sage".
        edge_fields: fields of `graph.edges` that layers read: at most one field of
            weights in "gcn", one of types in "rgcn", any in "gatv2", which encodes
            integer fields one-hot.
        relations: number of edge types.
        readout: one of `READOUTS`.
        place: position in its graph of the node that the readout "node" takes.

    References:
        Exploring emerging properties in multimodal neural networks, its graph
        networks on memes ("gcn", "sage", "gat" of `GNNS`). As published, the dropout
        before the logit stays on at test time; here it does not.
    """

    layer: str
    widths: Sequence[int]
    dropouts: Sequence[float]
    activation: str
    last_activation: bool = False
    heads: Sequence[int] = ()
    attention_dropout: float = 0.0
    aggregate: str = "mean"
    edge_fields: Sequence[str] = ()
    relations: int = 0
    readout: str = "mean"
    place: int = 0

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jax.Array:
        """Map nodes `[N, d]` to logits `[G]`; rng "dropout".

        Raises:
            ValueError: if an option is unknown or sizes do not match.
        """
        self._check()
        for i, width in enumerate(self.widths):
            dropped = Dropout(self.dropouts[i])(graph.nodes, deterministic=not train)
            graph = self._layer(i, width)(graph._replace(nodes=dropped), train=train)
            if self.last_activation or i + 1 < len(self.widths):
                activated = ACTIVATIONS[self.activation](jnp.asarray(graph.nodes))
                graph = graph._replace(nodes=activated)
        if self.readout == "mean":
            features = mean_nodes(graph)
        elif self.readout == "attention":
            features = AttentionPool(name="pool")(graph)
        else:
            features = node_at(graph, self.place)
        return Classifier(self.dropouts[-1], name="classifier")(features, train=train)

    def _layer(self, i: int, width: int) -> nn.Module:
        name, fields = f"layer{i}", tuple(self.edge_fields)
        if self.layer == "gcn":
            return GCN(width, weight_field=fields[0] if fields else None, name=name)
        if self.layer == "sage":
            return GraphSAGE(width, aggregate=self.aggregate, name=name)
        if self.layer == "rgcn":
            return RGCN(
                width, relations=self.relations, type_field=fields[0], name=name
            )
        attention: dict[str, Any] = dict(
            heads=self.heads[i],
            concat=i + 1 < len(self.widths),
            dropout=self.attention_dropout,
            name=name,
        )
        if self.layer == "gat":
            return GAT(width, **attention)
        return GATv2(width, edge_fields=fields, relations=self.relations, **attention)

    def _check(self) -> None:
        for name, options in dict(
            layer=LAYERS, activation=tuple(ACTIVATIONS), readout=READOUTS
        ).items():
            if getattr(self, name) not in options:
                raise ValueError(
                    f"{name} must be one of {options}, got {getattr(self, name)!r}"
                )
        layers = len(self.widths)
        heads = len(self.heads) if self.layer in ("gat", "gatv2") else layers
        if len(self.dropouts) != layers + 1 or heads != layers:
            raise ValueError(
                f"got {layers} layers, {len(self.dropouts)} dropouts and "
                f"{len(self.heads)} heads, expected one dropout more than layers and, "
                "with attention, one number of heads per layer"
            )
        least, most = {"gcn": (0, 1), "rgcn": (1, 1), "gatv2": (0, None)}.get(
            self.layer, (0, 0)
        )
        fields = len(self.edge_fields)
        if fields < least or (most is not None and fields > most):
            raise ValueError(
                f"got edge_fields {tuple(self.edge_fields)}, expected {least} to "
                f"{'any number' if most is None else most} in {self.layer!r}"
            )


class MemeGraphNet(nn.Module):
    """A node encoder and a graph classifier.

    Attributes:
        encoder: maps nodes of several kinds to `[N, d]`, such as `NodeEncoder`.
        head: maps nodes `[N, d]` to logits `[G]`, such as `GraphClassifier`, `MLP` or
            `DeepSets`.
    """

    encoder: nn.Module
    head: nn.Module

    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jax.Array:
        """Map a graph to logits `[G]`."""
        return self.head(self.encoder(graph, train=train), train=train)
