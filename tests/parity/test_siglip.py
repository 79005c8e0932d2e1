"""SigLIP beside transformers: features of both towers, folders both ways, gradients."""

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
    transformers = pytest.importorskip("transformers")
    MAKE = runpy.run_path(
        str(Path(__file__).parents[1] / "golden" / "make_encoders.py")
    )

from weights_support import assert_trees_equal, relative  # noqa: E402

from memejax.models.siglip import SiglipText, SiglipVision  # noqa: E402
from memejax.weights import checkpoint  # noqa: E402
from memejax.weights.convert import to_variables  # noqa: E402

IMAGES = np.random.default_rng(4).normal(size=(3, 14, 14, 3)).astype(np.float32)
TOWERS = {"image": (SiglipVision, "Vision"), "text": (SiglipText, "Text")}


def folder_of(model, where):
    """What a SigLIP cannot do without, beside the model's own files."""
    model.save_pretrained(where)
    processor = transformers.SiglipImageProcessor(size={"height": 14, "width": 14})
    processor.save_pretrained(where)
    (where / "tokenizer.json").write_text("{}")
    return where


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    model = MAKE["randomise"](transformers.SiglipModel(MAKE["siglip_config"]()), 9)
    return model, folder_of(model, tmp_path_factory.mktemp("siglip"))


def theirs(model, tower):
    """Features of transformers' tower."""
    if tower == "image":
        inputs = {"pixel_values": MAKE["channels_first"](IMAGES)}
        return model.vision_model(**inputs).pooler_output
    ids, _ = MAKE["siglip_captions"]()
    return model.text_model(input_ids=torch.from_numpy(ids)).pooler_output


def ours(module, variables, tower):
    """The same of our module."""
    inputs = (IMAGES,) if tower == "image" else MAKE["siglip_captions"]()
    out = jax.jit(partial(module.apply, train=False))(variables, *inputs)
    pooled = out if tower == "image" else module.pool(out, inputs[1], pooling="cls")
    return module.apply(variables, pooled, method="project")


@pytest.mark.parametrize("tower", TOWERS)
def test_folders_go_both_ways(siglip, tower, tmp_path):
    """Ours from theirs, a single tower of ours to theirs, and back: bit for bit."""
    model, folder = siglip
    kind, name = TOWERS[tower]
    loaded = checkpoint.load(folder, tower=tower)
    module = kind(**loaded.architecture.sizes)
    with torch.no_grad():
        expected = theirs(model, tower).numpy()
    assert relative(ours(module, loaded.variables, tower), expected) < 1e-5
    single = tmp_path / "single"
    checkpoint.save(
        single,
        loaded.architecture,
        loaded.variables,
        preprocessing=loaded.preprocessing,
    )
    read, info = getattr(transformers, f"Siglip{name}Model").from_pretrained(
        single, output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys"))
    short = {
        k.removeprefix(f"{name.lower()}_model."): v
        for k, v in model.state_dict().items()
        if k.startswith(name.lower())
    }
    checked = 0
    for key, value in read.state_dict().items():
        if value.is_floating_point():
            whole = key.removeprefix(f"{name.lower()}_model.")
            assert torch.equal(value, short[whole]), key
            checked += 1
    assert checked > 30
    inputs = (
        {"pixel_values": MAKE["channels_first"](IMAGES)}
        if tower == "image"
        else {"input_ids": torch.from_numpy(MAKE["siglip_captions"]()[0])}
    )
    with torch.no_grad():
        pooled = read.eval()(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    folder_of(read, tmp_path / "again")
    again = checkpoint.load(tmp_path / "again")
    assert_trees_equal(again.variables, loaded.variables)
    assert again.architecture == loaded.architecture


@pytest.mark.parametrize("tower", TOWERS)
def test_gradients(siglip, tower):
    """Of a weighted sum of features, for every parameter."""
    model, folder = siglip
    kind, _ = TOWERS[tower]
    loaded = checkpoint.load(folder, tower=tower)
    module = kind(**loaded.architecture.sizes)
    width = 24 if tower == "image" else 20
    weights = np.random.default_rng(5).normal(size=(3, width)).astype(np.float32)

    def loss(params):
        features = ours(module, {"params": params}, tower)
        return jnp.sum(features * weights[: len(features)])

    found = jax.jit(jax.grad(loss))(loaded.variables["params"])
    model.zero_grad()
    features = theirs(model, tower)
    (features * torch.from_numpy(weights[: len(features)])).sum().backward()
    gradients = {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }
    expected, _ = to_variables(
        gradients,
        form=f"huggingface {loaded.architecture.name}",
        sizes=loaded.architecture.sizes,
    )
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for got, wanted in zip(
        *map(jax.tree.leaves, (found, expected["params"])), strict=True
    ):
        assert np.abs(got - wanted).max() < 1e-5 * largest
