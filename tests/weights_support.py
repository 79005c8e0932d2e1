"""Checkpoints that several test files read: golden tensors, and folders of them."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden"
# Form: the golden file that holds tensors of it.
FORMS = {
    "huggingface resnet": "resnet_bottleneck",
    "huggingface vit": "vit",
    "huggingface distilbert": "distilbert",
    "huggingface bert": "bert",
    "torch resnet": "torch_resnet",
    "torch efficientnet_lite": "efficientnet_lite",
    "torch vit": "torch_vit",
    "vit npz": "vit_npz",
}
# Those that a linear classifier of 5 classes comes with.
CLASSIFIERS = ("torch resnet", "torch efficientnet_lite", "torch vit", "vit npz")
CLASSES = 5

_TRANSFORMER = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40
)
_TEXT = dict(vocab_size=50, max_position_embeddings=12)
CONFIGS = {
    "resnet": dict(depths=[2, 1], embedding_size=4, hidden_sizes=[16, 32]),
    "vit": dict(**_TRANSFORMER, patch_size=4, image_size=12),
    "distilbert": dict(dim=24, n_layers=2, n_heads=3, hidden_dim=40, **_TEXT),
    "bert": dict(**_TRANSFORMER, **_TEXT),
}


def case(file):
    """The arrays of a golden file, its tensors and our attributes."""
    with np.load(GOLDEN / f"{file}.npz") as opened:
        content = dict(opened)
    sizes = json.loads(str(content["sizes"]))
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
    tensors = {k[7:]: v for k, v in content.items() if k.startswith("tensor/")}
    return content, tensors, sizes


def golden(form):
    """Tensors of a form, and our attributes; a model_type is Hugging Face's form."""
    _, tensors, sizes = case(FORMS[form if form in FORMS else f"huggingface {form}"])
    return tensors, sizes


def save(folder, name, **config):
    """A folder of Hugging Face's; returns what `golden` returns."""
    tensors, sizes = golden(name)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": name, **CONFIGS[name], **config}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors, sizes


def assert_trees_equal(one, two):
    """Same structure, float32, same bits."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        assert a.dtype == b.dtype == np.float32
        assert a.shape == b.shape
        np.testing.assert_array_equal(bits(a), bits(b))


def bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()
