"""Outputs and gradients beside the models of transformers, from random weights."""

import runpy
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    # transformers and torch warn of what they themselves import.
    warnings.simplefilter("ignore")
    pytest.importorskip("transformers")
    MAKE = runpy.run_path(
        str(Path(__file__).parents[1] / "golden" / "make_encoders.py")
    )

from memejax.models.distilbert import DistilBert  # noqa: E402
from memejax.models.resnet import ResNet  # noqa: E402
from memejax.models.vit import ViT  # noqa: E402
from memejax.weights import huggingface  # noqa: E402

RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(3, 29, 26, 3)).astype(np.float32)
PICTURES = RNG.normal(size=(2, 16, 28, 3)).astype(np.float32)
IDS = RNG.integers(1, 50, size=(3, 10))
MASK = (np.arange(10) < np.array([[10], [6], [1]])).astype(int)


def state_dict(model):
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


def gradients(model):
    """Gradients under the names of the state dict, zero where there is none."""
    return {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }


def assert_close(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def assert_gradients_close(got, expected, *, tolerance=4e-5):
    """Every leaf within 4e-5 of the largest entry of it, or of all / 1000.

    Twice the tolerance of outputs: a gradient sums over positions what an output has
    once. Some leaves (the bias of keys) have gradient zero in exact arithmetic, hence
    the floor.
    """
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for one, two in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        scale = max(np.abs(two).max(), largest / 1000)
        assert np.abs(np.asarray(one) - two).max() <= tolerance * scale


def value_and_grad(apply, params):
    """Outputs, and gradients of the sum of their sines."""

    def loss(params):
        out, updates = apply(params)
        return jnp.sum(jnp.sin(out)), (out, updates)

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_resnet(bottleneck, train):
    theirs, sizes = MAKE["resnet_model"](bottleneck=bottleneck)
    variables = huggingface.resnet_variables(state_dict(theirs), sizes=sizes)
    model = ResNet(**sizes)

    def apply(params):
        return model.apply(
            {**variables, "params": params},
            IMAGES,
            train=train,
            mutable=["batch_stats"],
        )

    grads, (out, updates) = value_and_grad(apply, variables["params"])
    theirs.train(train)
    expected = theirs(MAKE["channels_first"](IMAGES)).pooler_output[:, :, 0, 0]
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())

    after = huggingface.resnet_variables(state_dict(theirs), sizes=sizes)
    for one, two in zip(
        *map(jax.tree.leaves, (updates["batch_stats"], after["batch_stats"])),
        strict=True,
    ):
        assert_close(one, two)
    tensors = state_dict(theirs) | gradients(theirs)
    expected = huggingface.resnet_variables(tensors, sizes=sizes)["params"]
    # Through the statistics of a batch of three, the reference in float32 is itself
    # up to 8e-5 from the reference in float64, over four draws of the images.
    tolerance = 1e-4 if train else 4e-5
    assert_gradients_close(grads, expected, tolerance=tolerance)


def test_vit_at_another_size():
    theirs, sizes = MAKE["vit_model"]()
    params = huggingface.vit_variables(state_dict(theirs), sizes=sizes)["params"]
    tokens = partial(ViT(**sizes).apply, train=False, mutable=[], method="tokens")
    grads, (out, _) = value_and_grad(lambda p: tokens({"params": p}, PICTURES), params)

    expected = theirs(
        MAKE["channels_first"](PICTURES), interpolate_pos_encoding=True
    ).last_hidden_state
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())
    expected = huggingface.vit_variables(gradients(theirs), sizes=sizes)["params"]
    assert_gradients_close(grads, expected)


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_text(name):
    convert = {
        "distilbert": huggingface.distilbert_variables,
        "bert": huggingface.bert_variables,
    }[name]
    theirs, sizes = MAKE[f"{name}_model"]()
    params = convert(state_dict(theirs), sizes=sizes)["params"]
    apply = partial(DistilBert(**sizes).apply, train=False, mutable=[])
    grads, (out, _) = value_and_grad(lambda p: apply({"params": p}, IDS, MASK), params)

    expected = theirs(
        input_ids=torch.from_numpy(IDS), attention_mask=torch.from_numpy(MASK)
    ).last_hidden_state
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())
    tensors = gradients(theirs)
    # Theirs lies in two tables whose sum is ours: either has the whole gradient.
    tensors["embeddings.token_type_embeddings.weight"] = np.zeros((2, 24), np.float32)
    if name == "distilbert":
        del tensors["embeddings.token_type_embeddings.weight"]
    expected = convert(tensors, sizes=sizes)["params"]
    assert_gradients_close(grads, expected)


@pytest.mark.parametrize("name", ["vit", "distilbert", "bert", "resnet"])
def test_load_reads_what_transformers_saves(name, tmp_path):
    options = dict(bottleneck=True) if name == "resnet" else {}
    theirs, sizes = MAKE[f"{name}_model"](**options)
    theirs.save_pretrained(tmp_path)
    architecture, variables = huggingface.load(tmp_path)
    assert architecture.name == name
    assert architecture.sizes.items() >= sizes.items()
    convert = getattr(huggingface, f"{name}_variables")
    expected = convert(state_dict(theirs), sizes=sizes)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for one, two in zip(*map(jax.tree.leaves, (variables, expected)), strict=True):
        np.testing.assert_array_equal(one, two)
