"""A graph network together with the encoders that its nodes come from.

Stored features are those of encoders as they were. Here a meme's picture, its caption
and its entities are encoded in the same pass as the graph network reads them, so that
the encoders learn too. That is heavy: the image encoder sees 1 + k pictures a meme,
k the most entities that a meme can have, whether they are there or not, and takes 1 + k
times the operations and the memory of fine-tuning it on pictures alone (11 times with
ten entities, 10 with tiles of 3 x 3); the graph network's own are next to nothing.

Shape suffixes: b batch, k entities, t tokens, n slots for nodes, s side in pixels,
c channels, d features.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.fusion import pool_tokens


class EncodedMemeNet(nn.Module):
    """Encoders of pictures and captions, then a graph network on what they give.

        x_0 = f(picture),  x_1 = pool(g(caption)),  x_(2 + j) = f(entity j)
        logit = head(encoder(x, edges))

    The image encoder f is as at test time always: its BatchNorms keep the statistics
    that it comes with, so that no meme depends on the entities that others have, or
    lack (published, they saw the entities of one meme at a time, which are nearly one
    picture). The text encoder g drops out while training.

    Parameters: `image_encoder`, `text_encoder`, and those of `MemeGraphNet`.

    Attributes:
        image_encoder: `(images_bssc, train=) -> [b, d]`.
        text_encoder: `(input_ids, attention_mask, train=) -> tokens_btd`.
        encoder: nodes of several kinds to one width, as `NodeEncoder`.
        head: nodes `[N, d]` to logits `[G]`, as `GraphClassifier`.
        text_pooling: "cls" or "mean", of the text encoder's outputs.
    """

    image_encoder: nn.Module
    text_encoder: nn.Module
    encoder: nn.Module
    head: nn.Module
    text_pooling: str = "cls"

    def __call__(self, inputs: Mapping[str, Any], *, train: bool) -> jax.Array:
        """Memes to logits `[G]`, one a graph, of padding too; rng "dropout".

        Args:
            inputs: what `features` takes, and `graph`: the memes' graphs in slots, all
                of n nodes, one meme's behind the other's; nodes have `kind` and
                `place`, int32 `[b * n]`, as `memejax.graphs.batch` makes them.
            train: whether dropout is active.
        """
        found = self.features(inputs, train=train)
        graph = inputs["graph"]
        nodes = node_features(
            [x[:, None] if x.ndim == 2 else x for x in found.values()],
            graph.nodes["kind"],
            place=graph.nodes["place"],
        )
        graph = graph._replace(nodes={**graph.nodes, "features": nodes})
        return self.head(self.encoder(graph, train=train), train=train)

    def features(
        self, inputs: Mapping[str, Any], *, train: bool = False
    ) -> dict[str, jax.Array]:
        """What a store keeps of memes, of the encoders as they are now.

        Args:
            inputs: `image`, float `[b, 1 + k, s, s, c]`, each meme's picture and its
                entities; `where`, bool `[b, k]`, which entities there are; `input_ids`
                and `attention_mask`, int32 `[b, t]`.
            train: whether the text encoder's dropout is active.

        Returns:
            float32 `image` `[b, d]`, `text` `[b, d]`, `entities` `[b, k, d]`, `tokens`
            `[b, t, d]`; zeros where there is no entity.
        """
        images, where = inputs["image"], inputs["where"]
        b, each = images.shape[:2]
        # 1. All pictures in one pass; 2. all captions.
        encoded = self.image_encoder(images.reshape(-1, *images.shape[2:]), train=False)
        encoded = encoded.astype(jnp.float32).reshape(b, each, -1)
        mask = inputs["attention_mask"]
        tokens = self.text_encoder(inputs["input_ids"], mask, train=train)
        return {
            "image": encoded[:, 0],
            "text": pool_tokens(tokens, mask, pooling=self.text_pooling).astype(
                jnp.float32
            ),
            "entities": jnp.where(where[..., None], encoded[:, 1:], 0),
            "tokens": tokens.astype(jnp.float32),
        }


def node_features(
    kinds: list[jax.Array], kind: jax.Array, *, place: jax.Array
) -> jax.Array:
    """Features of each kind of node to the nodes of graphs in slots of one size.

    Args:
        kinds: of each kind, features `[b, m, d]` of m nodes a meme; m and d differ
            from kind to kind.
        kind: int32 `[b * n]`, places in `kinds`; -1 on padding.
        place: int32 `[b * n]`, which of its kind and meme a node is, in [0, m).

    Returns:
        `[b * n, widest]`: a node's features, then zeros; zeros on padding.

    Raises:
        ValueError: if the nodes are not as many for each meme.
    """
    b, widest = len(kinds[0]), max(x.shape[-1] for x in kinds)
    if len(kind) % b:
        raise ValueError(f"got {len(kind)} nodes of {b} memes, expected n of each")
    table = jnp.concatenate(
        [jnp.pad(x, ((0, 0), (0, 0), (0, widest - x.shape[-1]))) for x in kinds], axis=1
    )
    first, starts = 0, []
    for x in kinds:
        starts.append(first)
        first += x.shape[1]
    row = jnp.asarray(starts)[jnp.maximum(kind, 0)] + place
    there = (kind >= 0).reshape(b, -1, 1)
    row = jnp.where(there, row.reshape(b, -1, 1), 0)
    found = jnp.where(there, jnp.take_along_axis(table, row, axis=1), 0)
    return found.reshape(-1, widest)
