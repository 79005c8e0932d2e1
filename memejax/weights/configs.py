"""Architecture and sizes of a checkpoint, from Hugging Face's config.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from memejax.models.clip import ClipText, ClipVision
from memejax.models.distilbert import DistilBert
from memejax.models.efficientnet import EfficientNetLite
from memejax.models.layers import ACTIVATIONS
from memejax.models.resnet import ResNet
from memejax.models.siglip import SiglipText, SiglipVision
from memejax.models.vit import ViT

Config = Mapping[str, Any]


class Architecture(NamedTuple):
    """Architecture of a checkpoint: `name` and our module's attributes.

    The module is `MODULES[name]`.
    """

    name: str
    sizes: dict[str, Any]


class TwoTowersError(ValueError):
    """A checkpoint of pictures and captions, and neither was asked for."""


MODULES: dict[str, Any] = {
    "resnet": ResNet,
    "efficientnet_lite": EfficientNetLite,
    "vit": ViT,
    "distilbert": DistilBert,
    "bert": DistilBert,
    "clip_vision": ClipVision,
    "clip_text": ClipText,
    "siglip_vision": SiglipVision,
    "siglip_text": SiglipText,
}
# Our name of an architecture, where it is not Hugging Face's model_type -> theirs.
MODEL_TYPES = {
    name: f"{name}_model"
    for name in ("clip_vision", "clip_text", "siglip_vision", "siglip_text")
}
# What a checkpoint of two towers may be opened as -> the prefix of its section in
# config.json.
TOWERS = {"image": "vision", "text": "text"}
# model_type of checkpoints of two towers: the start of our names for them.
TWO_TOWERS = ("clip", "siglip")

_BERT: dict[str, tuple[str, Any]] = dict(
    vocab_size=("vocab_size", 30522),
    max_length=("max_position_embeddings", 512),
)
_TRANSFORMER: dict[str, tuple[str, Any]] = dict(
    hidden=("hidden_size", 768),
    layers=("num_hidden_layers", 12),
    heads=("num_attention_heads", 12),
    mlp=("intermediate_size", 3072),
    eps=("layer_norm_eps", 1e-12),
)

_CLIP: dict[str, tuple[str, Any]] = dict(
    layers=("num_hidden_layers", 12),
    eps=("layer_norm_eps", 1e-5),
    activation=("hidden_act", "quick_gelu"),
    projection=("projection_dim", 512),
)
_SIGLIP: dict[str, tuple[str, Any]] = dict(
    hidden=("hidden_size", 768),
    layers=("num_hidden_layers", 12),
    heads=("num_attention_heads", 12),
    mlp=("intermediate_size", 3072),
    eps=("layer_norm_eps", 1e-6),
    activation=("hidden_act", "gelu_pytorch_tanh"),
)

# Our attribute: their key in config.json, and its default.
SIZES: dict[str, dict[str, tuple[str, Any]]] = {
    "resnet": dict(
        stage_sizes=("depths", (3, 4, 6, 3)),
        width=("embedding_size", 64),
        bottleneck=("layer_type", "bottleneck"),
    ),
    "vit": dict(
        **_TRANSFORMER,
        patch=("patch_size", 16),
        grid=("image_size", 224),
        qkv_bias=("qkv_bias", True),
    ),
    "distilbert": dict(
        **_BERT,
        hidden=("dim", 768),
        layers=("n_layers", 6),
        heads=("n_heads", 12),
        mlp=("hidden_dim", 3072),
    ),
    "bert": dict(**_BERT, **_TRANSFORMER),
    "clip_vision": dict(
        **_CLIP,
        hidden=("hidden_size", 768),
        heads=("num_attention_heads", 12),
        mlp=("intermediate_size", 3072),
        patch=("patch_size", 32),
        grid=("image_size", 224),
    ),
    "clip_text": dict(
        **_CLIP,
        hidden=("hidden_size", 512),
        heads=("num_attention_heads", 8),
        mlp=("intermediate_size", 2048),
        vocab_size=("vocab_size", 49408),
        max_length=("max_position_embeddings", 77),
    ),
    "siglip_vision": dict(
        **_SIGLIP, patch=("patch_size", 16), grid=("image_size", 224)
    ),
    "siglip_text": dict(
        **_SIGLIP,
        vocab_size=("vocab_size", 32000),
        max_length=("max_position_embeddings", 64),
        # The width of the tower where the file does not have it.
        projection=("projection_size", None),
    ),
}

# Attributes of our module that give its sizes.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    **{name: tuple(keys) for name, keys in SIZES.items()},
    # Has no config.json of Hugging Face.
    "efficientnet_lite": ("stage_sizes", "widths", "stem_width", "features"),
}

# Lowest and highest value of a key in config.json; others are numbers up to 1,000,000.
# No memory is reserved for a network beyond these.
LIMITS: dict[str, tuple[float, float]] = dict(
    num_hidden_layers=(1, 1000),
    n_layers=(1, 1000),
    depths=(1, 1000),
    layer_norm_eps=(1e-30, 1.0),
)

# Required values of a config.json, where it has these keys.
FIXED: dict[str, dict[str, Any]] = {
    "resnet": dict(
        hidden_act="relu",
        num_channels=3,
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
    ),
    "vit": dict(hidden_act="gelu", num_channels=3),
    "distilbert": dict(activation="gelu"),
    "bert": dict(
        hidden_act="gelu", position_embedding_type="absolute", is_decoder=False
    ),
    "clip_vision": dict(num_channels=3),
    "clip_text": {},
    "siglip_vision": dict(num_channels=3, vision_use_head=True),
    "siglip_text": {},
}


def read_config(config: Config, *, tower: str | None = None) -> Architecture:
    """Read architecture and sizes from the content of a config.json.

    Args:
        config: that content.
        tower: of a CLIP or SigLIP of pictures and captions, one of TOWERS.

    Returns:
        The architecture, with the attributes of our module.

    Raises:
        TwoTowersError: for a checkpoint of both without a tower.
        ValueError: for an unknown model_type, or a variant that our modules lack.
    """
    given = config["model_type"] if "model_type" in config else None
    if given in TWO_TOWERS:
        config = _tower(config, tower)
        given = config["model_type"]
    ours_of = {theirs: ours for ours, theirs in MODEL_TYPES.items()}
    name = ours_of.get(str(given), given)
    if name not in SIZES or given in MODEL_TYPES:
        known = sorted({*TWO_TOWERS, *(MODEL_TYPES.get(n, n) for n in SIZES)})
        raise ValueError(f"got model_type {given!r}, expected one of {known}")
    fixed = dict(FIXED[name])
    sizes = {
        ours: config[theirs] if theirs in config else default
        for ours, (theirs, default) in SIZES[name].items()
    }
    if name == "siglip_text" and sizes["projection"] is None:
        sizes["projection"] = sizes["hidden"]
    for ours, value in sizes.items():
        theirs = SIZES[name][ours][0]
        if theirs not in ("image_size", "patch_size", "layer_type"):
            _check_size(theirs, value)
    if name == "resnet":
        if sizes["bottleneck"] not in ("basic", "bottleneck"):
            raise ValueError(
                f"got layer_type {sizes['bottleneck']!r} in config.json, expected "
                "'basic' or 'bottleneck'"
            )
        sizes["bottleneck"] = sizes["bottleneck"] == "bottleneck"
        sizes["stage_sizes"] = tuple(sizes["stage_sizes"])
        fixed["hidden_sizes"] = hidden_sizes(sizes)
    if "grid" in sizes:
        sizes["grid"] = _side(sizes["grid"], "image_size") // _side(
            sizes["patch"], "patch_size"
        )
    if "heads" in sizes and sizes["hidden"] % sizes["heads"]:
        raise ValueError(
            f"got {sizes['heads']} heads for a width of {sizes['hidden']} in "
            "config.json, expected a divisor of the width"
        )
    for key, value in fixed.items():
        if key in config and config[key] != value:
            raise ValueError(
                f"got {key} {config[key]!r} in config.json, expected {value!r}"
            )
    return Architecture(name, sizes)


def _tower(config: Config, tower: str | None) -> dict[str, Any]:
    """Return the config of one of two towers, as if it were a file of its own."""
    kind = config["model_type"]
    if tower not in TOWERS:
        named = {"clip": "CLIP", "siglip": "SigLIP"}[kind]
        raise TwoTowersError(
            f"it is a {named} of pictures and captions: open it for one of them, "
            f"{' or '.join(map(repr, TOWERS))}"
        )
    prefix = TOWERS[tower]
    # Where both stand there, transformers lets the older name win.
    sections = (f"{prefix}_config", f"{prefix}_config_dict")
    found: dict[str, Any] = {}
    for name in sections:
        found |= dict(config[name] or {}) if name in config else {}
    if kind == "clip":
        # The whole config's own value holds, for both towers.
        found["projection_dim"] = (
            config["projection_dim"] if "projection_dim" in config else 512
        )
    return {**found, "model_type": MODEL_TYPES[f"{kind}_{prefix}"]}


def _check_size(key: str, value: Any) -> None:
    """Raise ValueError for a value of config.json that no network can have."""
    if key == "hidden_act":
        if value not in ACTIVATIONS:
            raise ValueError(
                f"got hidden_act {value!r:.80} in config.json, expected one of "
                f"{list(ACTIVATIONS)}"
            )
        return
    low, high = LIMITS.get(key, (1, 1_000_000))
    kind = type(value)
    if key == "depths":
        right = kind in (list, tuple) and 0 < len(value) <= 16
        right = right and all(type(n) is int and low <= n <= high for n in value)
    elif key == "layer_norm_eps":
        right = kind in (int, float) and low <= value <= high
    elif key == "qkv_bias":
        right = kind is bool
    else:
        right = kind is int and low <= value <= high
    if not right:
        raise ValueError(
            f"got {key} {value!r:.80} in config.json, expected a value in "
            f"[{low}, {high}]"
        )


def hidden_sizes(sizes: Mapping[str, Any]) -> list[int]:
    """Return the channels of a ResNet's stages."""
    first = sizes["width"] * (4 if sizes["bottleneck"] else 1)
    return [first * 2**i for i in range(len(sizes["stage_sizes"]))]


def _side(value: Any, key: str) -> int:
    """Return the side of a square, which some files repeat."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    side = sides.pop() if len(sides) == 1 else None
    if type(side) is not int or not 1 <= side <= 8192:
        raise ValueError(f"got {key} {value!r:.80}, expected one side of a square")
    return side
