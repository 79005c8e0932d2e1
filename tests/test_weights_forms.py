import json

import numpy as np
import pytest
from weights_support import CLASSIFIERS, FORMS, GOLDEN, golden

from memejax.models.resnet import RESNETS
from memejax.models.vit import VITS, ViT
from memejax.weights.configs import Architecture
from memejax.weights.forms import default_preprocessing, recognise
from memejax.weights.names import FORMS as NAMES

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET50 = ("torch resnet", RESNETS["resnet50"])
# Of Dosovitskiy et al. 2020, table 1, and of the models' own names.
RECOGNISED = {
    "resnet18": ("torch resnet", RESNETS["resnet18"]),
    "resnet50": RESNET50,
    "torchvision_resnet50": RESNET50,
    "vit_tiny_patch16_224": ("torch vit", VITS["vit_tiny"]),
    "vit_small_patch16_224": ("torch vit", VITS["vit_small"]),
    "dino_vits8": ("torch vit", VITS["vit_small"] | dict(patch=8, grid=28)),
    "vit_huge_patch14_224": (
        "torch vit",
        dict(hidden=1280, layers=32, heads=16, mlp=5120, patch=14, grid=16),
    ),
    "vit_base_patch16_224_miil": (
        "torch vit",
        VITS["vit_base"] | dict(qkv_bias=False),
    ),
    "npz_b16_384": ("vit npz", VITS["vit_base"] | dict(patch=16, grid=24)),
    "npz_b32_21k": ("vit npz", VITS["vit_base"] | dict(patch=32, grid=7)),
}
REFUSED = {
    "resnet50d": "a ResNet-D",
    "resnext50_32x4d": "a ResNeXt, with 32 groups",
    "wide_resnet50_2": "a Wide ResNet, with 128 channels inside, not 64",
    "seresnet50": "a ResNet with channel attention",
    "resnet50_gn": "a ResNet without the statistics of BatchNorm",
    "deit_tiny_distilled_patch16_224": "a distilled DeiT",
    "vit_small_patch14_reg4_dinov2": "a ViT with register tokens",
    "vit_small_patch14_dinov2": "a ViT with LayerScale",
    "vit_base_patch16_clip_224": "a CLIP",
    "vit_base_patch16_siglip_224": "a ViT whose features are pooled by attention",
    "vit_medium_patch16_gap_256": "a ViT with LayerScale",
    "vit_base_r50_s16_224": "a hybrid of ResNet and ViT",
    "beit_base_patch16_224": "a Swin Transformer or BEiT",
    "swin_tiny_patch4_window7_224": "a Swin Transformer or BEiT",
    "convnext_tiny": "a ConvNeXt",
    "torchvision_convnext_tiny": "a ConvNeXt",
    "torchvision_vit_b_16": "a ViT of torchvision",
    "mixer_b16_224": "an MLP-Mixer",
    "efficientnet_b0": "an EfficientNet",
    "densenet121": "an EfficientNet, MobileNet, DenseNet or VGG",
    "vgg11": "an EfficientNet, MobileNet, DenseNet or VGG",
}


def published(name):
    """Names and shapes of a published model."""
    with np.load(GOLDEN / "shapes.npz") as file:
        return {k: tuple(v) for k, v in json.loads(file[name].tobytes()).items()}


def test_every_published_model_is_in_a_test():
    with np.load(GOLDEN / "shapes.npz") as file:
        assert set(file.files) == {*RECOGNISED, *REFUSED, "resnetaa50"}


@pytest.mark.parametrize("name", RECOGNISED)
def test_published_models_are_recognised(name):
    form, architecture = recognise(published(name), None)
    expected, sizes = RECOGNISED[name]
    assert form == expected
    if "vit" in form:
        sizes = dict(patch=16, grid=14, qkv_bias=True, eps=1e-6) | sizes
    assert architecture == Architecture(NAMES[form].architecture, sizes)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"looks like {REFUSED[name]}") as error:
        recognise(published(name), None)
    assert "expected a ResNet (v1.5) of Hugging Face, torchvision" in str(error.value)


def test_what_tensors_do_not_show_is_refused_by_its_config():
    shapes = published("resnetaa50")
    assert recognise(shapes, None)[0] == "torch resnet"
    assert recognise(shapes, {"architecture": "resnet50"})[0] == "torch resnet"
    with pytest.raises(ValueError, match="a ResNet with smoothed strides"):
        recognise(shapes, {"architecture": "resnetaa50"})


