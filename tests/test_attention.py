import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import special

from memejax.explain import (
    cls_attention,
    grad_cam,
    own_direction,
    resnet_grad_cam,
    vit_attention,
)
from memejax.models.resnet import ResNet
from memejax.models.vit import ViT
from memejax.weights.convert import to_variables

GOLDEN = Path(__file__).parent / "golden"


def load(name, model, form):
    """A tiny encoder with random weights of the reference's, and its pictures."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        case = dict(file)
    sizes = json.loads(str(case["sizes"]))
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    variables, _ = to_variables(tensors, form=form, sizes=sizes)
    return case, sizes, model(**sizes), variables


@pytest.fixture(scope="module")
def vit():
    return load("vit", ViT, "huggingface vit")


@pytest.fixture(scope="module")
def resnet():
    return load("resnet_bottleneck", ResNet, "huggingface resnet")


@partial(jax.jit, static_argnames=("model", "layer", "renormalize"))
def attend(variables, images, *, model, layer=-1, renormalize=False):
    return vit_attention(
        model.apply,
        variables,
        images_bhwc=images,
        layer=layer,
        renormalize=renormalize,
    )


@partial(jax.jit, static_argnames=("model", "score_fn", "normalize"))
def cam(variables, images, *, model, score_fn=None, normalize=True):
    return resnet_grad_cam(
        model.apply,
        variables,
        images_bhwc=images,
        score_fn=score_fn,
        normalize=normalize,
    )


def naive_attention(case, images, *, heads, patch, eps=1e-12):
    """Attention weights of every block, in float64 and with the reference's names."""
    p = {k[7:]: v.astype(float) for k, v in case.items() if k.startswith("tensor/")}

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    kernel = p["embeddings.patch_embeddings.projection.weight"]
    b, h, w, _ = images.shape
    tokens = []
    for i in range(0, h, patch):
        for j in range(0, w, patch):
            cut = images[:, i : i + patch, j : j + patch].astype(float)
            tokens.append(np.einsum("bxyc,dcxy->bd", cut, kernel))
    x = np.stack(tokens, 1) + p["embeddings.patch_embeddings.projection.bias"]
    cls = np.broadcast_to(p["embeddings.cls_token"], (b, 1, x.shape[-1]))
    x = np.concatenate([cls, x], 1) + p["embeddings.position_embeddings"]
    weights = []
    for layer in range(2):
        name = f"encoder.layer.{layer}"
        y, out = norm(x, f"{name}.layernorm_before"), []
        q, k, v = (
            linear(y, f"{name}.attention.attention.{part}")
            for part in ("query", "key", "value")
        )
        e = q.shape[-1] // heads
        block = np.zeros((b, heads, x.shape[1], x.shape[1]))
        for n in range(heads):
            cut = slice(n * e, (n + 1) * e)
            logits = np.exp(q[..., cut] @ k[..., cut].transpose(0, 2, 1) / np.sqrt(e))
            block[:, n] = logits / logits.sum(-1, keepdims=True)
            out.append(block[:, n] @ v[..., cut])
        weights.append(block)
        x = x + linear(np.concatenate(out, -1), f"{name}.attention.output.dense")
        y = norm(x, f"{name}.layernorm_after")
        y = linear(y, f"{name}.intermediate.dense")
        y = y * (1 + special.erf(y / np.sqrt(2))) / 2
        x = x + linear(y, f"{name}.output.dense")
    return weights


