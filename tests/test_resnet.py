import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models.layers import BatchNorm, Conv, contract
from memejax.models.resnet import RESNETS, ResNet, max_pool
from memejax.weights.convert import to_variables

GOLDEN = Path(__file__).parent / "golden"

# Without the classifier. By hand for resnet18: stem 9,408 + 128; stages 147,968;
# 525,568; 2,099,712; 8,393,728.
PARAMETERS = {
    "resnet18": 9_408 + 128 + 147_968 + 525_568 + 2_099_712 + 8_393_728,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    # Stem, then stages of one block; the last two have shortcuts.
    "resnet_demo": 1_600 + 18_560 + 57_728 + 230_144,
}

IMAGES: Any = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
SMALL = dict(stage_sizes=(1, 1), bottleneck=True, width=4)


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module", params=["resnet_basic", "resnet_bottleneck"])
def golden(request):
    with np.load(GOLDEN / f"{request.param}.npz") as file:
        case = dict(file)
    sizes = json.loads(str(case["sizes"]))
    sizes["stage_sizes"] = tuple(sizes["stage_sizes"])
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    return case, sizes, tensors


def converted(tensors, sizes):
    return to_variables(tensors, form="huggingface resnet", sizes=sizes)[0]


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
def apply(variables, *inputs, model, train=False):
    return model.apply(variables, *inputs, train=train)


def test_entries_have_the_known_number_of_parameters():
    counts = {}
    for name, sizes in RESNETS.items():
        shapes = jax.eval_shape(partial(init, ResNet(**sizes)), IMAGES)
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert counts == PARAMETERS


def test_evaluation_agrees_with_the_reference(golden):
    case, sizes, tensors = golden
    model, variables = ResNet(**sizes), converted(tensors, sizes)
    pooled = apply(variables, case["images"], model=model)
    assert relative(pooled, case["pooled"]) < 1e-5
    maps = jax.jit(partial(model.apply, train=False, method=model.feature_maps))(
        variables, case["images"]
    )
    assert relative(maps[0], case["stage0"]) < 1e-5
    assert relative(maps[1].mean((1, 2)), case["pooled"]) < 1e-5


def test_training_agrees_with_the_reference_and_updates_the_statistics(golden):
    case, sizes, tensors = golden
    variables = converted(tensors, sizes)
    out, updates = jax.jit(
        partial(ResNet(**sizes).apply, train=True, mutable=["batch_stats"])
    )(variables, case["images"])
    assert relative(out, case["train"]) < 1e-5

    after = {k[6:]: v for k, v in case.items() if k.startswith("after/")}
    expected = converted(tensors | after, sizes)["batch_stats"]
    before = variables["batch_stats"]
    for got, want, old in zip(
        *map(jax.tree.leaves, (updates["batch_stats"], expected, before)), strict=True
    ):
        assert relative(got, want) < 1e-5
        assert relative(old, want) > 1e-3


def test_batch_norm_by_hand():
    # Channel values 1, 3: mean 2, biased variance 1, unbiased 2.
    x = jnp.array([[1.0], [3.0]])
    norm = BatchNorm(momentum=0.9, eps=0.0)
    variables = norm.init(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], [1.0])
    out, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, [[-1.0], [1.0]], rtol=1e-6)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], [0.2], rtol=1e-6)
    np.testing.assert_allclose(stats["var"], [0.9 + 0.2], rtol=1e-6)
    with pytest.raises(ValueError, match="expected at least 2"):
        norm.apply(variables, x[:1], train=True, mutable=["batch_stats"])


