import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models.layers import MASKED, Attention, Dropout, LayerNorm, gelu
from memejax.models.layers.attention import _attend
from memejax.models.vit import VITS, Block, ViT, cubic_matrix, interpolate_positions
from memejax.weights.convert import to_variables

GOLDEN = Path(__file__).parent / "golden"
TINY = dict(hidden=16, layers=2, heads=2, mlp=32, patch=4, grid=3)
IMAGES: Any = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype(np.float32)


def formula(d, mlp, layers=12, patch=16):
    """Parameters at grid 14: patch map, CLS, positions, blocks, norm."""
    block = 4 * (d * d + d) + (d * mlp + mlp) + (mlp * d + d) + 4 * d
    return (patch * patch * 3 * d + d) + d + 197 * d + layers * block + 2 * d


PARAMETERS = {
    "vit_tiny": formula(192, 768),
    "vit_small": formula(384, 1536),
    "vit_base": 85_798_656,
    "vit_demo": formula(96, 192, layers=4, patch=8),
}


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "vit.npz") as file:
        case = dict(file)
    sizes = json.loads(str(case["sizes"]))
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    variables, _ = to_variables(tensors, form="huggingface vit", sizes=sizes)
    return case, sizes, variables


@partial(jax.jit, static_argnums=0)
def init(model, *inputs):
    return model.init(jax.random.key(0), *inputs, train=False)


def some(model, *inputs):
    """Random variables: compiling `init` takes longer than all else of a test."""
    rng = np.random.default_rng(7)

    def draw(path, leaf):
        normal = rng.normal(size=leaf.shape)
        match path[-1].key:
            case "kernel":
                return normal / np.sqrt(leaf.size / leaf.shape[-1])
            case "scale" | "var":
                return 1 + 0.2 * np.tanh(normal)
        return 0.3 * normal

    shapes = jax.eval_shape(partial(init, model), *inputs)
    tree = jax.tree_util.tree_map_with_path(draw, shapes)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@partial(jax.jit, static_argnames=("model", "train"))
def apply(variables, *inputs, model, train=False, key=None):
    rngs = None if key is None else {"dropout": key}
    return model.apply(variables, *inputs, train=train, rngs=rngs)


def test_entries_have_the_known_number_of_parameters():
    counts = {}
    for name, sizes in VITS.items():
        images = jnp.zeros((1, 32, 32, 3))
        shapes = jax.eval_shape(partial(init, ViT(**sizes)), images)
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert counts == PARAMETERS
    assert formula(768, 3072) == PARAMETERS["vit_base"]


# "larger" and "mixed" have another grid than the table.
@pytest.mark.parametrize("side", ["same", "larger", "mixed"])
def test_tokens_agree_with_the_reference(golden, side):
    case, sizes, variables = golden
    model = ViT(**sizes)
    images, expected = case[f"images/{side}"], case[f"tokens/{side}"]
    tokens = jax.jit(partial(model.apply, train=False, method=model.tokens))
    assert relative(tokens(variables, images), expected) < 1e-5
    cls = apply(variables, images, model=model)
    assert relative(cls, expected[:, 0]) < 1e-5


def test_a_table_resized_once_is_the_table_resized_in_the_model(golden):
    case, sizes, variables = golden
    images = np.concatenate([case["images/larger"]] * 2, 1)[:, :20, :20]
    expected = apply(variables, images, model=ViT(**sizes))
    params = dict(variables["params"])
    params["positions"] = interpolate_positions(params["positions"], grid=5)
    assert params["positions"].shape == (26, sizes["hidden"])
    got = apply({"params": params}, images, model=ViT(**{**sizes, "grid": 5}))
    assert relative(got, expected) < 1e-6


