import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memejax import losses
from memejax.models import FEATURE_HEADS, HateClipper, LinearHead, MemeClip
from memejax.models.feature_heads import (
    HeadOutput,
    ensemble_prompts,
    make_feature_head,
    start_from_prompts,
    zero_shot_logits,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(5, 7)).astype(np.float32)
TEXT = RNG.normal(size=(5, 4)).astype(np.float32)
NAMES = sorted(FEATURE_HEADS)


def small(name, **changes):
    """A published head, but for its width."""
    width = {} if name == "linear" else {"width": 8}
    return make_feature_head(name, **width | changes)


@functools.cache
def started(name):
    """Random parameters of all sizes, not only those of a start."""
    params = small(name).init(jax.random.key(0), IMAGE, TEXT, train=False)["params"]
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    drawn = [rng.normal(scale=0.5, size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, drawn)


@functools.partial(jax.jit, static_argnames=("head", "train"))
def apply(head, params, image, text, train=False, key=None):
    rngs = None if key is None else {"dropout": key}
    return head.apply({"params": params}, image, text, train=train, rngs=rngs)


def unit(x):
    length = np.sqrt(sum(value * value for value in x))
    return x / length if length else np.zeros_like(x)


def affine(params, x):
    out = x @ np.asarray(params["kernel"], np.float64)
    return out + np.asarray(params["bias"], np.float64) if "bias" in params else out


def expected(name, params, image, text):
    """Logit and embedding of one meme in float64, by the published formula."""
    image, text = image.astype(np.float64), text.astype(np.float64)
    if name == "linear":
        joint = np.array([*image, *text])
        return affine(params["logit"], joint)[0], joint
    pair = []
    for modality, x in (("image", image), ("text", text)):
        layer = params[f"{modality}_map"]
        x = affine(layer.get("linear", layer), x)
        if name == "memeclip":
            adapter = params[f"{modality}_adapter"]
            inside = np.maximum(affine(adapter["down"], x), 0)
            x = 0.2 * np.maximum(affine(adapter["up"], inside), 0) + 0.8 * x
        pair.append(unit(x))
    if name == "concat":
        hidden = np.array([*pair[0], *pair[1]])
    elif name == "cross":
        hidden = np.array([v * t for v in pair[0] for t in pair[1]])
    else:
        hidden = pair[0] * pair[1]
    for i in range(len(params["pre_output"])):
        embedding = affine(params["pre_output"][f"linear{i}"], hidden)
        hidden = np.maximum(embedding, 0)
    if name != "memeclip":
        return affine(params["logit"], hidden)[0], embedding
    rows = np.asarray(params["class_rows"], np.float64)
    benign, hateful = (30 * unit(hidden) @ unit(row) for row in rows)
    return hateful - benign, embedding


def close(got, wanted, tolerance=1e-5):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape and got.dtype == np.float32
    assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_their_formulas(name):
    params = started(name)
    out = apply(small(name), params, IMAGE, TEXT)
    assert isinstance(out, HeadOutput)
    rows = [expected(name, params, *pair) for pair in zip(IMAGE, TEXT, strict=True)]
    close(out.logits, [logit for logit, _ in rows])
    close(out.embedding, [embedding for _, embedding in rows])
    assert np.std(out.logits) > 0.01


def test_linear_golden():
    params = {
        "logit": {
            "kernel": jnp.array([[1.0], [2.0], [-1.0]]),
            "bias": jnp.array([0.5]),
        }
    }
    image, text = jnp.array([[1.0, 1.0], [0.0, 2.0]]), jnp.array([[3.0], [1.0]])
    out = apply(LinearHead(), params, image, text)
    np.testing.assert_allclose(out.logits, [0.5, 3.5])
    np.testing.assert_array_equal(out.embedding, [[1, 1, 3], [0, 2, 1]])


@pytest.mark.parametrize("fusion", ["align", "cross"])
def test_hate_clipper_golden(fusion):
    """Identity maps of (3, 4) and (0, 2), and one layer that weights the products."""
    eye = {"linear": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    rows = 2 if fusion == "align" else 4
    weights = jnp.array([[1.0, 0.0], [10.0, -1.0], [100.0, 0.0], [1000.0, -2.0]])
    params = {
        "image_map": eye,
        "text_map": eye,
        "pre_output": {
            "linear0": {"kernel": weights[:rows], "bias": jnp.array([0.0, 0.1])}
        },
        "logit": {"kernel": jnp.array([[1.0], [1.0]]), "bias": jnp.array([-2.0])},
    }
    head = HateClipper(fusion=fusion, width=2, layers=1)
    out = apply(head, params, jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]]))
    # align: (0, .8); cross: (.6 x 0, .6 x 1, .8 x 0, .8 x 1).
    embedding = [8.0, -0.7] if fusion == "align" else [806.0, -2.1]
    np.testing.assert_allclose(out.embedding, [embedding], rtol=1e-5)
    # Without the second, which ReLU takes away.
    np.testing.assert_allclose(out.logits, [embedding[0] - 2.0], rtol=1e-5)