def test_vit_attention_agrees_with_a_naive_one(vit):
    case, sizes, model, variables = vit
    images = case["images/same"]
    expected = naive_attention(case, images, heads=sizes["heads"], patch=sizes["patch"])
    for layer in (0, 1, -1):
        got = attend(variables, images, model=model, layer=layer)
        assert got.shape == (2, 3, 3, 3) and got.dtype == jnp.float32
        row = expected[layer][:, :, 0]
        np.testing.assert_allclose(got.reshape(2, 3, 9), row[:, :, 1:], rtol=1e-4)
        # The whole row sums to 1: the map lacks what CLS gives itself.
        np.testing.assert_allclose(got.sum((2, 3)) + row[:, :, 0], 1.0, rtol=1e-5)
    share = attend(variables, images, model=model, renormalize=True)
    np.testing.assert_allclose(share.sum((2, 3)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        share.reshape(2, 3, 9), row[:, :, 1:] / (1 - row[:, :, :1]), rtol=1e-4
    )


@pytest.mark.parametrize("side", ["larger", "mixed"])
def test_vit_attention_agrees_with_the_reference_on_other_grids(vit, side, tmp_path):
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("transformers")
    case, sizes, model, variables = vit
    config = hf.ViTConfig(
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["mlp"],
        patch_size=sizes["patch"],
        image_size=sizes["patch"] * sizes["grid"],
    )
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    config.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reference = hf.ViTModel.from_pretrained(
        tmp_path, attn_implementation="eager", add_pooling_layer=False
    ).eval()
    images = case[f"images/{side}"]
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        out = reference(pixels, output_attentions=True, interpolate_pos_encoding=True)
    expected = out.attentions[-1].numpy()
    got = attend(variables, images, model=model)
    grid = (images.shape[1] // sizes["patch"], images.shape[2] // sizes["patch"])
    assert got.shape == (2, 3, *grid)
    np.testing.assert_allclose(
        got.reshape(2, 3, -1), expected[:, :, 0, 1:], rtol=1e-4, atol=1e-6
    )


def test_the_grid_has_the_rows_of_the_picture(vit):
    """Without positions, patches that change places take their attention along."""
    case, _, model, variables = vit
    params = {**variables["params"]}
    params["positions"] = jnp.zeros_like(params["positions"])
    images = case["images/mixed"]
    moved = np.roll(images, (4, 8), (1, 2))
    got = attend({"params": params}, moved, model=model)
    expected = np.roll(attend({"params": params}, images, model=model), (1, 2), (2, 3))
    assert got.shape == (2, 3, 2, 5)
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert np.abs(got - np.roll(expected, 1, 3)).max() > 1e-3


def test_nothing_is_kept_unless_asked_for(vit):
    case, _, model, variables = vit
    images = case["images/same"]
    shapes = jax.eval_shape(
        partial(model.init, train=False), jax.random.key(0), jnp.asarray(images)
    )
    assert set(shapes) == {"params"}
    out = jax.eval_shape(partial(model.apply, train=False), variables, images)
    assert out.shape == (2, 24)
    out, state = jax.eval_shape(
        partial(model.apply, train=False, mutable=["intermediates"]), variables, images
    )
    assert set(state["intermediates"]) == {"block0", "block1"}


def test_cls_attention_by_hand():
    # Two heads of 1 + 2 x 3 tokens; only the row of CLS counts.
    weights = np.random.default_rng(0).uniform(size=(1, 2, 7, 7))
    weights[0, 0, 0] = [0.4, 0.1, 0.2, 0.0, 0.1, 0.1, 0.1]
    weights[0, 1, 0] = [1, 0, 0, 0, 0, 0, 0]
    got = cls_attention(weights, grid=(2, 3))
    np.testing.assert_allclose(got[0, 0], [[0.1, 0.2, 0], [0.1, 0.1, 0.1]], rtol=1e-6)
    share = jax.jit(partial(cls_attention, grid=(2, 3), renormalize=True))(weights)
    np.testing.assert_allclose(share[0, 0], got[0, 0] / 0.6, rtol=1e-6)
    # A head that looks at CLS alone has no map, and no NaN.
    np.testing.assert_array_equal(share[0, 1], 0.0)


MAPS: Any = np.array(
    [
        [[[1, 0], [0, 2]], [[3, 1], [0, 0]]],
        [[[0, 1], [0, 1]], [[0, 1], [0, 1]]],
    ],
    np.float32,
)


def test_grad_cam_by_hand():
    # dy / df = (2, -1), over 4 places: (0.5, -0.25).
    got = grad_cam(MAPS, lambda f: 2 * f[:, 0] - f[:, 1], normalize=False)
    np.testing.assert_allclose(got[0], [[0.5, 0], [1.25, 0]])
    np.testing.assert_array_equal(got[1], 0.0)
    got = grad_cam(MAPS, lambda f: 2 * f[:, 0] - f[:, 1])
    np.testing.assert_allclose(got[0], [[0.4, 0], [1, 0]])
    # Nothing raises the second score: a map of zeros, not of NaN.
    np.testing.assert_array_equal(got[1], 0.0)


def test_own_direction_is_the_norm_and_its_gradient_is_the_direction():
    features = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(own_direction(features), [5.0, 0.0])
    gradient = jax.jit(jax.grad(lambda f: own_direction(f).sum()))(features)
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


def head(features):
    """A score that is not linear in the features."""
    weights = jnp.cos(jnp.arange(features.shape[-1], dtype=jnp.float32))
    return jnp.tanh(features @ weights / 3) + 0.2 * (features**2).mean(-1)


def test_grad_cam_of_a_resnet_agrees_with_finite_differences(resnet):
    case, _, model, variables = resnet
    images = case["images"]
    run = jax.jit(partial(model.apply, train=False, method="feature_maps"))
    maps = np.asarray(run(variables, images)[-1], float)
    b, h, w, d = maps.shape

    def score(maps):
        """The head in float64 from the map on."""
        f = maps.mean((1, 2))
        return np.tanh(f @ np.cos(np.arange(d)) / 3) + 0.2 * (f**2).mean(-1)

    # The score depends on the map, at every place; eq. 1 takes the mean.
    weights, step = np.zeros((b, d)), 1e-5
    for i in range(h):
        for j in range(w):
            for k in range(d):
                up, down = maps.copy(), maps.copy()
                up[:, i, j, k] += step
                down[:, i, j, k] -= step
                weights[:, k] += (score(up) - score(down)) / (2 * step) / (h * w)
    expected = np.maximum(np.einsum("bd,bhwd->bhw", weights, maps), 0)
    assert (expected > 0).any((1, 2)).all() and (expected == 0).any()
    got = cam(variables, images, model=model, score_fn=head, normalize=False)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * expected.max())
    got = cam(variables, images, model=model, score_fn=head)
    np.testing.assert_allclose(
        got, expected / expected.max((1, 2), keepdims=True), rtol=1e-3, atol=1e-4
    )


def test_grad_cam_agrees_with_gradients_through_the_pooling(resnet):
    case, _, model, variables = resnet
    run = jax.jit(partial(model.apply, train=False, method="feature_maps"))
    maps = run(variables, case["images"])[-1]
    gradient = jax.grad(lambda maps: head(maps.mean((1, 2))).sum())(maps)
    alpha = np.asarray(gradient, float).mean((1, 2))
    expected = np.maximum(np.einsum("bd,bhwd->bhw", alpha, maps), 0)
    got = cam(variables, case["images"], model=model, score_fn=head, normalize=False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_without_a_head_is_the_likeness_to_the_whole(resnet):
    case, _, model, variables = resnet
    images = case["images"]
    run = jax.jit(partial(model.apply, train=False, method="feature_maps"))
    maps = np.asarray(run(variables, images)[-1], float)
    pooled = maps.mean((1, 2))
    direction = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    expected = np.maximum(np.einsum("bd,bhwd->bhw", direction, maps), 0)
    got = cam(variables, images, model=model)
    np.testing.assert_allclose(
        got, expected / expected.max((1, 2), keepdims=True), rtol=1e-4, atol=1e-6
    )
    # Longer features, the same map.
    scaled = grad_cam(7 * maps, own_direction)
    np.testing.assert_allclose(scaled, got, rtol=1e-4, atol=1e-6)


def test_errors(vit, resnet):
    case, _, model, variables = vit
    with pytest.raises(ValueError, match=r"weights \[1, 2, 5, 5\].*\[b, heads, 7, 7\]"):
        cls_attention(np.zeros((1, 2, 5, 5)), grid=(2, 3))
    with pytest.raises(ValueError, match=r"got a map \[2, 3\]"):
        grad_cam(np.zeros((2, 3)), own_direction)
    with pytest.raises(ValueError, match=r"got scores \[2, 2\], expected \[2\]"):
        grad_cam(MAPS, lambda f: f)
    images = case["images/same"]
    with pytest.raises(ValueError, match="got layer 2 and .* 2 blocks"):
        attend(variables, images, model=model, layer=2)
    case, _, model, variables = resnet
    with pytest.raises(ValueError, match="of 0 blocks, expected one of"):
        attend(variables, case["images"], model=model)
