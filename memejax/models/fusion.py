"""The multimodal arm, and the two arms that CASS compares.

An arm reads an image and its caption:

    u = W_l pool(caption)               language adder,   [b, embed]
    v = W_v (W_i encoder(image))        vision adder,     [b, embed]
    f = relu(W_f fuse(u, v))            fused features,   [b, fused]
    z = W_o f                           what CASS reads,  [b, out]
    y = w_c f                           the classifier's logit, [b]

`fuse` is concatenation (as published), sum or product; `pool` takes the [CLS] token (as
published) or the mean over a caption's tokens. `Arms` holds one arm of each
architecture, with a text encoder each or one for both.

Shape suffixes: b batch, h height, w width, c channels, t tokens, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memejax.models import heads

FUSIONS = ("concat", "sum", "product")
MODALITIES = ("both", "image", "text")
POOLINGS = ("cls", "mean")


def pool_tokens(
    tokens_btd: jax.Array, attention_mask_bt: jax.Array, *, pooling: str
) -> jax.Array:
    """One vector a caption: its first token, or the mean over its tokens.

    Args:
        tokens_btd: `[b, t, d]`, a text encoder's outputs.
        attention_mask_bt: `[b, t]`, 1 for a token and 0 for padding; "mean" reads it.
        pooling: "cls" or "mean".

    Returns:
        `[b, d]`; zeros for "mean" over no token.

    Raises:
        ValueError: for another pooling, or "mean" where the encoder gives other than a
            token for each of the mask's.

    References:
        Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (mean over tokens).
    """
    if pooling not in POOLINGS:
        raise ValueError(f"text_pooling must be one of {POOLINGS}, got {pooling!r}")
    if pooling == "cls":
        return tokens_btd[:, 0]
    if tokens_btd.shape[:2] != attention_mask_bt.shape:
        raise ValueError(
            f"got outputs {list(tokens_btd.shape)} for tokens "
            f"{list(attention_mask_bt.shape)}: text_pooling='mean' needs an encoder "
            "that gives one for each, choose 'cls'"
        )
    counted = (attention_mask_bt != 0)[:, :, None]
    total = jnp.where(counted, tokens_btd, 0).sum(axis=1)
    return total / jnp.maximum(counted.sum(axis=1), 1)


class Arm(nn.Module):
    """One image encoder, one text encoder, and what joins them.

    Attributes:
        image_encoder: `(images_bhwc, train=) -> [b, d]`.
        text_encoder: `(input_ids, attention_mask, train=) -> tokens_btd`.
        modalities: "both", or the one of "image" and "text" that a control keeps.
        text_pooling: "cls" or "mean", of the text encoder's outputs.
        fusion: "concat", "sum" or "product" of the two embeddings.
        image_width: width between the image encoder and its adder; 0 leaves that layer
            out.
        embed: width of the embeddings u and v.
        fused: width of the fused features f.
        out: width of the output z.
        normalize: LayerNorm on u and on v, so that neither modality starts louder.
        predictor: hidden width of a predictor on z; 0 has none.
        dropout: before the classifier.

    References:
        Exploring emerging properties in multimodal neural networks, figure 2.
    """

    image_encoder: nn.Module
    text_encoder: nn.Module
    modalities: str = "both"
    text_pooling: str = "cls"
    fusion: str = "concat"
    image_width: int = 512
    embed: int = 300
    fused: int = 256
    out: int = 1000
    normalize: bool = False
    predictor: int = 0
    dropout: float = 0.1

    def setup(self):
        """Builds the layers, so that `project` and `classify` share them."""
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {FUSIONS}, got {self.fusion!r}")
        if self.modalities not in MODALITIES:
            raise ValueError(
                f"modalities must be one of {MODALITIES}, got {self.modalities!r}"
            )
        if self.image_width:
            self.image_head = nn.Dense(self.image_width)
        self.vision_adder = nn.Dense(self.embed)
        self.language_adder = nn.Dense(self.embed)
        if self.normalize:
            self.vision_norm = nn.LayerNorm()
            self.language_norm = nn.LayerNorm()
        self.fusion_layer = nn.Dense(self.fused)
        self.fc = nn.Dense(self.out)
        if self.predictor:
            self.predictor_head = heads.Predictor(self.predictor)
        self.classifier = heads.Classifier(self.dropout)

    def embed_image(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Images -> v, [b, embed]."""
        features = self.image_encoder(images_bhwc, train=train)
        if self.image_width:
            features = self.image_head(features)
        embedding = self.vision_adder(features)
        return self.vision_norm(embedding) if self.normalize else embedding

    def embed_text(
        self, input_ids: jax.Array, attention_mask: jax.Array, *, train: bool
    ) -> jax.Array:
        """Tokens -> u, [b, embed]."""
        tokens_btd = self.text_encoder(input_ids, attention_mask, train=train)
        caption = pool_tokens(tokens_btd, attention_mask, pooling=self.text_pooling)
        embedding = self.language_adder(caption)
        return self.language_norm(embedding) if self.normalize else embedding

    def features(self, inputs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A batch -> fused features f, [b, fused]."""
        embeddings = []
        if self.modalities != "image":
            embeddings.append(
                self.embed_text(
                    inputs["input_ids"], inputs["attention_mask"], train=train
                )
            )
        if self.modalities != "text":
            embeddings.append(self.embed_image(inputs["image"], train=train))
        if self.fusion == "concat":
            joint = jnp.concatenate(embeddings, axis=-1)
        elif self.fusion == "sum":
            joint = sum(embeddings[1:], start=embeddings[0])
        else:
            joint = embeddings[0]
            for embedding in embeddings[1:]:
                joint = joint * embedding
        return nn.relu(self.fusion_layer(joint))

    def project(self, inputs: Mapping[str, jax.Array], *, train: bool):
        """A batch -> (z, prediction of the other arm's z), both [b, out]."""
        outputs = self.fc(self.features(inputs, train=train))
        return outputs, self.predictor_head(outputs) if self.predictor else outputs

    def classify(self, inputs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """A batch -> logits [b]."""
        return self.classifier(self.features(inputs, train=train), train=train)


class Arms(nn.Module):
    """Several arms under their names, each on its own view of the batch.

    Attributes:
        arms: name -> arm. Arms that hold the same text encoder share its parameters,
            which then lie under the first of them.
    """

    arms: Mapping[str, Arm]

    def project(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool
    ) -> dict[str, Any]:
        """A view an arm -> (z, prediction) an arm."""
        return {k: arm.project(views[k], train=train) for k, arm in self.arms.items()}

    def classify(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool
    ) -> dict[str, jax.Array]:
        """A view an arm -> logits [b] an arm."""
        return {k: arm.classify(views[k], train=train) for k, arm in self.arms.items()}

    def embeddings(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool = False
    ) -> dict[str, jax.Array]:
        """A view an arm -> fused features [b, fused] an arm."""
        return {k: arm.features(views[k], train=train) for k, arm in self.arms.items()}
