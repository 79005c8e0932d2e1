"""Hate-CLIPper: the products of the two modalities' features.

Shape suffixes: `b` batch, `d`, `i`, `j` features (of pictures, of captions).
"""

import flax.linen as nn
import jax

from memejax.models.feature_heads.base import (
    FeatureHead,
    HeadOutput,
    MappedFeatures,
    PreOutput,
    as_features,
    linear,
)

FUSIONS = ("align", "cross")


class HateClipper(FeatureHead):
    """MLP on the elementwise or the outer product of the mapped features.

    With u(x) = x / |x|, m_v = Dropout(W_v v + b_v), and m_t likewise:

        align:  f = u(m_v) * u(m_t)              [b, d]
        cross:  f = vec(u(m_v) u(m_t)^T)         [b, d^2], the picture's index first
        logit = Linear(MLP(Dropout(f))),  MLP = layers x (Linear, ReLU, Dropout)

    The embedding is the output of the MLP's last linear layer, before ReLU and dropout,
    as RGCL retrieves with it. At d = 1024, as the paper's counts say, "cross" has
    1.1 billion parameters; the published script has d = 32.

    Parameters: `image_map/linear`, `text_map/linear`, `pre_output/linear<i>`, `logit`.

    Attributes:
        fusion: one of `FUSIONS`.
        width: d, the width of the maps and of the MLP.
        layers: linear layers in the MLP, at least 1.
        map_dropout: rate after the maps.
        fusion_dropout: rate before the MLP.
        dropout: rate in the MLP.

    References:
        Kumar and Nandakumar, Hate-CLIPper, arXiv 2210.05916; Mei et al., Improving
        Hateful Meme Detection through Retrieval-Guided Contrastive Learning (RGCL),
        arXiv 2311.08110.
    """

    fusion: str = "align"
    width: int = 1024
    layers: int = 3
    map_dropout: float = 0.2
    fusion_dropout: float = 0.4
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, image_bd: jax.Array, text_bd: jax.Array, *, train: bool
    ) -> HeadOutput:
        """Classify memes, as described in `FeatureHead`.

        Raises:
            ValueError: also if the fusion is unknown.
        """
        if self.fusion not in FUSIONS:
            raise ValueError(f"got fusion {self.fusion!r}, expected one of {FUSIONS}")
        image, text = as_features(image_bd, text_bd)
        image_map = MappedFeatures(self.width, self.map_dropout, name="image_map")
        text_map = MappedFeatures(self.width, self.map_dropout, name="text_map")
        image, text = image_map(image, train=train), text_map(text, train=train)
        if self.fusion == "align":
            fused = image * text
        else:
            outer_bij = image[:, :, None] * text[:, None, :]
            fused = outer_bij.reshape(image.shape[0], -1)
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
