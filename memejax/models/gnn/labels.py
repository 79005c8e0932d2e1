"""Labels of other memes as features of their nodes."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import jraph


class LabelledNodes(nn.Module):
    """An encoder that adds an embedding of each node's label, if it has one.

        out_i = encoder(x)_i + t[label_i],   t[-1] = 0

    Parameters: `encoder`, and `label` `[2, features]`, t.

    Attributes:
        encoder: maps nodes of several kinds to `[N, features]`, such as `NodeEncoder`.

    References:
        Shi et al., Masked label prediction: unified message passing model for
        semi-supervised classification, 2009.03509, section 3.2. The label to be
        predicted is always hidden, there and in `memejax.graphs.sample`.
    """

    encoder: nn.Module

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jraph.GraphsTuple:
        """Encode a graph whose nodes also have `label`, int `[N]` in {-1, 0, 1}.

        Raises:
            ValueError: if the nodes have no labels.
        """
        fields: Any = graph.nodes
        if "label" not in fields:
            raise ValueError(f"got nodes {sorted(fields)}, expected the field 'label'")
        label = jnp.asarray(fields["label"])
        encoded = self.encoder(graph, train=train)
        nodes: Any = encoded.nodes
        # On the scale of the encoder's rows, which are normalised.
        normal = nn.initializers.normal(1.0)
        table = self.param("label", normal, (2, nodes.shape[-1]))
        shown = jnp.where((label >= 0)[:, None], table[jnp.maximum(label, 0)], 0.0)
        return encoded._replace(nodes=nodes + shown)
