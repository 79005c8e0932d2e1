"""Arms of images alone, and DINO's head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ROOT

from memejax.config import load_config
from memejax.models import fusion, heads, image, resnet, vit, words
from memejax.stages.parts import models
from memejax.stages.parts.variables import transfer

KEY = jax.random.key(0)
B, K = 3, 6
VIT = vit.ViT(hidden=8, layers=1, heads=2, mlp=8, patch=2, grid=4)
RESNET = resnet.ResNet(stage_sizes=(1,), bottleneck=False, width=8, stem="patch4")
HEAD = heads.DinoHead(out=K, hidden=8, bottleneck=4, layers=2)
ENCODERS = {"cnn": RESNET, "vit": VIT}


def pictures(seed, *shape):
    x = np.random.default_rng(seed).normal(size=(*shape, 3))
    return jnp.asarray(x, jnp.float32)


def shapes(arms, method):
    inputs = {
        "image": jnp.zeros((2, 8, 8, 3)),
        "input_ids": jnp.zeros((2, 4), int),
        "attention_mask": jnp.ones((2, 4), int),
    }
    return jax.eval_shape(
        lambda: arms.init(
            KEY, dict.fromkeys(ENCODERS, inputs), train=False, method=method
        )
    )


def filled(tree):
    """Arrays of its shapes, every number of its own."""
    count = iter(range(1, 10**9))
    return jax.tree.map(
        lambda s: jnp.arange(s.size, dtype=s.dtype).reshape(s.shape) / 7 + next(count),
        tree,
    )


@pytest.mark.parametrize("make", ["cass", "dino"])
def test_an_arm_with_text_takes_the_encoder_over(make):
    """Encoders, with their batch statistics, lie where `fusion.Arm` has them."""
    alone = fusion.Arms(
        {
            name: image.ImageArm(encoder, out=5, predictor=4)
            if make == "cass"
            else image.DinoArm(encoder, HEAD.clone())
            for name, encoder in ENCODERS.items()
        }
    )
    with_text = fusion.Arms(
        {
            name: fusion.Arm(
                image_encoder=encoder,
                text_encoder=words.AveragedWords(vocab_size=9, hidden=4),
                image_width=0,
                embed=4,
                fused=4,
            )
            for name, encoder in ENCODERS.items()
        }
    )
    old = filled(shapes(alone, "project"))
    new = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), shapes(with_text, "classify")
    )
    merged = transfer(old, new)
    assert "stem" in merged["batch_stats"]["arms_cnn"]["image_encoder"]
    for collection, tree in merged.items():
        for arm in ("arms_cnn", "arms_vit"):
            for part, leaves in tree.get(arm, {}).items():
                if part == "image_encoder":
                    jax.tree.map(
                        np.testing.assert_array_equal,
                        leaves,
                        old[collection][arm][part],
                    )
                else:
                    assert not any(np.any(x) for x in jax.tree.leaves(leaves))
    own = {"head", "predictor_head"} if make == "cass" else {"head"}
    assert old["params"]["arms_vit"].keys() == {"image_encoder", *own}


def test_image_arm_by_numpy():
    """z = W encoder(x) + b, and the predictor's ReLU between two linear layers."""
    x = pictures(0, B, 8, 8)
    arm = image.ImageArm(VIT, out=5, predictor=7)
    variables = jax.jit(
        lambda: arm.init(KEY, {"image": x}, train=False, method="project")
    )()
    project = jax.jit(
        lambda arm: arm.apply(variables, {"image": x}, train=False, method="project"),
        static_argnums=0,
    )
    z, p = project(arm)
    features = arm.apply(variables, {"image": x}, train=False, method="features")
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), variables["params"])
    encoded = VIT.apply({"params": params["image_encoder"]}, x, train=False)
    np.testing.assert_allclose(features, encoded, rtol=1e-6)

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    expected = dense(np.asarray(encoded, np.float64), params["head"])
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
    predictor = params["predictor_head"]
    hidden = np.maximum(dense(expected, predictor["hidden"]), 0)
    np.testing.assert_allclose(p, dense(hidden, predictor["out"]), rtol=1e-5, atol=1e-6)
    assert z.shape == p.shape == (B, 5)

    # Without a predictor z stands for itself.
    again, same = project(arm.clone(predictor=0))
    np.testing.assert_allclose(again, z, rtol=1e-6)
    np.testing.assert_array_equal(same, again)


