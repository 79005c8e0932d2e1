"""The multimodal arm, and the two arms that CASS compares.

An arm reads an image and its caption:

    u = W_l pool(caption)               language adder,   [b, embed]
    v = W_v (W_i encoder(image))        vision adder,     [b, embed]
    f = relu(W_f fuse(u, v))            fused features,   [b, fused]
    z = W_o f                           input of CASS,    [b, out]
    y = w_c f                           classifier logit, [b]

`fuse` is concatenation (as published), sum or product; `pool` takes the [CLS] token (as
published) or the mean over a caption's tokens. `Arms` holds one arm per architecture,
each with its own text encoder or all with a shared one.

Shape suffixes: b batch, h height, w width, c channels, t tokens, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memejax.models import heads
from memejax.models.encoders import POOLINGS as POOLINGS
from memejax.models.encoders import TextEncoder

FUSIONS = ("concat", "sum", "product")
MODALITIES = ("both", "image", "text")


class Arm(nn.Module):
    """An image encoder, a text encoder and their fusion.

    Attributes:
        image_encoder: `(images_bhwc, train=) -> [b, d]`.
        text_encoder: `(input_ids, attention_mask, train=) -> tokens_btd`.
        modalities: "both", or the single one that an ablation keeps, "image" or "text".
        text_pooling: "cls" or "mean", of the text encoder's outputs; CLIP's has its
            own.
        fusion: "concat", "sum" or "product" of the two embeddings.
        image_width: width of the layer between the image encoder and its adder; 0
            omits it.
        embed: width of the embeddings u and v.
        fused: width of the fused features f.
        out: width of the output z.
        normalize: whether to apply LayerNorm to u and v, so that neither modality
            dominates at the start.
        predictor: hidden width of a predictor on z; 0 omits it.
        dropout: rate before the classifier.

    References:
        Exploring emerging properties in multimodal neural networks, figure 2.
    """

    image_encoder: nn.Module
    text_encoder: TextEncoder
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
        """Create the layers, so that `project` and `classify` share them."""
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
        """Map images to v, `[b, embed]`."""
        features = self.image_encoder(images_bhwc, train=train)
        if self.image_width:
            features = self.image_head(features)
        embedding = self.vision_adder(features)
        return self.vision_norm(embedding) if self.normalize else embedding

    def embed_text(
        self, input_ids: jax.Array, attention_mask: jax.Array, *, train: bool
    ) -> jax.Array:
        """Map tokens to u, `[b, embed]`."""
        tokens_btd = self.text_encoder(input_ids, attention_mask, train=train)
        caption = self.text_encoder.pool(
            tokens_btd, attention_mask, pooling=self.text_pooling
        )
        embedding = self.language_adder(caption)
        return self.language_norm(embedding) if self.normalize else embedding

    def features(self, inputs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """Map a batch to fused features f, `[b, fused]`."""
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
        """Map a batch to z and the prediction of the other arm's z, both `[b, out]`."""
        outputs = self.fc(self.features(inputs, train=train))
        return outputs, self.predictor_head(outputs) if self.predictor else outputs

    def classify(self, inputs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """Map a batch to logits `[b]`."""
        return self.classifier(self.features(inputs, train=train), train=train)


class Arms(nn.Module):
    """Several named arms, each applied to its own view of the batch.

    Attributes:
        arms: name -> arm. Arms with the same text encoder share its parameters, which
            are stored under the first of them.
    """

    arms: Mapping[str, Arm]

    def project(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool
    ) -> dict[str, Any]:
        """Map one view per arm to (z, prediction) per arm."""
        return {k: arm.project(views[k], train=train) for k, arm in self.arms.items()}

    def classify(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool
    ) -> dict[str, jax.Array]:
        """Map one view per arm to logits `[b]` per arm."""
        return {k: arm.classify(views[k], train=train) for k, arm in self.arms.items()}

    def embeddings(
        self, views: Mapping[str, Mapping[str, jax.Array]], *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Map one view per arm to fused features `[b, fused]` per arm."""
        return {k: arm.features(views[k], train=train) for k, arm in self.arms.items()}

    def mc_logits(self, features: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Map fused features to logits `[b]` per arm under one dropout mask."""
        return {
            k: arm.classifier(features[k], train=True, shared_mask=True)
            for k, arm in self.arms.items()
        }
