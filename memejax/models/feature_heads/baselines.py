"""Heads without an interaction of the modalities: a linear probe and an MLP.

Shape suffixes: `b` batch, `d` features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.feature_heads.base import (
    FeatureHead,
    HeadOutput,
    MappedFeatures,
    PreOutput,
    as_features,
    linear,
)


class LinearHead(FeatureHead):
    """Logistic regression on both features side by side: `w . [v; t] + b`.

    The embedding is the concatenation `[v; t]`. Parameters: `logit`.
    """

    @nn.compact
    def __call__(
        self, image_bd: jax.Array, text_bd: jax.Array, *, train: bool
    ) -> HeadOutput:
        """Classify memes, as described in `FeatureHead`; there is no dropout."""
        del train
        joint = jnp.concatenate(as_features(image_bd, text_bd), axis=-1)
        logits = linear(1, inputs=joint.shape[-1], name="logit")(joint)
        return HeadOutput(logits[:, 0], joint)


class ConcatMlp(FeatureHead):
    """MLP on the concatenation of the mapped features, Hate-CLIPper's baseline.

    With u(x) = x / |x|, m_v = Dropout(W_v v + b_v), and m_t likewise:

        logit = Linear(MLP(Dropout([u(m_v); u(m_t)]))),
        MLP = layers x (Linear, ReLU, Dropout)

    Parameters: `image_map/linear`, `text_map/linear`, `pre_output/linear<i>`, `logit`.

    Attributes:
        width: width of the maps and of the MLP.
        layers: linear layers in the MLP, at least 1.
        map_dropout: rate after the maps.
        fusion_dropout: rate before the MLP.
        dropout: rate in the MLP.

    References:
        Kumar and Nandakumar, Hate-CLIPper, arXiv 2210.05916.
    """

    width: int = 1024
    layers: int = 3
    map_dropout: float = 0.2
    fusion_dropout: float = 0.4
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, image_bd: jax.Array, text_bd: jax.Array, *, train: bool
    ) -> HeadOutput:
        """Classify memes, as described in `FeatureHead`."""
        image, text = as_features(image_bd, text_bd)
        maps = [
            MappedFeatures(self.width, self.map_dropout, name=name)
            for name in ("image_map", "text_map")
        ]
        fused = jnp.concatenate(
            [maps[0](image, train=train), maps[1](text, train=train)], axis=-1
        )
        pre_output = PreOutput(
            width=self.width,
            layers=self.layers,
            input_dropout=self.fusion_dropout,
            dropout=self.dropout,
            name="pre_output",
        )
        embedding, hidden = pre_output(fused, train=train)
        logits = linear(1, inputs=self.width, name="logit")(hidden)
        return HeadOutput(logits[:, 0], embedding)
