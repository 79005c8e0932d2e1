"""Image-only arms: an encoder and the head of a self-supervised loss.

`ImageArm` returns raw outputs for CASS, `DinoArm` the logits of many crops for DINO.
Their encoders have the same names as in `fusion.Arm`, so that an arm with text can
start from them.

Shape suffixes: v views, b batch, h height, w width, c channels, d features, k
prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memejax.models import heads


class ImageArm(nn.Module):
    """An image encoder and a linear head for CASS: z = W encoder(image).

    Attributes:
        image_encoder: `(images_bhwc, train=) -> [b, d]`.
        out: width of z; 1000 fits an ImageNet classifier's weights.
        predictor: hidden width of a predictor on z; 0 omits it.

    References:
        Singh et al., Cross-architectural self-supervision, 2206.04170.
    """

    image_encoder: nn.Module
    out: int = 1000
    predictor: int = 0

    def setup(self):
        """Create the head."""
        self.head = nn.Dense(self.out)
        if self.predictor:
            self.predictor_head = heads.Predictor(self.predictor)

    def features(self, inputs: Mapping[str, jax.Array], *, train: bool) -> jax.Array:
        """Map a batch to the encoder's features, `[b, d]`."""
        return self.image_encoder(inputs["image"], train=train)

    def project(self, inputs: Mapping[str, jax.Array], *, train: bool):
        """Map a batch to z and the prediction of the other arm's z, both `[b, out]`."""
        outputs = self.head(self.features(inputs, train=train))
        return outputs, self.predictor_head(outputs) if self.predictor else outputs


class DinoArm(nn.Module):
    """An image encoder and DINO's head, applied to crops of several sizes.

    Attributes:
        image_encoder: `(images_bhwc, train=) -> [b, d]`, of any size of image.
        head: `(features [b, d], train=) -> logits [b, k]`.
    """

    image_encoder: nn.Module
    head: nn.Module

    def features(self, inputs: Mapping[str, Any], *, train: bool) -> jax.Array:
        """Map a batch to the encoder's features, `[b, d]`."""
        return self.image_encoder(inputs["image"], train=train)

    def project(self, inputs: Mapping[str, Any], *, train: bool) -> jax.Array:
        """Map crops to logits `[v, b, k]`, in one encoder pass per crop size.

        Args:
            inputs: `crops`, arrays `[v, b, h, w, c]` of one size each. Without it (at
                initialisation) `image` is used as a single crop.
            train: passed to the encoder and the head.
        """
        crops = inputs["crops"] if "crops" in inputs else (inputs["image"][None],)
        b = crops[0].shape[1]
        features = []
        for x in crops:
            if not x.size:
                continue
            # Each example's crops side by side, so that a device keeps its examples:
            # with the views first, every device would gather all crops.
            rows = jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
            encoded = self.image_encoder(rows, train=train)
            features.append(encoded.reshape(b, -1, encoded.shape[-1]))
        features_bvd = jnp.concatenate(features, axis=1)
        rows = features_bvd.reshape(-1, features_bvd.shape[-1])
        logits = self.head(rows, train=train)
        return jnp.swapaxes(logits.reshape(b, -1, logits.shape[-1]), 0, 1)
