"""Baselines for graph networks: the same nodes without edges.

Both map a graph with nodes `[N, d]` to logits `[G]`, as `GraphClassifier` does.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from memejax.models.gnn.readout import mean_nodes, node_at
from memejax.models.gnn.segments import check_nodes
from memejax.models.heads import Classifier
from memejax.models.layers import Dense


class MLP(nn.Module):
    """One hidden layer over the image node and the text node: [x_0, x_1].

    With `places=(1,)` it reads the text alone: the baseline that pictures and entities
    have to beat.

    Parameters: `hidden`, a `Dense`, and `classifier/logit`.

    Attributes:
        hidden: width of the hidden layer.
        dropout: rate before the logit, in [0, 1).
        places: positions in each graph of the nodes to read.
    """

    hidden: int = 128
    dropout: float = 0.5
    places: tuple[int, ...] = (0, 1)

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jax.Array:
        """Map nodes `[N, d]` to logits `[G]`; rng "dropout"."""
        read = jnp.concatenate([node_at(graph, i) for i in self.places], axis=-1)
        features = nn.relu(Dense(self.hidden, name="hidden")(read))
        return Classifier(self.dropout, name="classifier")(features, train=train)


class DeepSets(nn.Module):
    """Deep sets: a map of every node, the mean over nodes, and a map of the mean.

    y = w . relu(W_2 mean_i relu(W_1 x_i))

    Parameters: `node`, `graph`, each a `Dense`, and `classifier/logit`.

    Attributes:
        hidden: width of both maps.
        dropout: rate before the logit, in [0, 1).

    References:
        Zaheer et al., Deep sets, 1703.06114, theorem 2, with a mean in place of the
        sum.
    """

    hidden: int = 128
    dropout: float = 0.5

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jax.Array:
        """Map nodes `[N, d]` to logits `[G]`; rng "dropout"."""
        nodes = nn.relu(Dense(self.hidden, name="node")(check_nodes(graph)))
        pooled = mean_nodes(graph._replace(nodes=nodes))
        features = nn.relu(Dense(self.hidden, name="graph")(pooled))
        return Classifier(self.dropout, name="classifier")(features, train=train)
