"""A graph network trained together with the encoders of its nodes.

Stored features come from frozen encoders. Here a meme's picture, caption and entities
are encoded in the same pass as the graph network reads them, so that the encoders learn
too. That is expensive: with k the largest number of entities, the image encoder
processes 1 + k pictures per meme, real or padding, and takes 1 + k times the operations
and the memory of fine-tuning it on pictures alone (11 times with ten entities, 10 with
tiles of 3 x 3); the graph network adds next to nothing.

Shape suffixes: b batch, k entities, t tokens, n slots for nodes, s side in pixels,
c channels, d features.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.encoders import TextEncoder


class EncodedMemeNet(nn.Module):
    """Encoders of pictures and captions, then a graph network on their features.

        x_0 = f(picture),  x_1 = pool(g(caption)),  x_(2 + j) = f(entity j)
        logit = head(encoder(x, edges))

    The image encoder f always runs in evaluation mode: its BatchNorms keep their
    initial statistics, so that no meme depends on the entities of the others. (As
    published, they see the entities of one meme at a time, which are nearly one
    picture.) The text encoder g uses dropout while training.

    Parameters: `image_encoder`, `text_encoder`, and those of `MemeGraphNet`.

    Attributes:
        image_encoder: `(images_bssc, train=) -> [b, d]`.
        text_encoder: `(input_ids, attention_mask, train=) -> tokens_btd`.
        encoder: maps nodes of several kinds to one width, such as `NodeEncoder`.
        head: maps nodes `[N, d]` to logits `[G]`, such as `GraphClassifier`.
        text_pooling: "cls" or "mean", of the text encoder's outputs.
    """

    image_encoder: nn.Module
    text_encoder: TextEncoder
    encoder: nn.Module
    head: nn.Module
    text_pooling: str = "cls"

    def __call__(self, inputs: Mapping[str, Any], *, train: bool) -> jax.Array:
        """Map memes to logits `[G]`, one per graph, padding included; rng "dropout".

        Args:
            inputs: the inputs of `features`, and `graph`: the memes' graphs one after
                another, in slots of n nodes each; nodes have `kind` and `place`, int32
                `[b * n]`, as `memejax.graphs.batch` makes them.
            train: whether dropout is active.
        """
        encoded = self.features(inputs, train=train)
        graph = inputs["graph"]
        nodes = node_features(
            [x[:, None] if x.ndim == 2 else x for x in encoded.values()],
            graph.nodes["kind"],
            place=graph.nodes["place"],
        )
        graph = graph._replace(nodes={**graph.nodes, "features": nodes})
        return self.head(self.encoder(graph, train=train), train=train)

    def features(
        self, inputs: Mapping[str, Any], *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Encode memes with the current encoders, to the fields of a feature store.

        Args:
            inputs: `image`, float `[b, 1 + k, s, s, c]`, each meme's picture and its
                entities; `where`, bool `[b, k]`, the real entities; `input_ids` and
                `attention_mask`, int32 `[b, t]`.
            train: whether the text encoder's dropout is active.

        Returns:
            float32 `image` `[b, d]`, `text` `[b, d]`, `entities` `[b, k, d]`, `tokens`
            `[b, t, d]`; zeros for padding entities.
        """
        images, where = inputs["image"], inputs["where"]
        b, count = images.shape[:2]
        # 1. All pictures in one pass; 2. all captions.
        encoded = self.image_encoder(images.reshape(-1, *images.shape[2:]), train=False)
        encoded = encoded.astype(jnp.float32).reshape(b, count, -1)
        mask = inputs["attention_mask"]
        tokens = self.text_encoder(inputs["input_ids"], mask, train=train)
        return {
            "image": encoded[:, 0],
            "text": self.text_encoder.pool(
                tokens, mask, pooling=self.text_pooling
            ).astype(jnp.float32),
            "entities": jnp.where(where[..., None], encoded[:, 1:], 0),
            "tokens": tokens.astype(jnp.float32),
        }


def node_features(
    kinds: list[jax.Array], kind: jax.Array, *, place: jax.Array
) -> jax.Array:
    """Gather the features of each kind into the nodes of graphs with equal slots.

    Args:
        kinds: for each kind, features `[b, m, d]` of m nodes per meme; m and d differ
            between kinds.
        kind: int32 `[b * n]`, indices into `kinds`; -1 on padding.
        place: int32 `[b * n]`, each node's index in [0, m) among the nodes of its kind
            and meme.

    Returns:
        `[b * n, widest]`: a node's features, then zeros; zeros on padding.

    Raises:
        ValueError: if the number of nodes is not a multiple of b.
    """
    b, widest = len(kinds[0]), max(x.shape[-1] for x in kinds)
    if len(kind) % b:
        raise ValueError(f"got {len(kind)} nodes of {b} memes, expected n per meme")
    table = jnp.concatenate(
        [jnp.pad(x, ((0, 0), (0, 0), (0, widest - x.shape[-1]))) for x in kinds], axis=1
    )
    first, starts = 0, []
    for x in kinds:
        starts.append(first)
        first += x.shape[1]
    row = jnp.asarray(starts)[jnp.maximum(kind, 0)] + place
    where = (kind >= 0).reshape(b, -1, 1)
    row = jnp.where(where, row.reshape(b, -1, 1), 0)
    nodes = jnp.where(where, jnp.take_along_axis(table, row, axis=1), 0)
    return nodes.reshape(-1, widest)
