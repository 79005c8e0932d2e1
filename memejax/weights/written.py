"""The config.json of a checkpoint that we write, for other libraries and ourselves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from memejax.models.efficientnet import EfficientNetLite
from memejax.weights.configs import (
    ATTRIBUTES,
    FIXED,
    MODEL_TYPES,
    MODULES,
    SIZES,
    Architecture,
    hidden_sizes,
)

# Hugging Face's classes, without and with a linear classifier, or a CLIP's projection.
CLASSES: dict[str, tuple[str, ...]] = {
    "resnet": ("ResNetModel", "ResNetForImageClassification"),
    "vit": ("ViTModel", "ViTForImageClassification"),
    "distilbert": ("DistilBertModel",),
    "bert": ("BertModel",),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    "clip_text": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "siglip_vision": ("SiglipVisionModel",),
    "siglip_text": ("SiglipTextModel",),
}


def write_config(
    architecture: Architecture, *, classes: int | None = None
) -> dict[str, Any]:
    """Make the content of a config.json that transformers' PyTorch classes load.

    A ViT and a BERT are written without pooler: `ViTModel.from_pretrained(folder,
    add_pooling_layer=False)` loads them without a warning. transformers has no
    EfficientNet-Lite: its config.json describes the tensors to people, and has no
    model_type.

    Args:
        architecture: name, and attributes of our module; missing ones have the
            module's default.
        classes: classes of a linear classifier on top, or None for the encoder alone.

    Returns:
        The content, ready for JSON.

    Raises:
        ValueError: for an unknown name, or naming the attributes and values for which
            Hugging Face's model has no counterpart.
    """
    name = architecture.name
    if name == "efficientnet_lite":
        return _describe_efficientnet_lite(architecture.sizes, classes)
    if name not in SIZES:
        raise ValueError(f"got architecture {name!r}, expected one of {list(SIZES)}")
    is_tower = name in MODEL_TYPES
    if classes is not None and (is_tower or len(CLASSES[name]) == 1):
        raise ValueError(f"got {classes} classes, but a {name!r} has no classifier")
    fields: dict[str, Any] = {
        f.name: f.default for f in dataclasses.fields(MODULES[name])
    }
    unknown = [
        f"{key} {value!r}"
        for key, value in architecture.sizes.items()
        if key not in SIZES[name] and (key not in fields or value != fields[key])
    ]
    if unknown:
        raise ValueError(
            f"got {', '.join(unknown)}, which Hugging Face's {CLASSES[name][0]} lacks"
        )
    sizes = {key: fields[key] for key in SIZES[name]} | architecture.sizes
    written = {theirs: sizes[ours] for ours, (theirs, _) in SIZES[name].items()}
    if name == "resnet":
        written["depths"] = list(sizes["stage_sizes"])
        written["layer_type"] = "bottleneck" if sizes["bottleneck"] else "basic"
        written["hidden_sizes"] = hidden_sizes(sizes)
    if "grid" in sizes:
        written["image_size"] = sizes["grid"] * sizes["patch"]
    if name == "clip_text":
        # As in CLIP's vocabulary: the last word ends a text, and pads it.
        last = sizes["vocab_size"] - 1
        written |= dict(bos_token_id=last - 1, eos_token_id=last, pad_token_id=last)
    if name.startswith("clip_"):
        chosen = CLASSES[name][bool(sizes["projection"])]
    else:
        chosen = CLASSES[name][classes is not None]
    if name == "bert":
        written["type_vocab_size"] = 2
    labels = [f"LABEL_{i}" for i in range(classes or 0)]
    named = dict(
        id2label={str(i): label for i, label in enumerate(labels)},
        label2id={label: i for i, label in enumerate(labels)},
    )
    return {
        "model_type": MODEL_TYPES.get(name, name),
        "architectures": [chosen],
        "dtype": "float32",
        **written,
        **FIXED[name],
        **(named if labels else {}),
    }


def _describe_efficientnet_lite(
    given: Mapping[str, Any], classes: int | None
) -> dict[str, Any]:
    """Describe tensors that have the names of the original PyTorch package."""
    module = EfficientNetLite(**given)
    sizes = ATTRIBUTES["efficientnet_lite"]
    unknown = {k: v for k, v in given.items() if k not in sizes and v}
    if unknown:
        raise ValueError(f"got {unknown}, which efficientnet_lite_pytorch lacks")
    values = {key: getattr(module, key) for key in sizes}
    return {
        "architecture": "efficientnet_lite",
        "package": "efficientnet_lite_pytorch",
        "dtype": "float32",
        **{k: v if isinstance(v, int) else list(v) for k, v in values.items()},
        "num_classes": classes or 0,
    }
