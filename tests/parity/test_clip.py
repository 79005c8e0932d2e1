"""CLIP beside transformers: features of both towers, folders both ways, gradients."""

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

from memejax.models.clip import ClipText, ClipVision  # noqa: E402
from memejax.weights import checkpoint  # noqa: E402
from memejax.weights.convert import to_variables  # noqa: E402

IMAGES = np.random.default_rng(4).normal(size=(3, 12, 12, 3)).astype(np.float32)
TOWERS = {"image": (ClipVision, "Vision"), "text": (ClipText, "Text")}


def folder_of(model, where):
    """What a CLIP cannot do without, beside the model's own files."""
    model.save_pretrained(where)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12}
    )
    processor.save_pretrained(where)
    (where / "tokenizer.json").write_text("{}")
    return where


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def clip(request, tmp_path_factory):
    model = MAKE["randomise"](
        transformers.CLIPModel(MAKE["clip_config"](request.param)), 9
    )
    return model, folder_of(model, tmp_path_factory.mktemp(request.param))


def features(model, tower):
    """Pooled and projected features of transformers."""
    with torch.no_grad():
        if tower == "image":
            pooled = model.vision_model(MAKE["channels_first"](IMAGES)).pooler_output
            return pooled.numpy(), model.visual_projection(pooled).numpy()
        ids, mask = map(torch.from_numpy, MAKE["clip_captions"]())
        pooled = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return pooled.numpy(), model.text_projection(pooled).numpy()


def ours(module, variables, tower):
    """The same of our module."""
    inputs = (IMAGES,) if tower == "image" else MAKE["clip_captions"]()
    out = jax.jit(partial(module.apply, train=False))(variables, *inputs)
    pooled = out if tower == "image" else module.pool(out, inputs[1], pooling="cls")
    return pooled, module.apply(variables, pooled, method="project")


@pytest.mark.parametrize("tower", TOWERS)
def test_folders_go_both_ways(clip, tower, tmp_path):
    """Ours from theirs, a single tower of ours to theirs, and back: bit for bit."""
    model, folder = clip
    kind, name = TOWERS[tower]
    loaded = checkpoint.load(folder, tower=tower)
    module = kind(**loaded.architecture.sizes)
    expected = features(model, tower)
    for got, theirs in zip(
        ours(module, loaded.variables, tower), expected, strict=True
    ):
        assert relative(got, theirs) < 1e-5
    single = tmp_path / "single"
    checkpoint.save(
        single,
        loaded.architecture,
        loaded.variables,
        preprocessing=loaded.preprocessing,
    )
    read, info = getattr(
        transformers, f"CLIP{name}ModelWithProjection"
    ).from_pretrained(single, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys"))
    assert read.config.hidden_act == loaded.architecture.sizes["activation"]
    for key, value in read.state_dict().items():
        if value.is_floating_point():
            short = {
                k.split(".", 1)[-1] if "model." in k else k: v
                for k, v in model.state_dict().items()
            }
            whole = model.state_dict()
            same = whole[key] if key in whole else short[key]
            assert torch.equal(value, same), key
    with torch.no_grad():
        if tower == "image":
            embeds = read.eval()(MAKE["channels_first"](IMAGES)).image_embeds
        else:
            ids, mask = map(torch.from_numpy, MAKE["clip_captions"]())
            embeds = read.eval()(input_ids=ids, attention_mask=mask).text_embeds
    np.testing.assert_allclose(embeds.numpy(), expected[1], rtol=1e-5, atol=1e-6)
    folder_of(read, tmp_path / "again")
    again = checkpoint.load(tmp_path / "again")
    assert_trees_equal(again.variables, loaded.variables)
    assert again.architecture == loaded.architecture


def test_a_tower_without_projection(clip, tmp_path):
    model, _ = clip
    alone = transformers.CLIPVisionModel(model.config.vision_config).eval()
    MAKE["randomise"](alone, 3)
    folder_of(alone, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert loaded.architecture.sizes["projection"] == 0
    module = ClipVision(**loaded.architecture.sizes)
    got = jax.jit(partial(module.apply, train=False))(loaded.variables, IMAGES)
    with torch.no_grad():
        expected = alone(MAKE["channels_first"](IMAGES)).pooler_output.numpy()
    assert relative(got, expected) < 1e-5


@pytest.mark.parametrize("tower", TOWERS)
def test_gradients(clip, tower):
    """Of a weighted sum of projected features, for every parameter."""
    model, folder = clip
    kind, _ = TOWERS[tower]
    loaded = checkpoint.load(folder, tower=tower)
    module = kind(**loaded.architecture.sizes)
    weights = np.random.default_rng(5).normal(size=(3, 10)).astype(np.float32)
    inputs = (IMAGES,) if tower == "image" else MAKE["clip_captions"]()

    def loss(params):
        out = module.apply({"params": params}, *inputs, train=False)
        pooled = out if tower == "image" else module.pool(out, inputs[1], pooling="cls")
        projected = module.apply({"params": params}, pooled, method="project")
        return jnp.sum(projected * weights[: len(projected)])

    found = jax.jit(jax.grad(loss))(loaded.variables["params"])
    model.zero_grad()
    if tower == "image":
        pooled = model.vision_model(MAKE["channels_first"](IMAGES)).pooler_output
        projected = model.visual_projection(pooled)
    else:
        ids, mask = map(torch.from_numpy, inputs)
        pooled = model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        projected = model.text_projection(pooled)
    (projected * torch.from_numpy(weights[: len(projected)])).sum().backward()
    theirs = {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }
    expected, _ = to_variables(
        theirs,
        form=f"huggingface {loaded.architecture.name}",
        sizes=loaded.architecture.sizes,
    )
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for got, wanted in zip(
        *map(jax.tree.leaves, (found, expected["params"])), strict=True
    ):
        assert np.abs(got - wanted).max() < 1e-5 * largest
