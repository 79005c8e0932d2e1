"""What stands on top of an arm's fused features: small multilayer perceptrons.

Shape suffixes: none; every array here is [batch, features].
"""

from __future__ import annotations

import jax
from flax import linen as nn


class Predictor(nn.Module):
    """Linear, ReLU, Linear back to the input's width: SimSiam's predictor.

    References:
      Chen and He, Exploring simple Siamese representation learning, 2011.10566, 3.
    """

    hidden: int = 256

    @nn.compact
    def __call__(self, outputs: jax.Array) -> jax.Array:
        """[b, d] -> [b, d]."""
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(outputs))
        return nn.Dense(outputs.shape[-1], name="out")(hidden)


class Classifier(nn.Module):
    """Dropout and a linear layer to one logit, the log odds of "hateful"."""

    dropout: float = 0.1

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """[b, d] -> [b]."""
        features = nn.Dropout(self.dropout)(features, deterministic=not train)
        return nn.Dense(1, name="logit")(features)[:, 0]
