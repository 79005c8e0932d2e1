"""MemeCLIP: adapters, a product of the modalities, and a cosine classifier.

Shape suffixes: `b` batch, `c` classes, `d`, `e` features.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.feature_heads.base import (
    FeatureHead,
    HeadOutput,
    PreOutput,
    as_features,
    linear,
)
from memejax.models.layers import Dropout, unit_rows

# Rows of the classifier: benign, hateful.
CLASSES = 2


class MemeClip(FeatureHead):
    """Adapted features, their product, an MLP, and a cosine classifier of two classes.

    With u(x) = x / |x|, m = Dropout(W v + b) and r the residual ratio:

        a   = r ReLU(ReLU(m A) B) + (1 - r) m        for pictures and for captions
        x   = ReLU(Linear(Dropout(u(a_v) * u(a_t)))), dropout
        z_c = scale u(x) . u(w_c),  logit = z_1 - z_0

    The sigmoid of the logit is the softmax's probability of class 1, so that the binary
    cross-entropy of the logit is the published cross-entropy over both classes.

    The published code takes *projected* features of pictures (768 for ViT-L/14) and
    unprojected ones of captions (768).

    Parameters: `image_map`, `text_map`, `image_adapter/down`, `image_adapter/up` and
    `text_adapter` likewise (no biases), `pre_output/linear<i>`, `class_rows`
    `[2, width]` (start: `start_from_prompts`).

    Attributes:
        width: width of the maps and of the MLP.
        reduction: ratio of the width of the maps to that inside an adapter.
        ratio: r in [0, 1], the adapter's share.
        layers: linear layers in the MLP, at least 1.
        scale: factor of the cosines, above 0.
        map_dropout: rate after the maps.
        fusion_dropout: rate before the MLP.
        dropout: rate in the MLP.

    References:
        Shah et al., MemeCLIP, arXiv 2409.14703.
    """

    width: int = 1024
    reduction: int = 4
    ratio: float = 0.2
    layers: int = 1
    scale: float = 30.0
    map_dropout: float = 0.1
    fusion_dropout: float = 0.4
    dropout: float = 0.2

    @nn.compact
    def __call__(
        self, image_bd: jax.Array, text_bd: jax.Array, *, train: bool
    ) -> HeadOutput:
        """Classify memes, as described in `FeatureHead`.

        Raises:
            ValueError: also if an attribute is out of range.
        """
        if not (0 <= self.ratio <= 1 and self.scale > 0):
            raise ValueError(
                f"got ratio {self.ratio} and scale {self.scale}, expected it in [0, 1] "
                "and above 0"
            )
        image, text = as_features(image_bd, text_bd)
        image = self._adapt(image, name="image", train=train)
        text = self._adapt(text, name="text", train=train)
        pre_output = PreOutput(
            width=self.width,
            layers=self.layers,
            input_dropout=self.fusion_dropout,
            dropout=self.dropout,
            name="pre_output",
        )
        embedding, hidden = pre_output(image * text, train=train)
        # Unit length on average; only the directions count.
        init = nn.initializers.normal(self.width**-0.5)
        rows = self.param("class_rows", init, (CLASSES, self.width), jnp.float32)
        benign, hateful = unit_rows(rows)
        logits = self.scale * (unit_rows(hidden) @ (hateful - benign))
        return HeadOutput(logits, embedding)

    def _adapt(self, features: jax.Array, *, name: str, train: bool) -> jax.Array:
        """Map one modality's features `[b, d]` to adapted unit vectors `[b, width]`."""
        to_width = linear(self.width, inputs=features.shape[-1], name=f"{name}_map")
        mapped = Dropout(self.map_dropout)(to_width(features), deterministic=not train)
        adapted = Adapter(self.reduction, name=f"{name}_adapter")(mapped)
        return unit_rows(self.ratio * adapted + (1 - self.ratio) * mapped)


class Adapter(nn.Module):
    """Bottleneck of two linear layers without biases, with ReLU after each.

    Parameters: `down`, `up`.

    References:
        Gao et al., CLIP-Adapter, arXiv 2110.04544.
    """

    reduction: int

    @nn.compact
    def __call__(self, features_bd: jax.Array) -> jax.Array:
        """Map `[b, d]` to `[b, d]`.

        Raises:
            ValueError: if the bottleneck would have no width.
        """
        width = features_bd.shape[-1]
        inside = width // self.reduction if self.reduction > 0 else 0
        if inside < 1:
            raise ValueError(
                f"got a reduction of {self.reduction}, expected 1 to {width}, the width"
            )
        down = linear(inside, inputs=width, name="down", use_bias=False)
        up = linear(width, inputs=inside, name="up", use_bias=False)
        return nn.relu(up(nn.relu(down(features_bd))))


def start_from_prompts(
    params: Mapping[str, Any],
    class_text_cd: jax.Array,
    *,
    kernel: jax.Array | None = None,
) -> dict[str, Any]:
    """Return the parameters of a `MemeClip` with class rows made from two prompts.

    `w_c = u(u(t_c) K)`, the semantic-aware start; the rows are trained afterwards. As
    published, the prompts are "a photo of a Benign Meme." and "a photo of a Harmful
    Meme.", t_c their projected features and K the transposed `visual_projection` of
    CLIP, which leads back from the shared space (768) to the image tower's (1024).
    Without `kernel` K is that of the head's own text map, which exists for any encoder.

    Args:
        params: parameters of a `MemeClip` of some `width`.
        class_text_cd: text features of the prompts of class 0 (benign) and class 1
            (hateful), float `[2, d]`.
        kernel: K, float `[d, width]`; None for the kernel of `text_map`, then d is
            the width of the captions' features.

    Returns:
        A new dictionary; everything but `class_rows` is shared with `params`.

    Raises:
        ValueError: if the shapes do not fit.

    References:
        Shah et al., MemeCLIP, arXiv 2409.14703.
    """
    text = jnp.asarray(class_text_cd, jnp.float32)
    chosen = params["text_map"]["kernel"] if kernel is None else kernel
    chosen = jnp.asarray(chosen, jnp.float32)
    width = params["class_rows"].shape[-1]
    if text.ndim != 2 or len(text) != CLASSES or chosen.shape != (text.shape[1], width):
        raise ValueError(
            f"got text features {list(text.shape)} and a kernel {list(chosen.shape)}, "
            f"expected [{CLASSES}, d] and [d, {width}]"
        )
    return {**params, "class_rows": unit_rows(unit_rows(text) @ chosen)}