def test_the_published_sizes():
    """Trainable parameters on ViT-L/14, whose features have widths 1024 and 768."""
    maps = (1024 + 1) * 1024 + (768 + 1) * 1024
    hidden = (1024 + 1) * 1024
    by_hand = {
        "linear": 1024 + 768 + 1,
        "concat": maps + (2048 + 1) * 1024 + 2 * hidden + 1025,
        "align": maps + 3 * hidden + 1025,
        "cross": 1025 * 32 + 769 * 32 + 1025 * 32 + 33,
        "memeclip": 2 * 769 * 1024 + 4 * 1024 * 256 + hidden + 2 * 1024,
        "rgcl": maps + 3 * hidden + 1025,
    }
    assert sorted(by_hand) == NAMES
    got = {}
    for name in NAMES:
        width = 768 if name == "memeclip" else 1024
        shapes = jax.eval_shape(
            functools.partial(make_feature_head(name).init, train=False),
            jax.random.key(0),
            jnp.zeros((1, width)),
            jnp.zeros((1, 768)),
        )
        got[name] = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))
    assert got == by_hand
    # The paper's count of align with one layer is 2.9 million.
    assert round((by_hand["align"] - 2 * hidden) / 1e6, 1) == 2.9


@pytest.mark.parametrize("name", NAMES)
def test_the_published_losses_are_there(name):
    published = FEATURE_HEADS[name]
    assert sum(published.losses.values()) == 1
    for loss in published.losses:
        assert callable(getattr(losses, loss))
    assert len(published.source) > 20


@pytest.mark.parametrize("name", NAMES)
def test_memes_do_not_depend_on_their_batch(name):
    params = started(name)
    order = np.array([3, 0, 4, 1, 2])
    out = apply(small(name), params, IMAGE[order], TEXT[order])
    rows = [expected(name, params, IMAGE[i], TEXT[i])[0] for i in order]
    close(out.logits, rows)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "linear"])