def dino_arm(encoder):
    arm = image.DinoArm(encoder, HEAD)
    variables = jax.jit(
        lambda: arm.init(
            KEY, {"image": jnp.zeros((1, 8, 8, 3))}, train=False, method="project"
        )
    )()
    return arm, variables


@pytest.mark.parametrize("name", ENCODERS)
def test_crops_are_projected_as_one_at_a_time(name):
    """Views in their order, examples in theirs, whatever the sizes."""
    arm, variables = dino_arm(ENCODERS[name])
    crops = pictures(1, 2, B, 8, 8), pictures(2, 3, B, 4, 4)
    project = jax.jit(
        lambda made: arm.apply(variables, made, train=False, method="project")
    )
    logits = project({"crops": crops})
    assert logits.shape == (5, B, K)
    inner = {k: v["image_encoder"] for k, v in variables.items()}
    encode = jax.jit(lambda crop: ENCODERS[name].apply(inner, crop, train=False))
    head = {"params": variables["params"]["head"]}
    one_by_one = [HEAD.apply(head, encode(crop)) for size in crops for crop in size]
    np.testing.assert_allclose(logits, one_by_one, rtol=1e-4, atol=1e-5)
    # No view and no example is like another.
    flat = np.asarray(logits).reshape(-1, K)
    assert len(np.unique(flat.round(5), axis=0)) == len(flat)


def test_empty_locals_are_skipped():
    arm, variables = dino_arm(VIT)
    crops = pictures(1, 2, B, 8, 8)

    def project(*sizes):
        return arm.apply(variables, {"crops": sizes}, train=False, method="project")

    logits = project(crops, jnp.zeros((0, B, 4, 4, 3)))
    assert logits.shape == (2, B, K)
    np.testing.assert_array_equal(logits, project(crops))
    # Where the parameters are made, one image stands for a crop.
    one = arm.apply(variables, {"image": crops[1]}, train=False, method="project")
    np.testing.assert_allclose(one, logits[1:], rtol=1e-5, atol=1e-6)


