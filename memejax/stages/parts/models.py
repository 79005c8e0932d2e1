"""Models: from the section `model` to Linen modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from memejax.models import (
    clip,
    distilbert,
    efficientnet,
    fusion,
    heads,
    image,
    resnet,
    siglip,
    vit,
    words,
)
from memejax.stages.parts.choices import DTYPES, NORMALIZATIONS, choose

IMAGE_ENCODERS: dict[str, Callable[..., Any]] = {
    "resnet": resnet.ResNet,
    "vit": vit.ViT,
    **{
        n: functools.partial(resnet.ResNet, **size)
        for n, size in resnet.RESNETS.items()
    },
    **{n: functools.partial(vit.ViT, **size) for n, size in vit.VITS.items()},
    "efficientnet_lite": efficientnet.EfficientNetLite,
    **{
        n: functools.partial(efficientnet.EfficientNetLite, **size)
        for n, size in efficientnet.EFFICIENTNETS.items()
    },
    "clip_vision": clip.ClipVision,
    **{
        n: functools.partial(clip.ClipVision, **size)
        for n, (size, _) in clip.CLIPS.items()
    },
    "siglip_vision": siglip.SiglipVision,
    **{
        n: functools.partial(siglip.SiglipVision, **size)
        for n, (size, _) in siglip.SIGLIPS.items()
    },
}
TEXT_ENCODERS: dict[str, Callable[..., Any]] = {
    "transformer": distilbert.DistilBert,
    "words": words.AveragedWords,
    **{
        n: functools.partial(distilbert.DistilBert, **size)
        for n, size in distilbert.BERTS.items()
    },
    "clip_text": clip.ClipText,
    **{
        n: functools.partial(clip.ClipText, **size)
        for n, (_, size) in clip.CLIPS.items()
    },
    "siglip_text": siglip.SiglipText,
    **{
        n: functools.partial(siglip.SiglipText, **size)
        for n, (_, size) in siglip.SIGLIPS.items()
    },
}


# Parts of an arm that a control on one modality lacks.
ONE_MODALITY = {
    "image": ("text_encoder", "language_adder", "language_norm"),
    "text": ("image_encoder", "image_head", "vision_adder", "vision_norm"),
}


def arm_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the arms that a run uses, a subset of those in `model.image`."""
    names = tuple(config.arms)
    if not names:
        raise ValueError("arms is empty: name one or two of model.image")
    for name in names:
        choose(config.model.image, name, "arm")
    return names


def absent_parts(config: ConfigDict) -> tuple[str, ...]:
    """Return paths that the config describes and the run leaves out.

    They are all parts of an arm that is not in `arms`, and the parts of other arms that
    a control (`model.arm.modalities`) omits; a path stands for everything below it.
    """
    here = arm_names(config)
    parts = ("image_encoder", "text_encoder", "head")
    whole = [
        f"arms_{a}/{p}/_" for a in config.model.image if a not in here for p in parts
    ]
    if config.model.share_text:
        # The first arm has it.
        whole += [f"arms_{arm}/text_encoder/_" for arm in here[1:]]
    left_out = ONE_MODALITY.get(config.model.arm.modalities, ())
    return (*whole, *(f"arms_{arm}/{part}/_" for arm in here for part in left_out))


def image_family(config: ConfigDict, arm: str) -> str:
    """Return the architecture of an arm's image encoder, such as "resnet"."""
    name = config.model.image[arm].name
    make = choose(IMAGE_ENCODERS, name, f"model.image.{arm}.name")
    return getattr(make, "func", make).family


def normalization(config: ConfigDict, arm: str) -> dict[str, tuple[float, ...]]:
    """Return the mean and standard deviation per channel for an arm's pictures."""
    found = config.model.image[arm].normalization
    if not isinstance(found, str):
        return {name: tuple(values) for name, values in found.items()}
    return choose(NORMALIZATIONS, found, f"model.image.{arm}.normalization")


def image_encoder(
    config: ConfigDict, arm: str, *, axis_name: str | None = None, remat: bool = False
) -> Any:
    """Make an arm's image encoder.

    Args:
        config: the run's config.
        arm: one of the arms in `model.image`.
        axis_name: device axis that a batch is split over, under pmap.
        remat: whether the backward pass recomputes its blocks.
    """
    encoder = dict(config.model.image[arm])
    del encoder["normalization"]
    make = choose(IMAGE_ENCODERS, encoder.pop("name"), f"model.image.{arm}.name")
    dtype = choose(DTYPES, config.model.dtype, "model.dtype")
    module = make(dtype=dtype, remat=remat, axis_name=axis_name, **encoder)
    try:
        return module.for_images(config.data.image_size)
    except ValueError as error:
        raise ValueError(f"model.image.{arm}: {error}") from None


def fusion_arms(
    config: ConfigDict,
    vocabulary: int,
    *,
    axis_name: str | None = None,
    remat: bool = False,
) -> fusion.Arms:
    """Make the arms with text, for multimodal CASS and for fine-tuning.

    Args:
        config: the run's config.
        vocabulary: number of tokens.
        axis_name: see `image_encoder`.
        remat: see `image_encoder`; applies to text encoders too.
    """
    c = config.model
    text_args: dict[str, Any] = {"vocab_size": vocabulary, **c.text}
    make_text = functools.partial(
        choose(TEXT_ENCODERS, text_args.pop("name"), "model.text.name"),
        dtype=choose(DTYPES, c.dtype, "model.dtype"),
        remat=remat,
        **text_args,
    )
    if text_args["vocab_size"] < vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} entries, the text encoder of weights.text "
            f"{text_args['vocab_size']}: data.tokenizer must be that checkpoint's"
        )

    shared = make_text() if c.share_text else None
    return fusion.Arms(
        {
            name: fusion.Arm(
                image_encoder=image_encoder(
                    config, name, axis_name=axis_name, remat=remat
                ),
                text_encoder=shared or make_text(),
                **c.arm,
            )
            for name in arm_names(config)
        }
    )


def gains_by_shortening(config: ConfigDict, vocabulary: int) -> bool:
    """Whether the text encoders of all arms gain by captions with less padding."""
    arms = fusion_arms(config, vocabulary).arms.values()
    encoders = [arm.text_encoder for arm in arms if arm.text_encoder is not None]
    return bool(encoders) and all(one.gains_by_shortening() for one in encoders)


def image_arms(
    config: ConfigDict, *, axis_name: str | None = None, remat: bool = False
) -> fusion.Arms:
    """Make the arms without text, for CASS; see `image_encoder`."""
    return fusion.Arms(
        {
            name: image.ImageArm(
                image_encoder(config, name, axis_name=axis_name, remat=remat),
                **config.pretrain.head,
            )
            for name in arm_names(config)
        }
    )


def dino_arms(
    config: ConfigDict,
    *,
    student: bool,
    axis_name: str | None = None,
    remat: bool = False,
) -> fusion.Arms:
    """Make DINO's student or teacher per arm; only a student has dropout or drop path.

    Args:
        config: the run's config.
        student: whether to make students or teachers.
        axis_name: see `image_encoder`.
        remat: see `image_encoder`.
    """
    arms = {}
    for name in arm_names(config):
        encoder = image_encoder(config, name, axis_name=axis_name, remat=remat)
        encoder = (
            encoder.with_drop_path(config.pretrain.drop_path)
            if student
            else encoder.without_dropout()
        )
        head = heads.DinoHead(axis_name=axis_name, **config.pretrain.head)
        arms[name] = image.DinoArm(encoder, head)
    return fusion.Arms(arms)
