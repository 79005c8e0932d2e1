"""Views: from the sections on augmentation to the inputs of an arm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from memejax import augment
from memejax.stages.parts.models import arm_names, normalization
from memejax.steps import views


def random_views(section: ConfigDict) -> Callable[..., Any]:
    """Make the random view that the section describes."""
    c = dict(section)
    brightness, contrast, saturation, hue = c.pop("jitter")
    c["crop_scale"] = tuple(c["crop_scale"])
    return functools.partial(
        augment.random_view,
        **c,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
    )


def cass_views(section: ConfigDict) -> Callable[..., Any]:
    """Make CASS's own augmentation."""
    return functools.partial(augment.cass_view, **section)


def crops(section: ConfigDict) -> Callable[..., Any]:
    """Make DINO's crops."""
    c = {k: tuple(v) if isinstance(v, tuple | list) else v for k, v in section.items()}
    return functools.partial(augment.multi_crop, **c)


def make_views(
    config: ConfigDict,
    image: Callable[..., Any],
    *,
    independent: bool,
    token_dropout: float = 0.0,
    caption_dropout: float = 0.0,
) -> Callable[..., views.Views]:
    """Make one view per arm, shared or independent.

    Args:
        config: sets the arms and their normalisation.
        image: `(keys, images) -> images` or crops, random.
        independent: whether each arm gets its own random view.
        token_dropout: see `views.Recipe`.
        caption_dropout: see `views.make_views`.
    """
    recipes = {
        name: views.Recipe(
            **normalization(config, name),
            augment=image,
            token_dropout=token_dropout,
            stream=i if independent else 0,
        )
        for i, name in enumerate(arm_names(config))
    }
    return views.make_views(recipes, caption_dropout=caption_dropout)
