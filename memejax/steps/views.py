"""Views of a batch: normalised float pictures, augmented in training.

An example's randomness derives from (key, index, draw), not from its step, batch or
device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from memejax import augment

Batch = Mapping[str, jax.Array]
Views = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Preprocessing and augmentation of one arm's view of a batch.

    Attributes:
        mean: mean of the normalisation per channel, for pictures in [0, 1].
        std: standard deviation of the normalisation per channel.
        augment: `(keys [b], images_bhwc) -> images`, one array or a tuple of arrays of
            several crops `[v, b, h, w, c]`; None disables augmentation.
        token_dropout: probability that a token of a caption is hidden.
        stream: stream of random numbers; arms with the same stream get the same view.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Callable[..., Any] | None = None
    token_dropout: float = 0.0
    stream: int = 0


def make_views(
    recipes: Mapping[str, Recipe],
    *,
    caption_dropout: float = 0.0,
    dtype: Any = jnp.float32,
) -> Callable[..., Views]:
    """Make a function from a batch to one view per arm.

    Args:
        recipes: arm -> recipe of its view.
        caption_dropout: probability that a whole batch loses its captions, in the
            views of all arms. Captions are easier to agree on: without this the arms
            agree on little else and learn next to nothing from the pictures. It applies
            to the batch, as arms could also agree on which examples have captions.
        dtype: dtype of the pictures.

    Returns:
        `views(key, batch, train=, step_key=) -> {arm: view}`. A view has `image`, or
        `crops` if the recipe makes several, and `input_ids` and `attention_mask` if the
        batch has captions. Per-example randomness uses `key`, per-batch randomness
        `step_key`; with `train=False` nothing is random and neither is used.

    References:
        Neverova et al., ModDrop: adaptive multi-modal gesture recognition, 1501.00102,
        for dropping a modality in training.
    """

    def views(
        key: jax.Array | None,
        batch: Batch,
        *,
        train: bool,
        step_key: jax.Array | None = None,
    ) -> Views:
        captions = batch.get("attention_mask")
        if train and caption_dropout and captions is not None:
            dropped = jax.random.bernoulli(step_key, caption_dropout)
            first = jnp.arange(captions.shape[1])[None] == 0
            captions = jnp.where(dropped & ~first, 0, captions)
        return {
            name: _view(recipe, key, batch, captions, train=train, dtype=dtype)
            for name, recipe in recipes.items()
        }

    return views


def _view(recipe, key, batch, captions, *, train, dtype) -> dict[str, Any]:
    """Make one arm's view of a batch."""
    keys = None
    if train and (recipe.augment or recipe.token_dropout):
        keys = augment.example_keys(key, batch["index"], batch["draw"], recipe.stream)
    images = augment.to_float(batch["image"])
    if train and recipe.augment:
        images = recipe.augment(keys, images)
    images = jax.tree.map(
        lambda x: augment.normalize(x, mean=recipe.mean, std=recipe.std).astype(dtype),
        images,
    )
    view = {"crops" if isinstance(images, tuple) else "image": images}
    if captions is not None:
        ids, mask = batch["input_ids"], captions
        if train and recipe.token_dropout:
            ids, mask = augment.token_dropout(
                keys, ids, mask, rate=recipe.token_dropout
            )
        view |= {"input_ids": ids, "attention_mask": mask}
    return view
