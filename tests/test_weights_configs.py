import json

import pytest
from weights_support import CONFIGS

from memejax import strict_json
from memejax.models.distilbert import BERTS, DistilBert
from memejax.models.resnet import RESNETS, ResNet
from memejax.models.vit import VITS, ViT
from memejax.weights.configs import Architecture, read_config
from memejax.weights.preprocessing import (
    Preprocessing,
    read_preprocessing,
    write_preprocessing,
)
from memejax.weights.written import write_config

# What the files of published checkpoints say, but for what is of no consequence.
RESNET50 = dict(
    model_type="resnet",
    depths=[3, 4, 6, 3],
    embedding_size=64,
    hidden_sizes=[256, 512, 1024, 2048],
    layer_type="bottleneck",
    hidden_act="relu",
    downsample_in_first_stage=False,
)
MINILM = dict(
    model_type="bert",
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    max_position_embeddings=512,
    vocab_size=30522,
    hidden_dropout_prob=0.1,
)
DINO = dict(
    model_type="vit",
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=6,
    intermediate_size=1536,
    layer_norm_eps=1e-12,
    patch_size=8,
    image_size=[224, 224],
)


def test_configs_of_published_checkpoints():
    assert read_config(RESNET50) == ("resnet", RESNETS["resnet50"])
    name, sizes = read_config(MINILM)
    assert name == "bert"
    assert DistilBert(**sizes) == DistilBert(**BERTS["minilm_l6"])
    name, sizes = read_config(DINO)
    assert ViT(**sizes) == ViT(**VITS["vit_small"], patch=8, grid=28)


def test_an_empty_config_means_the_published_sizes():
    assert ResNet(**read_config({"model_type": "resnet"}).sizes) == ResNet()
    assert ViT(**read_config({"model_type": "vit"}).sizes) == ViT()
    text = read_config({"model_type": "distilbert"})
    assert DistilBert(**text.sizes) == DistilBert()
    bert = read_config({"model_type": "bert"})
    assert DistilBert(**bert.sizes) == DistilBert(layers=12)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("resnet", "downsample_in_bottleneck", True),
        ("resnet", "downsample_in_first_stage", True),
        ("resnet", "hidden_sizes", [16, 48]),
        ("resnet", "layer_type", "inverted"),
        ("resnet", "hidden_act", "silu"),
        ("resnet", "num_channels", 1),
        ("vit", "hidden_act", "gelu_new"),
        ("vit", "image_size", [12, 24]),
        ("vit", "patch_size", [4, 2]),
        ("distilbert", "activation", "relu"),
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "is_decoder", True),
    ],
)
def test_what_our_modules_lack_is_refused(name, key, value):
    with pytest.raises(ValueError, match=f"got {key} ") as error:
        read_config({"model_type": name, **CONFIGS[name], key: value})
    assert str(value) in str(error.value)


def test_an_unknown_model_type_is_refused():
    for config in ({"model_type": "roberta"}, {}):
        with pytest.raises(ValueError, match="expected one of .*'resnet', .*'vit'"):
            read_config(config)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet", dict(stage_sizes=(2, 1), bottleneck=False, width=4)),
        ("resnet", RESNETS["resnet50"]),
        ("vit", dict(hidden=24, layers=2, heads=3, mlp=40, patch=4, grid=3, eps=1e-6)),
        ("vit", dict(qkv_bias=False, grid=9)),
        ("distilbert", dict(vocab_size=50, hidden=24, heads=3, max_length=12)),
        ("bert", dict(layers=12, eps=1e-6)),
    ],
)
def test_what_is_written_is_read(name, sizes):
    written = json.loads(json.dumps(write_config(Architecture(name, sizes))))
    assert read_config(written).sizes.items() >= sizes.items()
    assert "id2label" not in written
    assert written["architectures"][0].lower() == f"{name}model"


def test_what_is_written_says_what_hugging_face_asks():
    sizes = dict(stage_sizes=(2, 1), bottleneck=True, width=4)
    written = write_config(Architecture("resnet", sizes), classes=2)
    assert written["hidden_sizes"] == [16, 32]
    assert written["depths"] == [2, 1]
    assert written["layer_type"] == "bottleneck"
    assert written["downsample_in_first_stage"] is False
    assert written["architectures"] == ["ResNetForImageClassification"]
    assert written["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert written["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}
    written = write_config(Architecture("vit", dict(patch=8, grid=12)), classes=1)
    assert written["image_size"] == 96
    assert written["architectures"] == ["ViTForImageClassification"]
    assert write_config(Architecture("bert", {}))["type_vocab_size"] == 2