def test_each_size_is_a_batch_of_its_own():
    """To BatchNorm: two sizes are two updates of its running statistics."""
    arm, variables = dino_arm(RESNET)
    crops = pictures(1, 2, B, 8, 8), pictures(2, 3, B, 4, 4)
    _, new = arm.apply(
        variables,
        {"crops": crops},
        train=True,
        method="project",
        mutable=["batch_stats"],
    )
    stats = variables["batch_stats"]["image_encoder"]
    for size in crops:
        _, out = RESNET.apply(
            {"params": variables["params"]["image_encoder"], "batch_stats": stats},
            size.reshape(-1, *size.shape[2:]),
            train=True,
            mutable=["batch_stats"],
        )
        stats = out["batch_stats"]
    got = new["batch_stats"]["image_encoder"]
    for x, y, old in zip(
        jax.tree.leaves(got),
        jax.tree.leaves(stats),
        jax.tree.leaves(variables["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        assert np.any(x != old)


def test_only_the_student_drops_paths():
    config = load_config(str(ROOT / "configs/dino.py"))
    config.pretrain.drop_path = 0.25
    student, teacher = (models.dino_arms(config, student=s) for s in (True, False))
    assert student.arms["vit"].image_encoder.drop_path == 0.25
    assert teacher.arms["vit"].image_encoder.drop_path == 0.0
    assert student.arms["cnn"] == teacher.arms["cnn"]


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def head_by_numpy(params, x):
    for name in sorted(n for n in params if n.startswith("layer")):
        x = gelu(x @ params[name]["kernel"] + params[name]["bias"])
    x = x @ params["bottleneck"]["kernel"] + params["bottleneck"]["bias"]
    x = x / np.sqrt((x**2).sum(-1, keepdims=True))
    columns = params["prototypes"]
    logits = np.stack([x @ (w / np.sqrt((w**2).sum())) for w in columns.T], axis=-1)
    return logits * params["gain"] if "gain" in params else logits


def random_head(layers, *, norm_last_layer):
    """A head with numbers of a size at which GELU is neither 0 nor the identity."""
    head = heads.DinoHead(
        out=K, hidden=7, bottleneck=4, layers=layers, norm_last_layer=norm_last_layer
    )
    params = jax.eval_shape(lambda: head.init(KEY, jnp.zeros((1, 5))))["params"]
    rng = np.random.default_rng(layers)
    return head, jax.tree.map(lambda s: rng.normal(size=s.shape), params)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_dino_head_by_numpy(layers, norm_last_layer):
    head, params = random_head(layers, norm_last_layer=norm_last_layer)
    x = np.random.default_rng(9).normal(size=(B, 5))
    assert len([n for n in params if n.startswith("layer")]) == layers - 1
    assert ("gain" in params) != norm_last_layer
    logits = head.apply(
        {"params": jax.tree.map(jnp.float32, params)}, jnp.asarray(x, jnp.float32)
    )
    np.testing.assert_allclose(logits, head_by_numpy(params, x), rtol=1e-4, atol=1e-5)
    assert logits.dtype == jnp.float32
    # Cosines, but for the gain.
    assert (np.abs(logits).max() <= 1 + 1e-6) == norm_last_layer


def test_how_long_a_prototype_is_does_not_matter():
    head, params = random_head(2, norm_last_layer=True)
    params = jax.tree.map(jnp.float32, params)
    x = jnp.asarray(np.random.default_rng(9).normal(size=(B, 5)), jnp.float32)
    lengths = jnp.linspace(0.1, 50.0, K)[None]
    longer = params | {"prototypes": params["prototypes"] * lengths}
    np.testing.assert_allclose(
        head.apply({"params": params}, x), head.apply({"params": longer}, x), rtol=1e-5
    )


def test_a_dino_head_starts_small_with_gains_of_one():
    head = heads.DinoHead(out=50, hidden=64, bottleneck=16, norm_last_layer=False)
    params = jax.jit(head.init)(KEY, jnp.ones((1, 32)))["params"]
    for name in ("layer0", "layer1", "bottleneck"):
        kernel = np.asarray(params[name]["kernel"])
        assert 0.018 < kernel.std() < 0.022
        assert not np.any(params[name]["bias"])
    assert np.all(np.asarray(params["gain"]) == 1)
    assert params["prototypes"].shape == (16, 50)


@pytest.mark.parametrize("sizes", [dict(out=1), dict(out=4, layers=0)])
def test_a_head_of_nothing_is_refused(sizes):
    head = heads.DinoHead(**sizes)
    with pytest.raises(ValueError, match="expected at least 2 and 1"):
        jax.eval_shape(head.init, KEY, jnp.ones((1, 4)))


def test_features_of_zero_have_no_direction_and_no_gradient():
    head, params = random_head(1, norm_last_layer=True)
    params = jax.tree.map(jnp.float32, params)
    params["bottleneck"]["bias"] = jnp.zeros(4)
    x = jnp.zeros((2, 5)).at[1].set(1.0)

    def total(params, x):
        return (head.apply({"params": params}, x) ** 2).sum()

    assert np.all(head.apply({"params": params}, x)[0] == 0)
    gradients = jax.grad(total, (0, 1))(params, x)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))
    assert np.all(gradients[1][0] == 0) and np.any(gradients[1][1] != 0)


def test_batch_norm_takes_away_what_a_batch_shares():
    """Features that differ by a thousandth of what they share: told apart."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(100.0 + 0.1 * rng.normal(size=(16, 6)), jnp.float32)

    def cosines(batch_norm):
        head = heads.DinoHead(
            out=K, hidden=8, bottleneck=8, layers=2, batch_norm=batch_norm
        )
        variables = jax.jit(head.init)(KEY, x)
        logits, new = head.apply(variables, x, train=True, mutable=["batch_stats"])
        units = logits / np.linalg.norm(logits, axis=1, keepdims=True)
        return float((units @ units.T).mean()), new

    alike, none = cosines(False)
    apart, stats = cosines(True)
    assert alike > 0.99 and apart < 0.9
    assert not none.get("batch_stats") and np.any(
        np.asarray(stats["batch_stats"]["norm0"]["mean"]) != 0
    )
