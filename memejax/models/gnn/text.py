"""The control that reads captions alone."""

import flax.linen as nn
import jax
import jraph

from memejax.models.gnn.readout import node_at
from memejax.models.heads import Classifier
from memejax.models.layers import Dense


class TextOnly(nn.Module):
    """One hidden layer over the text's node: what pictures and entities add to.

    Parameters: `hidden`, a `Dense`, and `classifier/logit`.

    Attributes:
        hidden: width of the hidden layer.
        dropout: before the logit, in [0, 1).
    """

    hidden: int = 128
    dropout: float = 0.5

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, train: bool) -> jax.Array:
        """Map nodes `[N, d]` to logits `[G]`; rng "dropout"."""
        features = nn.relu(Dense(self.hidden, name="hidden")(node_at(graph, 1)))
        return Classifier(self.dropout, name="classifier")(features, train=train)