def test_what_hugging_face_lacks_is_refused():
    for name, sizes, message in [
        ("resnet", dict(stem="patch4"), "got stem 'patch4', which .*ResNetModel lacks"),
        ("vit", dict(drop_path=0.1), "got drop_path 0.1, which .*ViTModel lacks"),
        ("distilbert", dict(eps=1e-6, dropout=0.3), "got eps 1e-06, dropout 0.3, whi"),
        ("vit", dict(registers=4), "got registers 4, which"),
        ("gpt2", {}, "got architecture 'gpt2', expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_config(Architecture(name, sizes))
    # The defaults of our module, which Hugging Face's has too.
    same = dict(stem="imagenet", zero_init_residual=False)
    assert write_config(Architecture("resnet", same))["embedding_size"] == 64
    with pytest.raises(ValueError, match="got 2 classes, but a 'bert'"):
        write_config(Architecture("bert", {}), classes=2)


MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
PREPROCESSING = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 96)
IMAGE = dict(image_mean=MEAN, image_std=STD)


@pytest.mark.parametrize(
    "config",
    [
        dict(**IMAGE, size=96),
        dict(
            **IMAGE, size={"height": 96, "width": 96}, rescale_factor=0.00392156862745
        ),
        dict(**IMAGE, size={"shortest_edge": 96}, crop_pct=0.875),
        dict(**IMAGE, size=128, do_center_crop=True, crop_size={"height": 96}),
        dict(**IMAGE, size=96, do_center_crop=False, crop_size=64),
        dict(pretrained_cfg=dict(mean=MEAN, std=STD, input_size=[3, 96, 96])),
    ],
)
def test_preprocessing_is_read(config, tmp_path):
    expected = PREPROCESSING
    if config.get("do_center_crop"):
        expected = PREPROCESSING._replace(resize="shorter")
    assert read_preprocessing(config) == expected
    name = "config.json" if "pretrained_cfg" in config else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps(config))
    assert read_preprocessing(tmp_path) == expected
    assert read_preprocessing(str(tmp_path)) == expected


def test_preprocessing_that_is_not_told(tmp_path):
    assert read_preprocessing(tmp_path) is None
    assert read_preprocessing({"model_type": "resnet"}) is None
    assert read_preprocessing(IMAGE).size == 224
    got = read_preprocessing(dict(**IMAGE, do_normalize=False))
    assert got == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 224, "square")


def test_preprocessing_that_is_refused():
    timm = dict(mean=MEAN, std=STD)
    for config, message in [
        (dict(**IMAGE, size={"height": 96, "width": 64}), r"\[3, 96, 64\]"),
        (dict(**IMAGE, size={"longest_edge": 96}), "got size {'longest_edge': 96}"),
        (dict(pretrained_cfg=dict(**timm, input_size=[1, 96, 96])), r"\[1, 96, 96\]"),
        (dict(image_mean=[0.5], image_std=[0.5]), r"mean \[0.5\]"),
        (dict(**IMAGE, rescale_factor=1 / 127.5), "got rescale_factor 0.0078"),
        (dict(**IMAGE, do_rescale=False), "expected pixels times 1 / 255"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_preprocessing(config)


@pytest.mark.parametrize(
    "resize", ["square", "square_bicubic", "shorter", "shorter_bicubic"]
)
def test_preprocessing_that_is_written_is_read(resize):
    how = PREPROCESSING._replace(resize=resize)
    written = json.loads(json.dumps(write_preprocessing(how)))
    assert read_preprocessing(written) == how
    whole = {"height": 96, "width": 96}
    key = "crop_size" if resize.startswith("shorter") else "size"
    assert written[key] == whole
    assert written["resample"] == (3 if resize.endswith("bicubic") else 2)


def test_json_that_is_none(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        strict_json.read_object(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="config.json holds a list, expected an obj"):
        strict_json.read_object(path)