def test_dropout_is_on_in_training_alone(name):
    params, head = started(name), small(name)
    calm = apply(head, params, IMAGE, TEXT)
    drawn = [
        apply(head, params, IMAGE, TEXT, train=True, key=jax.random.key(i))
        for i in range(2)
    ]
    again = apply(head, params, IMAGE, TEXT, train=True, key=jax.random.key(0))
    np.testing.assert_array_equal(again.logits, drawn[0].logits)
    for a, b in ((drawn[0], drawn[1]), (drawn[0], calm)):
        assert np.abs(a.logits - b.logits).max() > 1e-3
        assert np.abs(a.embedding - b.embedding).max() > 1e-3
    off = small(name, map_dropout=0.0, fusion_dropout=0.0, dropout=0.0)
    out = apply(off, params, IMAGE, TEXT, train=True, key=jax.random.key(0))
    np.testing.assert_allclose(out.logits, calm.logits, rtol=1e-5)
    # Before the last dropout: its rate does not reach the embedding.
    last = small(name, map_dropout=0.0, fusion_dropout=0.0, dropout=0.9, layers=1)
    one = {**params, "pre_output": {"linear0": params["pre_output"]["linear0"]}}
    out = apply(last, one, IMAGE, TEXT, train=True, key=jax.random.key(0))
    wanted = apply(last, one, IMAGE, TEXT).embedding
    np.testing.assert_allclose(out.embedding, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_missing_modalities_have_finite_gradients(name):
    """Features of 0 and, without biases, vectors of 0 at every norm."""
    head = small(name)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if path[-1].key == "bias" else x, started(name)
    )
    image = np.where(np.arange(5)[:, None] == 1, 0.0, IMAGE)
    text = np.where(np.arange(5)[:, None] < 2, 0.0, TEXT)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(params, image, text):
        out = head.apply({"params": params}, image, text, train=False)
        return jnp.sum(jnp.sin(out.logits)) + jnp.sum(jnp.square(out.embedding))

    value, gradients = loss(params, image, text)
    assert np.isfinite(value)
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()
    assert np.abs(gradients[1][2:]).max() > 1e-4
    if name != "linear":
        assert not np.any(gradients[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_features_give_float32(name):
    out = small(name).apply(
        {"params": started(name)},
        IMAGE.astype(np.float16),
        TEXT.astype(np.float16),
        train=False,
    )
    assert out.logits.dtype == out.embedding.dtype == np.float32
    wanted = [
        expected(name, started(name), v.astype(np.float16), t.astype(np.float16))[0]
        for v, t in zip(IMAGE, TEXT, strict=True)
    ]
    close(out.logits, wanted)


def test_memeclip_is_the_softmax_of_its_rows():
    """Its published loss, the cross-entropy over two classes, from the logit alone."""
    params, labels = started("memeclip"), np.array([0, 1, 1, 0, 1])
    out = apply(small("memeclip"), params, IMAGE, TEXT)
    got = losses.binary_cross_entropy(out.logits, labels)
    hidden = np.maximum(np.asarray(out.embedding, np.float64), 0)
    rows = np.asarray(params["class_rows"], np.float64)
    z = 30 * np.array([[unit(x) @ unit(w) for w in rows] for x in hidden])
    wanted = [np.log(np.exp(r).sum()) - r[y] for r, y in zip(z, labels, strict=True)]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    # Longer rows are the same rows.
    longer = {**params, "class_rows": params["class_rows"] * np.array([[3.0], [0.1]])}
    again = apply(small("memeclip"), longer, IMAGE, TEXT)
    np.testing.assert_allclose(again.logits, out.logits, rtol=1e-4, atol=1e-5)


def test_start_from_prompts():
    params = started("memeclip")
    text = RNG.normal(size=(2, 4)).astype(np.float32)
    got = start_from_prompts(params, text)
    kernel = np.asarray(params["text_map"]["kernel"], np.float64)
    wanted = [unit(unit(t.astype(np.float64)) @ kernel) for t in text]
    close(got["class_rows"], wanted)
    assert got["text_map"] is params["text_map"] and set(got) == set(params)
    assert params["class_rows"] is not got["class_rows"]
    # As published: a given kernel. (1, 0) and (0, 2) to unit rows by hand.
    kernel = np.zeros((2, 8))
    kernel[0, 3], kernel[1, 5], kernel[1, 6] = -2.0, 3.0, 4.0
    got = start_from_prompts(params, np.diag([1.0, 2.0]), kernel=kernel)
    wanted = np.zeros((2, 8))
    wanted[0, 3], wanted[1, 5], wanted[1, 6] = -1.0, 0.6, 0.8
    np.testing.assert_allclose(got["class_rows"], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match=r"got text features \[3, 4\] .* \[2, d\]"):
        start_from_prompts(params, np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"kernel \[4, 8\]"):
        start_from_prompts(params, np.ones((2, 5)))


def test_a_start_is_pytorchs():
    head = HateClipper(width=64, layers=1)
    features = jnp.zeros((1, 400)), jnp.zeros((1, 100))
    params = head.init(jax.random.key(0), *features, train=False)["params"]
    for inputs, layer in (
        (400, params["image_map"]["linear"]),
        (100, params["text_map"]["linear"]),
        (64, params["pre_output"]["linear0"]),
    ):
        bound = inputs**-0.5
        for leaf in (layer["kernel"], layer["bias"]):
            assert 0.9 * bound < np.abs(leaf).max() <= bound
        np.testing.assert_allclose(np.std(layer["kernel"]), bound / 3**0.5, rtol=0.05)


def test_inside_of_nnx():
    head = small("memeclip")
    module = nnx.bridge.ToNNX(head, rngs=nnx.Rngs(0)).lazy_init(
        IMAGE, TEXT, train=False
    )
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    out = module(IMAGE, TEXT, train=False)
    wanted = [
        expected("memeclip", params, *pair)[0] for pair in zip(IMAGE, TEXT, strict=True)
    ]
    close(out.logits, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_heads(name):
    head: Any = small(name)
    init = functools.partial(head.init, jax.random.key(0), train=False)
    with pytest.raises(ValueError, match=r"float32\[7\] and text .* \[b, d\] and"):
        init(IMAGE[0], TEXT)
    with pytest.raises(ValueError, match=r"\[5, 7\] and text features float32\[4, 4\]"):
        init(IMAGE, TEXT[:4])
    with pytest.raises(ValueError, match=r"int32\[5, 4\], expected float"):
        init(IMAGE, TEXT.astype(np.int32))
    if name != "linear":
        with pytest.raises(ValueError, match="0 layers, expected at least 1"):
            small(name, layers=0).init(jax.random.key(0), IMAGE, TEXT, train=False)


def test_errors_of_attributes():
    def init(head):
        return head.init(jax.random.key(0), IMAGE, TEXT, train=False)

    with pytest.raises(ValueError, match="'sum', expected one of"):
        init(HateClipper(fusion="sum"))
    with pytest.raises(ValueError, match="ratio 1.5"):
        init(MemeClip(ratio=1.5))
    for reduction in (0, 9):
        with pytest.raises(ValueError, match=f"reduction of {reduction}, .* 1 to 8"):
            init(MemeClip(width=8, reduction=reduction))
    with pytest.raises(ValueError, match=r"got head 'mlp', .*'align', 'concat'"):
        make_feature_head("mlp")
    with pytest.raises(TypeError, match="depth"):
        make_feature_head("align", depth=2)


def test_zero_shot_golden():
    """Two prompts: the difference of their logits, that is cosines times e^scale."""
    images = jnp.array([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    prompts = jnp.array([[2.0, 0.0], [0.0, 5.0]])
    score = functools.partial(zero_shot_logits, images, prompts)
    got = score(hateful=(False, True), logit_scale=math.log(10.0))
    np.testing.assert_allclose(got, [2.0, -10.0, 0.0], rtol=1e-5, atol=1e-6)
    got = score(hateful=(True, False), logit_scale=0.0)
    np.testing.assert_allclose(got, [-0.2, 1.0, 0.0], rtol=1e-5, atol=1e-6)


def test_zero_shot_is_clips_softmax():
    images, prompts = RNG.normal(size=(6, 5)), RNG.normal(size=(4, 5))
    hateful = (True, False, False, True)
    got = jax.jit(
        lambda v, t, s: zero_shot_logits(v, t, hateful=hateful, logit_scale=s)
    )(images, prompts, math.log(20.0))
    wanted = []
    for v in images:
        weights = [np.exp(20 * unit(v) @ unit(t)) for t in prompts]
        share = (weights[0] + weights[3]) / sum(weights)
        wanted.append(np.log(share / (1 - share)))
    close(got, wanted)
    scaled = zero_shot_logits(
        images * 7, prompts * 0.1, hateful=hateful, logit_scale=math.log(20.0)
    )
    close(scaled, wanted)


def test_zero_shot_is_siglips_difference_of_log_odds():
    images, prompts = RNG.normal(size=(6, 5)), RNG.normal(size=(2, 5))
    scale, bias = math.log(12.0), -7.0
    odds = []
    for t in prompts:
        z = np.array([12 * unit(v) @ unit(t) + bias for v in images])
        p = 1 / (1 + np.exp(-z))
        odds.append(np.log(p / (1 - p)))
    got = zero_shot_logits(images, prompts, hateful=(False, True), logit_scale=scale)
    close(got, odds[1] - odds[0])


def test_zero_shot_has_finite_gradients_at_zero():
    def total(images):
        prompts = jnp.eye(3)
        kinds = (True, False, True)
        return zero_shot_logits(images, prompts, hateful=kinds, logit_scale=4.6).sum()

    gradient = jax.jit(jax.grad(total))(jnp.array([[0.0, 0, 0], [1.0, 2, 3]]))
    assert not np.any(gradient[0]) and np.isfinite(gradient).all()
    assert np.abs(gradient[1]).max() > 0.1


def test_ensemble_prompts():
    # Templates count by direction, not by length.
    templates = jnp.array([[[4.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [-3.0, 0.0]]])
    got = jax.jit(ensemble_prompts)(templates)
    np.testing.assert_allclose(got, [[0.5**0.5] * 2, [0.0, 0.0]], rtol=1e-6)
    drawn = RNG.normal(size=(3, 4, 6))
    wanted = [unit(sum(unit(drawn[t, c]) for t in range(3)) / 3) for c in range(4)]
    close(ensemble_prompts(drawn), wanted)


def test_errors_of_zero_shot():
    score = functools.partial(zero_shot_logits, logit_scale=1.0)
    with pytest.raises(ValueError, match=r"images \[5, 7\] and prompts \[5, 4\]"):
        score(IMAGE, TEXT, hateful=(True,) * 5)
    with pytest.raises(ValueError, match=r"images \[7\]"):
        score(IMAGE[0], IMAGE, hateful=(True,) * 5)
    with pytest.raises(ValueError, match="for 5 prompts, expected one value"):
        score(IMAGE, IMAGE, hateful=(True, False))
    with pytest.raises(ValueError, match="both kinds"):
        score(IMAGE, IMAGE, hateful=(True,) * 5)
    for shape in ((2, 3), (0, 2, 3)):
        with pytest.raises(ValueError, match=r"expected \[t, c, d\]"):
            ensemble_prompts(jnp.ones(shape))