@pytest.mark.parametrize("form", CLASSIFIERS)
def test_sizes_are_those_that_made_the_golden_files(form):
    tensors, sizes = golden(form)
    shapes = {k: v.shape for k, v in tensors.items()}
    # A width of 24 is no multiple of 64: how many heads there are must be told.
    config = {"model_args": {"num_heads": 3}} if form == "torch vit" else None
    got, architecture = recognise(shapes, config)
    assert got == form
    defaults = {"qkv_bias": True} if "vit" in form else {}
    assert architecture.sizes == defaults | sizes
    if form == "torch vit":
        with pytest.raises(ValueError, match="got a ViT of width 24, expected a mult"):
            recognise(shapes, None)


def test_config_json_rules():
    config = {"model_type": "vit", "hidden_size": 24, "layer_norm_eps": 1e-5}
    form, architecture = recognise({"anything": (3,)}, config)
    assert form == "huggingface vit"
    assert ViT(**architecture.sizes) == ViT(hidden=24, eps=1e-5)
    with pytest.raises(ValueError, match="got model_type 'swin', expected one of"):
        recognise({}, {"model_type": "swin"})


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("huggingface resnet", "a ResNet of Hugging Face without its config.json"),
        ("huggingface vit", "a ViT of Hugging Face without its config.json"),
        ("huggingface distilbert", "a DistilBERT of Hugging Face without"),
        ("huggingface bert", "a BERT of Hugging Face without its config.json"),
    ],
)
def test_names_of_hugging_face_alone_are_not_enough(form, what):
    tensors, _ = golden(form)
    with pytest.raises(ValueError, match=f"looks like {what}"):
        recognise({k: v.shape for k, v in tensors.items()}, None)


def changed(name, **shapes):
    return published(name) | shapes


def without(name, *gone):
    return {k: v for k, v in published(name).items() if k not in gone}


def test_variants_and_damage_are_named():
    stem, table = {"conv1.weight": (64, 3, 3, 3)}, {"pos_embed": (1, 196, 384)}
    fc1 = "blocks.0.mlp.fc1.weight"
    for shapes, message in [
        (changed("resnet50", **stem), r"a ResNet with a stem \[64, 3, 3, 3\], not"),
        (without("vit_small_patch16_224", "cls_token"), "a ViT without a CLS token"),
        (
            changed("vit_small_patch16_224", **table),
            r"a ViT with positions \[1, 196, 384\], not \[1, 1 \+ s \* s, 384\]",
        ),
        (without("npz_b16_384", "cls"), "a ViT without a CLS token"),
        (
            changed("npz_b16_384", **{"embedding/kernel": (16, 8, 3, 768)}),
            r"a ViT with patches of \[16, 8\], which are not square",
        ),
        (without("vit_small_patch16_224", fc1), f"got nothing for {fc1} among 151"),
        (changed("resnet18", **{"conv1.weight": (3,)}), r"got \[3\] for conv1.weight"),
        (
            {k: v for k, v in published("resnet18").items() if "layer2.0" not in k},
            r"got numbers \[1\] for layer2",
        ),
        (
            {"transformer.h.0.attn.c_attn.weight": (3, 9)},
            "looks like a GPT-2",
        ),
        (
            {"a": (1,), "b": (2, 3)},
            r"got 2 tensors of an unknown architecture \(a \[1\], b \[2, 3\], ",
        ),
        ({}, "got 0 tensors of an unknown architecture"),
    ]:
        with pytest.raises(ValueError, match=message):
            recognise(shapes, None)


@pytest.mark.parametrize("form", FORMS)
def test_images_are_prepared_as_the_form_does(form):
    name = NAMES[form].architecture
    architecture = Architecture(name, dict(patch=8, grid=12))
    got = default_preprocessing(form, architecture, file="model.pth")
    if name.endswith("bert"):
        assert got is None
        return
    if name == "efficientnet_lite":
        assert got == ((0.498,) * 3, (0.502,) * 3, 224, "square_bicubic")
        return
    values, size = (IMAGENET, 224) if name == "resnet" else (HALF, 96)
    assert got == (*values, size, "square")
    got = default_preprocessing(form, architecture, file="DINO_deitsmall8.pth")
    values = HALF if form in ("vit npz", "huggingface vit") else IMAGENET
    assert got == (*values, size, "square")
