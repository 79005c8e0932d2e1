import json
import math
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import refused

from memejax.weights import inspect


def sparse(path, shapes, dtype="F32"):
    """A safetensors file of zeros that takes no room on the disk."""
    size = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + size * math.prod(shape)
        header[name] = dict(dtype=dtype, shape=list(shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return 8 + len(text) + end


def norm(name, width):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts}


def dense(name, out, width):
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def layer_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def resnet50():
    """torchvision's names and shapes."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            shapes |= norm(f"{name}.bn1", width) | norm(f"{name}.bn2", width)
            shapes |= norm(f"{name}.bn3", 4 * width)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                shapes |= norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    return shapes | dense("fc", 1000, 2048)


def vit(*, hidden, patch, classes):
    """timm's names and shapes, for pictures of 224 pixels."""
    shapes = {
        "cls_token": (1, 1, hidden),
        "pos_embed": (1, 1 + (224 // patch) ** 2, hidden),
        "patch_embed.proj.weight": (hidden, 3, patch, patch),
        "patch_embed.proj.bias": (hidden,),
        **layer_norm("norm", hidden),
    }
    for i in range(12):
        shapes |= layer_norm(f"blocks.{i}.norm1", hidden)
        shapes |= layer_norm(f"blocks.{i}.norm2", hidden)
        shapes |= dense(f"blocks.{i}.attn.qkv", 3 * hidden, hidden)
        shapes |= dense(f"blocks.{i}.attn.proj", hidden, hidden)
        shapes |= dense(f"blocks.{i}.mlp.fc1", 4 * hidden, hidden)
        shapes |= dense(f"blocks.{i}.mlp.fc2", hidden, 4 * hidden)
    return shapes | (dense("head", classes, hidden) if classes else {})


def distilbert():
    """Hugging Face's names and shapes."""
    shapes = {
        "embeddings.word_embeddings.weight": (30522, 768),
        "embeddings.position_embeddings.weight": (512, 768),
        **layer_norm("embeddings.LayerNorm", 768),
    }
    for i in range(6):
        name = f"transformer.layer.{i}"
        for part in ("q", "k", "v", "out"):
            shapes |= dense(f"{name}.attention.{part}_lin", 768, 768)
        shapes |= layer_norm(f"{name}.sa_layer_norm", 768)
        shapes |= dense(f"{name}.ffn.lin1", 3072, 768)
        shapes |= dense(f"{name}.ffn.lin2", 768, 3072)
        shapes |= layer_norm(f"{name}.output_layer_norm", 768)
    return shapes


def test_resnet50(tmp_path):
    path = tmp_path / "res net.safetensors"
    size = sparse(path, resnet50())
    said = inspect.describe(str(path))
    # What torchvision's table of models says: 25.6 M.
    assert said["parameters"] == 25_557_032
    assert said["files"] == [str(path)]
    assert said["format"] == "safetensors"
    assert said["megabytes"] == size / 1e6
    assert said["dtypes"] == {"float32": 267}
    assert said["tensors"] == 267
    assert said["form"] == "torch resnet"
    assert said["architecture"] == "resnet"
    assert said["model"] == "resnet50"
    assert said["sizes"] == dict(stage_sizes=(3, 4, 6, 3), width=64, bottleneck=True)
    assert said["classes"] == 1000
    assert said["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert said["preprocessing"]["size"] == 224
    assert said["flags"] == [f"--config.weights.image_cnn='{path}'"]
    assert "listing" not in said
    text = inspect.to_text(said)
    assert "resnet50" in text and "25,557,032" in text and "1000 classes" in text
    assert f"--config.weights.image_cnn='{path}'" in text
    assert "tokenizer" not in text


# Parameters: timm's vit_base_patch16_224 and deit_tiny_patch16_224, DINO's ViT-S/8; the
# last by hand.
@pytest.mark.parametrize(
    ("file", "hidden", "patch", "classes", "model", "parameters"),
    [
        ("vit", 768, 16, 1000, "vit_base", 86_567_656),
        ("vit", 192, 16, 1000, "vit_tiny", 5_717_416),
        ("dino", 384, 8, None, "vit_small", 21_670_272),
        ("vit", 128, 16, 5, None, 2_503_941),
    ],
)
def test_vit(tmp_path, file, hidden, patch, classes, model, parameters):
    path = tmp_path / f"{file}.safetensors"
    sparse(path, vit(hidden=hidden, patch=patch, classes=classes), "BF16")
    said = inspect.describe(str(path))
    assert said["model"] == model
    assert said["parameters"] == parameters
    assert said["classes"] == classes
    assert list(said["dtypes"]) == ["bfloat16"]
    assert said["sizes"]["patch"] == patch
    assert said["sizes"]["grid"] == 224 // patch
    mean = 0.485 if file == "dino" else 0.5
    assert said["preprocessing"]["mean"][0] == mean
    assert said["flags"] == [f"--config.weights.image_vit={path}"]
    text = inspect.to_text(said)
    assert f"hidden={hidden}" in text and "224 x 224" in text
    assert (model or "without a name of ours") in text


def test_distilbert(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sparse(tmp_path / "bert/model.safetensors", distilbert())
    (tmp_path / "bert/config.json").write_text('{"model_type": "distilbert"}')
    inspect.main(["bert"])
    text = capsys.readouterr().out
    assert "66,362,880" in text
    assert "huggingface distilbert, distilbert\n" in text
    assert "--config.weights.text=bert\n" in text
    assert "none beside it: give one with --config.data.tokenizer" in text
    assert "classifier  none" in text
    assert "images" not in text
    (tmp_path / "bert/vocab.txt").write_text("[PAD]\n")
    inspect.main(["bert", "--json", "--tensors"])
    said = json.loads(capsys.readouterr().out)
    assert said["tokenizer"] == "bert"
    assert said["model"] == "distilbert"
    assert said["sizes"]["vocab_size"] == 30522
    assert len(said["listing"]) == said["tensors"] == len(distilbert())
    assert said["listing"][0] == {
        "name": "embeddings.word_embeddings.weight",
        "shape": [30522, 768],
        "dtype": "float32",
    }


def test_a_detector(tmp_path):
    tensors = {
        "rpn.head.cls_logits.weight": np.zeros((3, 4, 1, 1), np.float32),
        "roi_heads.box_predictor.cls_score.weight": np.zeros((91, 4), np.float32),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": np.zeros(2, np.float32),
    }
    path = tmp_path / "detector.npz"
    np.savez(path, **tensors)
    said = inspect.describe(str(path))
    assert said["architecture"] == "maskrcnn"
    assert said["classes"] == 91
    assert said["format"] == "npz"
    assert said["flags"] == [f"--config.weights.detector={path}"]
    assert f"--config.weights.detector={path}" in inspect.to_text(said)


def test_what_is_unknown_is_listed(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    tensors = {f"h.{i:02}.attn.c_attn.weight": np.zeros((2, 6)) for i in range(30)}
    counts = {"h.30.count": np.arange(5)}
    save_file(tensors | counts, path)
    said = inspect.describe(str(path))
    assert said["form"] is None and said["architecture"] is None
    assert "GPT-2" in said["reason"]
    assert said["dtypes"] == {"float64": 30, "int64": 1}
    # Whole numbers are no parameters.
    assert said["parameters"] == 30 * 12
    assert len(said["listing"]) == 20
    inspect.main([str(path)])
    text = capsys.readouterr().out
    assert "the first 20 of 31 tensors" in text
    assert "h.00.attn.c_attn.weight [2, 6] float64" in text
    assert text.count("\n            h.") == 20
    inspect.main([str(path), "--tensors"])
    text = capsys.readouterr().out
    assert "first" not in text and text.count("c_attn.weight") == 30


def test_the_command_line_has_no_traceback(tmp_path, capsys):
    with refused(capsys, "error: no weights in .*holds nothing"):
        inspect.main([str(tmp_path)])
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with refused(capsys, "error: .*model.safetensors: got 6 bytes"):
        inspect.main([str(tmp_path)])
