"""Recognition of a checkpoint: form and sizes, from config.json or tensor names."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from memejax.models.efficientnet import EFFICIENTNETS, IMAGE_SIZES, STAGES
from memejax.weights.configs import Architecture, read_config
from memejax.weights.preprocessing import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LITE_MEAN,
    LITE_STD,
    Preprocessing,
)

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Config = Mapping[str, Any]

SUPPORTED = (
    "a ResNet (v1.5) of Hugging Face, torchvision, timm or DINO; an EfficientNet-Lite "
    "with the names of efficientnet_lite_pytorch; a plain ViT with a "
    "CLS token of Hugging Face, timm, DINO or the original .npz; a DistilBERT, BERT, "
    "CLIP or SigLIP of Hugging Face"
)

# Pattern of a tensor name, and the architecture that has it. The first match wins.
LOOKALIKES: tuple[tuple[str, str], ...] = (
    (r"dist_token$|distillation_token$", "a distilled DeiT, with two class tokens"),
    (r"reg(ister)?_tokens?$", "a ViT with register tokens"),
    (r"relative_position_bias_table$", "a Swin Transformer or BEiT"),
    (r"stages\..*(conv_dw|dwconv|depthwise)|\.block\.\d+\.weight$", "a ConvNeXt"),
    (r"\.(ls\d\.gamma|gamma_\d|lambda1)$", "a ViT with LayerScale"),
    (r"^(transformer\.)?h\.\d+\.attn\.c_attn\.", "a GPT-2"),
    (r"^roberta\.", "a RoBERTa"),
    (r"^visual\.|^norm_pre\.", "a CLIP of OpenAI, OpenCLIP or timm"),
    (r"^attn_pool\.", "a ViT whose features are pooled by attention"),
    (r"^fc_norm\.", "a ViT whose features are the mean of the patches"),
    (r"^patch_embed\.backbone\.|^conv_root/", "a hybrid of ResNet and ViT"),
    (r"^encoder\.layers\.encoder_layer_\d+\.", "a ViT of torchvision"),
    (r"mlp_tokens\.|^MixerBlock_", "an MLP-Mixer"),
    (r"^layer\d+\.\d+\.se\.", "a ResNet with channel attention (SE, ECA)"),
    (r"^conv1\.0\.weight$|\.downsample\.2\.", "a ResNet-D, with another stem"),
    (r"\._se_(reduce|expand)\.", "an EfficientNet with squeeze-and-excitation"),
    (r"^(conv_stem\.|features\.)", "an EfficientNet, MobileNet, DenseNet or VGG"),
)
# The same for `architecture` in timm's config.json, where the tensors do not differ.
UNSEEN: tuple[tuple[str, str], ...] = (
    (r"resnet(aa|blur)", "a ResNet with smoothed strides"),
)
# Pattern of a tensor name of a Hugging Face model, whose sizes are in config.json only.
HUGGINGFACE: tuple[tuple[str, str], ...] = (
    (r"embedder\.embedder\.convolution\.", "ResNet"),
    (r"embeddings\.patch_embeddings\.projection\.", "ViT"),
    (r"transformer\.layer\.0\.attention\.q_lin\.", "DistilBERT"),
    (r"encoder\.layer\.0\.attention\.self\.query\.", "BERT"),
    (r"^(vision|text)_model\.encoder\.layers\.0\.", "CLIP or SigLIP"),
)
# Tensor of a CLIP's projection, which a tower may lack.
PROJECTIONS = {
    "clip_vision": "visual_projection.weight",
    "clip_text": "text_projection.weight",
}
# Heads of the published widths whose heads are not 64 wide.
HEADS = {1280: 16, 1408: 16, 1664: 16}


class Recogniser(NamedTuple):
    """A tensor that identifies a form, and a function from shapes to architecture."""

    form: str
    sign: str
    read: Callable[[Shapes, Config], Architecture]


def recognise(
    shapes: Shapes, config: Config | None, *, tower: str | None = None
) -> tuple[str, Architecture]:
    """Recognise the form and architecture of a checkpoint.

    Hugging Face's config.json takes precedence. Otherwise the names determine the form
    and the shapes the sizes. The number of heads is in a ViT's .npz; in PyTorch's it is
    `model_args.num_heads` of timm's config.json, or hidden / 64 (16 in the ViT-H, g
    and G). LayerNorm's eps is 1e-6 in these.

    Args:
        shapes: of all tensors, by name.
        config: content of config.json, or None.
        tower: of a checkpoint of pictures and captions, one of `configs.TOWERS`.

    Returns:
        A key of FORMS, and the architecture.

    Raises:
        TwoTowersError: for a checkpoint of both without a tower.
        ValueError: for another architecture or a variant that our modules lack, naming
            its likely architecture and the supported ones.
    """
    config = config or {}
    if "model_type" in config:
        architecture = read_config(config, tower=tower)
        projection = PROJECTIONS.get(architecture.name)
        if projection is not None and projection not in shapes:
            # Its width is in every config.json.
            architecture.sizes["projection"] = 0
        return f"huggingface {architecture.name}", architecture
    looks = _first_match(LOOKALIKES, shapes)
    if looks is None and "architecture" in config:
        looks = _first_match(UNSEEN, [str(config["architecture"])])
    if looks is not None:
        raise _unsupported(looks)
    for form, sign, read in RECOGNISERS:
        if sign in shapes:
            return form, read(shapes, config)
    looks = _first_match(HUGGINGFACE, shapes)
    if looks is not None:
        raise ValueError(
            f"looks like a {looks} of Hugging Face without its config.json, which has "
            "its number of heads and its activation: put it beside the file"
        )
    some = ", ".join(f"{n} {list(s)}" for n, s in list(shapes.items())[:5])
    raise ValueError(
        f"got {len(shapes)} tensors of an unknown architecture ({some}, ...), expected "
        f"{SUPPORTED}"
    )


def default_preprocessing(
    form: str, architecture: Architecture, *, file: str
) -> Preprocessing | None:
    """Return the preprocessing of images if a checkpoint's files do not contain it.

    ResNets: ImageNet's mean and standard deviation. EfficientNet-Lites: (pixel - 127)
    / 128, resized bicubically, at the size that each was trained on (224 if unknown).
    ViTs: 0.5 and 0.5, as Google's and
    timm's; DINO's and DeiT's, which have timm's tensor names but ImageNet's mean, are
    recognised only if the file's name contains "dino" or "deit".

    Args:
        form: a key of FORMS.
        architecture: its architecture.
        file: name of the file of weights.

    Returns:
        Mean, standard deviation and size; None for an encoder of captions, and for
        towers, whose relatives differ.
    """
    if architecture.name == "resnet":
        return Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 224)
    if architecture.name == "efficientnet_lite":
        sizes = architecture.sizes.items()
        known = (name for name, own in EFFICIENTNETS.items() if own.items() <= sizes)
        side = IMAGE_SIZES[next(known, "efficientnet_lite0")]
        return Preprocessing(LITE_MEAN, LITE_STD, side, "square_bicubic")
    if architecture.name != "vit":
        return None
    size = architecture.sizes["grid"] * architecture.sizes["patch"]
    if form == "torch vit" and re.search("dino|deit", file.lower()):
        return Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size)
    return Preprocessing(HALF, HALF, size)


def _torch_resnet(shapes: Shapes, config: Config) -> Architecture:
    del config
    if "bn1.running_mean" not in shapes:
        raise _unsupported("a ResNet without the statistics of BatchNorm (GroupNorm?)")
    stem = _shape(shapes, "conv1.weight", 4)
    first = _shape(shapes, "layer1.0.conv1.weight", 4)
    width = stem[0]
    if stem != (width, 3, 7, 7):
        raise _unsupported(f"a ResNet with a stem {list(stem)}, not [{width}, 3, 7, 7]")
    bottleneck = "layer1.0.conv3.weight" in shapes
    middle = _shape(shapes, "layer1.0.conv2.weight", 4)
    if middle[1] != middle[0]:
        raise _unsupported(
            f"a ResNeXt, with {middle[0] // middle[1]} groups of channels"
        )
    if first[0] != width:
        raise _unsupported(
            f"a Wide ResNet, with {first[0]} channels inside, not {width}"
        )
    stages = range(_count(shapes, r"layer(\d+)\.", first=1))
    sizes = dict(
        stage_sizes=tuple(_count(shapes, rf"layer{i + 1}\.(\d+)\.") for i in stages),
        width=width,
        bottleneck=bottleneck,
    )
    return Architecture("resnet", sizes)


def _torch_efficientnet_lite(shapes: Shapes, config: Config) -> Architecture:
    del config
    # A stage begins where the width changes.
    counts: list[int] = []
    widths: list[int] = []
    for i in range(_count(shapes, r"_blocks\.(\d+)\.")):
        width = _shape(shapes, f"_blocks.{i}._project_conv.weight", 4)[0]
        if widths[-1:] != [width]:
            counts.append(0)
            widths.append(width)
        counts[-1] += 1
    if len(counts) != len(STAGES):
        raise _unsupported(
            f"an EfficientNet of {len(counts)} stages, of the widths {widths}, not "
            f"{len(STAGES)}"
        )
    sizes = dict(
        stage_sizes=tuple(counts),
        widths=tuple(widths),
        stem_width=_shape(shapes, "_conv_stem.weight", 4)[0],
        features=_shape(shapes, "_conv_head.weight", 4)[0],
    )
    return Architecture("efficientnet_lite", sizes)


def _torch_vit(shapes: Shapes, config: Config) -> Architecture:
    if "cls_token" not in shapes:
        raise _unsupported("a ViT without a CLS token")
    hidden, _, *patch = _shape(shapes, "patch_embed.proj.weight", 4)
    args = config["model_args"] if "model_args" in config else {}
    heads = HEADS.get(hidden, hidden // 64)
    if "num_heads" in args:
        heads = args["num_heads"]
    elif heads == 0 or hidden % heads or (hidden % 64 and hidden not in HEADS):
        raise ValueError(
            f"got a ViT of width {hidden}, expected a multiple of 64 if config.json "
            "does not set model_args.num_heads"
        )
    return _vit(
        hidden=hidden,
        layers=_count(shapes, r"blocks\.(\d+)\."),
        heads=heads,
        mlp=_shape(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        patch=patch,
        table=_shape(shapes, "pos_embed", 3),
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
    )


def _vit_npz(shapes: Shapes, config: Config) -> Architecture:
    del config
    if "cls" not in shapes:
        raise _unsupported("a ViT without a CLS token")
    block = "Transformer/encoderblock_0"
    *patch, _, hidden = _shape(shapes, "embedding/kernel", 4)
    query = _shape(shapes, f"{block}/MultiHeadDotProductAttention_1/query/kernel", 3)
    return _vit(
        hidden=hidden,
        layers=_count(shapes, r"Transformer/encoderblock_(\d+)/"),
        heads=query[1],
        mlp=_shape(shapes, f"{block}/MlpBlock_3/Dense_0/kernel", 2)[1],
        patch=patch,
        table=_shape(shapes, "Transformer/posembed_input/pos_embedding", 3),
        qkv_bias=True,
    )


# Add a further form here, and its names to memejax/weights/names.py.
RECOGNISERS: tuple[Recogniser, ...] = (
    Recogniser("torch resnet", "layer1.0.conv1.weight", _torch_resnet),
    Recogniser(
        "torch efficientnet_lite", "_conv_stem.weight", _torch_efficientnet_lite
    ),
    Recogniser("torch vit", "blocks.0.attn.qkv.weight", _torch_vit),
    Recogniser("vit npz", "Transformer/encoderblock_0/LayerNorm_0/scale", _vit_npz),
)


def _vit(*, patch: list[int], table: Shape, **sizes: Any) -> Architecture:
    """Make a ViT from the sides of its patch and the shape of its positions."""
    side = math.isqrt(max(table[1] - 1, 0))
    if side == 0 or table[1] != 1 + side**2:
        raise _unsupported(
            f"a ViT with positions {list(table)}, not [1, 1 + s * s, {sizes['hidden']}]"
        )
    if len(set(patch)) != 1:
        raise _unsupported(f"a ViT with patches of {patch}, which are not square")
    return Architecture("vit", dict(**sizes, patch=patch[0], grid=side, eps=1e-6))


def _unsupported(what: str) -> ValueError:
    return ValueError(f"looks like {what}; expected {SUPPORTED}")


def _first_match(table: Iterable[tuple[str, str]], names: Iterable[str]) -> str | None:
    names = list(names)
    found = (what for p, what in table if any(re.search(p, name) for name in names))
    return next(found, None)


def _shape(shapes: Shapes, name: str, axes: int) -> Shape:
    if name not in shapes or len(shapes[name]) != axes:
        got = list(shapes[name]) if name in shapes else "nothing"
        raise ValueError(
            f"got {got} for {name} among {len(shapes)} tensors, expected {axes} axes"
        )
    return shapes[name]


def _count(shapes: Shapes, pattern: str, *, first: int = 0) -> int:
    """Count the numbers after a name, which must be consecutive from `first` on."""
    numbers = {int(found[1]) for name in shapes if (found := re.match(pattern, name))}
    if numbers != set(range(first, first + len(numbers))):
        raise ValueError(
            f"got numbers {sorted(numbers)} for {pattern}, expected all from {first} on"
        )
    return len(numbers)