@pytest.mark.parametrize("mapper", [jax.vmap, jax.pmap])
def test_two_shards_are_one_batch(mapper):
    whole = ResNet(stage_sizes=(1,), bottleneck=False, width=4, stem="patch4")
    sharded = whole.clone(axis_name="data")
    variables = some(whole, IMAGES)

    def loss(params, images, model):
        variables_ = {"params": params, "batch_stats": variables["batch_stats"]}
        out, updates = model.apply(
            variables_, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(jnp.sin(out)), (out, updates)

    (_, (out, updates)), grads = jax.jit(
        jax.value_and_grad(partial(loss, model=whole), has_aux=True)
    )(variables["params"], IMAGES)
    step = mapper(
        jax.value_and_grad(partial(loss, model=sharded), has_aux=True),
        in_axes=(None, 0),
        axis_name="data",
    )
    step = jax.jit(step) if mapper is jax.vmap else step
    (_, (outs, both)), shard_grads = step(
        variables["params"], IMAGES.reshape(2, 2, 16, 16, 3)
    )
    assert relative(outs.reshape(out.shape), out) < 1e-5
    for one, two in zip(*map(jax.tree.leaves, (updates, both)), strict=True):
        assert relative(two[0], one) < 1e-5
        np.testing.assert_array_equal(two[0], two[1])
    # The mean over shards of the gradients is the gradient of the mean.
    for one, two in zip(*map(jax.tree.leaves, (grads, shard_grads)), strict=True):
        np.testing.assert_allclose(two.mean(0), one, atol=2e-5)


def test_pointwise_and_patch_convolutions_are_convolutions():
    for size, stride in [(1, 1), (1, 2), (4, 4)]:
        conv = Conv(5, size=size, stride=stride)
        kernel = np.random.default_rng(1).normal(size=(size, size, 3, 5))
        kernel = kernel.astype(np.float32)
        expected = jax.lax.conv_general_dilated(
            IMAGES,
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        assert (
            relative(conv.apply({"params": {"kernel": kernel}}, IMAGES), expected)
            < 1e-5
        )


def test_max_pool_takes_the_maximum_of_each_window():
    for h, w in [(7, 8), (1, 2), (6, 5)]:
        x = -1 - np.random.default_rng(h).uniform(size=(2, h, w, 3))
        expected = np.empty((2, (h + 1) // 2, (w + 1) // 2, 3))
        for i in range(expected.shape[1]):
            for j in range(expected.shape[2]):
                window = x[
                    :, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2
                ]
                expected[:, i, j] = window.max((1, 2))
        got = max_pool(jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_bfloat16_products_accumulate_in_float32_both_ways():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(64, 512)), rng.normal(size=(512, 8))
    low_a, low_b = (
        np.asarray(jnp.asarray(m, jnp.bfloat16), np.float64) for m in (a, b)
    )

    def product(a, b):
        return contract("ij,jk->ik", a, b=b, dtype=jnp.bfloat16)

    a32, b32 = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    out, pull = jax.vjp(jax.jit(product), a32, b32)
    assert out.dtype == jnp.float32
    # A bfloat16 accumulator would be off by 1e-2.
    assert relative(out, low_a @ low_b) < 1e-6
    grad_a, grad_b = pull(jnp.ones_like(out))
    assert grad_a.dtype == grad_b.dtype == jnp.float32
    assert relative(grad_a, np.ones((64, 8)) @ low_b.T) < 1e-6
    assert relative(grad_b, low_a.T @ np.ones((64, 8))) < 1e-6


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    model = ResNet(**SMALL, dtype=jnp.bfloat16)
    variables = some(model, IMAGES)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    out = apply(variables, IMAGES, model=model)
    assert out.dtype == jnp.float32
    exact = apply(variables, IMAGES, model=ResNet(**SMALL))
    # A bfloat16 has 8 bits: 2^-9 a rounding, of weights and activations in the
    # 7 layers on the longest path, which are partly averaged out.
    assert 1e-5 < relative(out, exact) < 3e-2

    def loss(params):
        return apply({**variables, "params": params}, IMAGES, model=model).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(grads))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_a_new_network_is_normal_with_the_fan_out_and_zero_where_asked():
    model = ResNet(stage_sizes=(1,), bottleneck=False, width=16, stem="patch4")
    variables = init(model.clone(zero_init_residual=True), IMAGES)
    block = variables["params"]["stage0_block0"]
    # Fan-out 9 * 16; the deviation of 2304 draws is known to 1.5 %.
    kernel = np.asarray(block["layer1"]["conv"]["kernel"])
    assert abs(kernel.std() / np.sqrt(2 / 144) - 1) < 0.06
    np.testing.assert_array_equal(block["layer0"]["norm"]["scale"], 1.0)
    np.testing.assert_array_equal(block["layer1"]["norm"]["scale"], 0.0)
    stats = variables["batch_stats"]["stem"]["norm"]
    np.testing.assert_array_equal(stats["mean"], 0.0)
    np.testing.assert_array_equal(stats["var"], 1.0)

    # Such a block is its shortcut: all that is left is the stem.
    kernel = np.asarray(variables["params"]["stem"]["conv"]["kernel"])
    patches = IMAGES.reshape(4, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    stem = patches.reshape(4, 4, 4, 48) @ kernel.reshape(48, 16) / np.sqrt(1 + 1e-5)
    out = apply(variables, IMAGES, model=model)
    assert relative(out, np.maximum(stem, 0).mean((1, 2))) < 1e-5


def test_stages_have_the_documented_strides_and_widths():
    for stem in ("imagenet", "patch4"):
        model = ResNet(stage_sizes=(1, 1, 1), width=4, stem=stem)
        shapes = jax.eval_shape(
            partial(model.init_with_output, train=False, method="feature_maps"),
            jax.random.key(0),
            jnp.zeros((2, 32, 64, 3)),
        )[0]
        assert [x.shape for x in shapes] == [
            (2, 8, 16, 16),
            (2, 4, 8, 32),
            (2, 2, 4, 64),
        ]


def test_errors_name_what_was_got():
    with pytest.raises(ValueError, match="got stem 'vgg', expected one of"):
        init(ResNet(stem="vgg"), IMAGES)
    with pytest.raises(ValueError, match=r"got images uint8\[4, 16, 16, 3\]"):
        init(ResNet(), IMAGES.astype(np.uint8))
    with pytest.raises(
        ValueError, match="30 x 32 pixels.*multiples of the patch size 4"
    ):
        init(ResNet(stem="patch4"), jnp.zeros((1, 30, 32, 3)))
