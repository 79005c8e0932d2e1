"""How an arm sees a batch: pictures to normalised floats, random while training.

What is random about an example derives from (key, index, draw), not from the step,
the batch or the device it falls into.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from memejax import augment

Batch = Mapping[str, jax.Array]
Views = dict[str, dict[str, jax.Array]]

# Stream of the random choices that all arms share; arms count from 0.
CAPTION_STREAM = 1000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one arm sees a batch.

    Attributes:
      mean: of the normalisation, per channel, in [0, 1].
      std: of the normalisation.
      image: arguments of `augment.random_view`; empty leaves pictures as they are.
      token_dropout: share of a caption's tokens that a view loses.
      caption_dropout: probability that a meme's whole caption is left out, in the
        views of all arms alike. Captions are the easier thing to agree on; without
        this the arms agree on them alone and learn next to nothing of the pictures.
      stream: arms with one stream see one view, arms with two see two.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    token_dropout: float = 0.0
    caption_dropout: float = 0.0
    stream: int = 0


def make_views(
    recipes: Mapping[str, Recipe], *, dtype: Any = jnp.float32
) -> Callable[..., Views]:
    """A function (key, batch, train=) -> one view an arm: image, input_ids, mask.

    Under `train=False` nothing is random and `key` is not used.
    """

    def views(key: jax.Array | None, batch: Batch, *, train: bool) -> Views:
        made = {}
        for name, recipe in recipes.items():
            images = augment.to_float(batch["image"])
            ids, mask = batch["input_ids"], batch["attention_mask"]
            if train and recipe.caption_dropout:
                keys = augment.example_keys(
                    key, batch["index"], batch["draw"], CAPTION_STREAM
                )
                ids, mask = augment.caption_dropout(
                    keys, ids, mask, rate=recipe.caption_dropout
                )
            if train and (recipe.image or recipe.token_dropout):
                keys = augment.example_keys(
                    key, batch["index"], batch["draw"], recipe.stream
                )
                if recipe.image:
                    images = augment.random_view(keys, images, **recipe.image)
                if recipe.token_dropout:
                    ids, mask = augment.token_dropout(
                        keys, ids, mask, rate=recipe.token_dropout
                    )
            images = augment.normalize(images, mean=recipe.mean, std=recipe.std)
            made[name] = {
                "image": images.astype(dtype),
                "input_ids": ids,
                "attention_mask": mask,
            }
        return made

    return views
