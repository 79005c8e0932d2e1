"""The heads by name: their features, and how they are fitted."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from memejax.models.feature_heads import (
    FEATURE_HEADS,
    FeatureHead,
    make_feature_head,
)

# Attributes of a head that a config may change; None keeps the published value.
ATTRIBUTES = ("width", "layers", "map_dropout", "fusion_dropout", "dropout")


class HeadKind(NamedTuple):
    """A kind of head.

    Attributes:
        fit: "gradient", "logistic", "kernel", or "none" for zero-shot.
        image: the store's column that pictures are taken from.
        prompts: use of the prompts that it needs, which only towers with a shared space
            have; None without any.
        retrieval: whether RGCL's loss is added, and neighbours vote.
    """

    fit: str = "gradient"
    image: str = "image"
    prompts: str | None = None
    retrieval: bool = False


HEADS: dict[str, HeadKind] = {
    "linear": HeadKind("logistic"),
    "kernel": HeadKind("kernel"),
    "concat": HeadKind(),
    "align": HeadKind(),
    "cross": HeadKind(),
    # Of pictures the projected features, of captions those before the projection.
    "memeclip": HeadKind(image="image_shared", prompts="start"),
    "rgcl": HeadKind(retrieval=True),
    "zero_shot": HeadKind("none", image="image_shared", prompts="zero_shot"),
}


def check_attributes(section: ConfigDict) -> None:
    """Raise ValueError if the section `heads` sets attributes that its head lacks."""
    if section.head in FEATURE_HEADS:
        make_head(section)
        return
    found = [name for name in ATTRIBUTES if section[name] is not None]
    if found:
        raise ValueError(f"heads.head={section.head!r} has none of {', '.join(found)}")


def make_head(section: ConfigDict) -> FeatureHead:
    """Make the module of the section `heads`, as published but for its changes.

    Raises:
        ValueError: for an attribute that the head does not have.
    """
    changes: dict[str, Any] = {
        name: section[name] for name in ATTRIBUTES if section[name] is not None
    }
    try:
        return make_feature_head(section.head, **changes)
    except TypeError as error:
        raise ValueError(
            f"heads.head={section.head!r} has none of {', '.join(changes)}: {error}"
        ) from error