def test_cubic_matrix_by_hand():
    # From 2 samples to 4, the targets lie at -0.25, 0.25, 0.75 and 1.25.
    a = -0.75

    def near(x):
        return (a + 2) * x**3 - (a + 3) * x**2 + 1

    def far(x):
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a

    # Position -0.25: base -1, samples -2, -1, 0 (all clamped to 0) and 1.
    first = [far(1.75) + near(0.75) + near(0.25), far(1.25)]
    # Position 0.25: base 0, samples -1 and 0 (clamped to 0), 1 and 2 (to 1).
    second = [far(1.25) + near(0.25), near(0.75) + far(1.75)]
    expected = [first, second, second[::-1], first[::-1]]
    np.testing.assert_allclose(cubic_matrix(2, 4), expected, atol=1e-12)
    np.testing.assert_allclose(cubic_matrix(14, 24).sum(1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(cubic_matrix(5, 5), np.eye(5))


def test_positions_keep_cls_and_reject_what_is_no_square():
    table = jnp.arange(20.0).reshape(10, 2)
    wide = interpolate_positions(table, grid=(3, 5))
    assert wide.shape == (16, 2)
    np.testing.assert_array_equal(wide[0], table[0])
    # Symmetric resizing keeps the mean over a row of the picture.
    np.testing.assert_allclose(
        wide[1:].reshape(3, 5, 2).mean(1), table[1:].reshape(3, 3, 2).mean(1), rtol=1e-5
    )
    assert interpolate_positions(table, grid=3) is table
    with pytest.raises(ValueError, match=r"got positions \[9, 2\], expected"):
        interpolate_positions(table[:9], grid=4)


def test_sides_that_are_no_multiples_of_the_patch_are_refused():
    with pytest.raises(
        ValueError, match="12 x 14 pixels.*multiples of the patch size 4"
    ):
        init(ViT(**TINY), jnp.zeros((1, 12, 14, 3)))
    with pytest.raises(ValueError, match="got 16 features, expected a multiple of"):
        init(ViT(**{**TINY, "heads": 3}), IMAGES)
    with pytest.raises(ValueError, match="expected normalised float images"):
        init(ViT(**TINY), IMAGES.astype(np.uint8))


def test_dropout_is_active_in_training_only():
    one_block = {**TINY, "layers": 1}
    model = ViT(**one_block, dropout=0.5)
    variables = some(model, IMAGES)
    plain = apply(variables, IMAGES, model=ViT(**one_block))
    np.testing.assert_array_equal(apply(variables, IMAGES, model=model), plain)
    one, two, again = (
        apply(variables, IMAGES, model=model, train=True, key=jax.random.key(k))
        for k in (1, 2, 1)
    )
    assert relative(one, plain) > 1e-2 and relative(two, one) > 1e-2
    np.testing.assert_array_equal(again, one)


def test_drop_path_drops_whole_branches_in_training_only():
    # Rates are 0 and 1 in the two blocks: of the last only its input is left.
    model = ViT(**TINY, drop_path=1.0)
    variables = some(model, IMAGES)
    plain = apply(variables, IMAGES, model=ViT(**TINY))
    np.testing.assert_array_equal(apply(variables, IMAGES, model=model), plain)
    out = apply(variables, IMAGES, model=model, train=True, key=jax.random.key(0))
    params = {k: v for k, v in variables["params"].items() if k != "block1"}
    shorter = ViT(**{**TINY, "layers": 1})
    expected = apply({"params": params}, IMAGES, model=shorter)
    assert relative(out, expected) < 1e-6
    assert relative(plain, expected) > 1e-2


def test_drop_path_scales_up_what_it_keeps():
    block = Block(
        heads=2, mlp=8, dropout=0.0, drop_path=0.5, eps=1e-6, qkv_bias=True,
        dtype=jnp.float32,
    )  # fmt: skip
    x = np.random.default_rng(5).normal(size=(64, 3, 4)).astype(np.float32)
    variables = some(block, x)
    # No MLP: a block is x + attention(norm1(x)).
    variables["params"]["mlp"] = jax.tree.map(
        jnp.zeros_like, variables["params"]["mlp"]
    )
    branch = apply(variables, x, model=block) - x
    got = apply(variables, x, model=block, train=True, key=jax.random.key(0)) - x
    kept = np.abs(got).max((1, 2)) > 0
    # 64 fair draws: all but one in 10^4 lie between 16 and 48.
    assert 16 < kept.sum() < 48
    assert relative(got[kept], 2 * branch[kept]) < 1e-4


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    model = ViT(**TINY, dtype=jnp.bfloat16)
    variables = some(model, IMAGES)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    out = apply(variables, IMAGES, model=model)
    assert out.dtype == jnp.float32
    exact = apply(variables, IMAGES, model=ViT(**TINY))
    # Rounded to 2^-9: the patch map, whose result is all there is beside the
    # embeddings of 0.02, then two blocks that add a few of their own.
    assert 1e-5 < relative(out, exact) < 2e-2

    def loss(params, dtype):
        model = ViT(**TINY, dtype=dtype)
        out = apply({"params": params}, IMAGES, model=model)
        return jnp.mean(jnp.sin(3 * out))

    low, full = (
        jax.jit(jax.grad(partial(loss, dtype=dtype)))(variables["params"])
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(low))
    scale = max(np.abs(x).max() for x in jax.tree.leaves(full))
    for one, two in zip(*map(jax.tree.leaves, (low, full)), strict=True):
        assert np.abs(one - two).max() < 3e-2 * scale


def test_attention_agrees_with_a_naive_one_and_is_finite_without_keys():
    x = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    where = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    model = Attention(heads=2)
    variables = some(model, x)
    params = variables["params"]
    attend = jax.jit(partial(model.apply, train=False))
    got = attend({"params": params}, x, where=where)

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    q, k, v = (x @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value"))
    for i in range(5):
        heads = []
        for h in (slice(0, 3), slice(3, 6)):
            scores = np.exp(k[0, :3, h] @ q[0, i, h] / np.sqrt(3))
            heads.append(scores @ v[0, :3, h] / scores.sum())
        expected = np.concatenate(heads) @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(got[0, i], expected, rtol=1e-4)

    def loss(x):
        return attend({"params": params}, x, where=where).sum()

    assert np.isfinite(MASKED) and np.isfinite(jax.jit(jax.grad(loss))(x)).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_of_attention_are_those_of_the_formula(causal, rate):
    """By JAX's own derivative, with masks, rows that see nothing, and dropout."""
    rng = np.random.default_rng(2)
    b, n, q, k, e = 2, 3, 4, 4, 5
    shapes = [(b, n, q, e), (b, n, k, e), (b, n, k, e), (b, n, q, e)]
    query, key, value, seed = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes
    )
    visible = np.ones((b, 1, 1, k), bool)
    visible[0, ..., 2:] = visible[1] = False
    if causal:
        visible = visible & np.tri(q, dtype=bool)[None, None]
    kept = None if rate == 0 else jnp.asarray(rng.random((b, n, q, k)) >= rate)
    scale = 1 / (1 - rate)

    def naive(query, key, value):
        logits = jnp.einsum("bnqe,bnke->bnqk", query, key)
        weights = jax.nn.softmax(jnp.where(visible, logits, MASKED), axis=-1)
        if kept is not None:
            weights = weights * kept * scale
        return jnp.vdot(jnp.einsum("bnqk,bnke->bnqe", weights, value), seed)

    def ours(query, key, value):
        mask = jnp.asarray(visible)
        out = _attend(query, key, value, mask, kept, scale, jnp.dtype("float32"))
        return jnp.vdot(out, seed)

    args = (query, key, value)
    np.testing.assert_allclose(ours(*args), naive(*args), rtol=1e-5)
    for one, other in zip(
        *(jax.jit(jax.grad(f, argnums=(0, 1, 2)))(*args) for f in (ours, naive)),
        strict=True,
    ):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_gelu_and_layer_norm_by_hand():
    # x * Phi(x), Phi(1) = 0.8413447, Phi(-2) = 0.0227501; tanh's would be 0.84119.
    got = gelu(jnp.array([0.0, 1.0, -2.0]))
    np.testing.assert_allclose(got, [0.0, 0.8413447, -0.0455003], atol=2e-7)
    # A mean 10,000 times the deviation, as E[x^2] - E[x]^2 could not resolve.
    x = jnp.array([[9_999.0, 10_000.0, 10_001.0]])
    norm = LayerNorm(eps=0.0)
    got = norm.apply(norm.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(got, [[-np.sqrt(1.5), 0.0, np.sqrt(1.5)]], rtol=1e-5)


def test_a_new_model_starts_at_the_scale_of_its_width():
    model = ViT(hidden=32, layers=1, heads=2, mlp=64, patch=4, grid=3)
    params = init(model, IMAGES)["params"]
    for leaf, deviation in (
        # 1 / sqrt(inputs); and Glorot's sqrt(2 / (inputs + outputs)).
        (params["patch"]["kernel"], 48**-0.5),
        (params["block0"]["mlp"]["up"]["kernel"], (2 / (32 + 64)) ** 0.5),
    ):
        # 1536 draws and more know the deviation to 2 %.
        assert abs(np.asarray(leaf).std() / deviation - 1) < 0.08
    np.testing.assert_array_equal(params["patch"]["bias"], 0.0)
    np.testing.assert_array_equal(params["norm"]["scale"], 1.0)


@pytest.mark.parametrize("width", [63, 64])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(width):
    x = jnp.ones((40, 50, width))

    @jax.jit
    def drop(key):
        apply = Dropout(0.3).apply
        return apply({}, x, deterministic=False, rngs={"dropout": key})

    out = np.asarray(drop(jax.random.key(0)))
    # Standard error of a share of 126,000 values: 0.0013.
    assert np.mean(out == 0) == pytest.approx(0.3, abs=0.006)
    np.testing.assert_allclose(out[out != 0], 1 / 0.7, rtol=1e-6)
    # Two values share a word of random bits, and are dropped apart.
    pairs = (out[..., 0:62:2] == 0) & (out[..., 1:62:2] == 0)
    assert np.mean(pairs) == pytest.approx(0.09, abs=0.006)
    assert np.any(out != np.asarray(drop(jax.random.key(1))))
    assert Dropout(0.3).apply({}, x, deterministic=True) is x
    with pytest.raises(ValueError, match="dropout rate 1.0"):
        Dropout(1.0).apply({}, x, deterministic=False)
