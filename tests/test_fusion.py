"""The multimodal arm, worked out with encoders that are matrices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models import fusion
from memejax.models.encoders import TextEncoder, pool_tokens


class ImageMatrix(nn.Module):
    @nn.compact
    def __call__(self, images_bhwc, *, train):
        flat = images_bhwc.reshape(images_bhwc.shape[0], -1)
        return nn.Dense(5, use_bias=False)(flat)


class TextTable(TextEncoder):
    @nn.compact
    def __call__(self, input_ids, attention_mask, *, train):
        return nn.Embed(11, 4)(input_ids) * attention_mask[..., None]


RNG = np.random.default_rng(0)
INPUTS = {
    "image": jnp.asarray(RNG.normal(size=(3, 2, 2, 3)), jnp.float32),
    "input_ids": jnp.asarray(RNG.integers(0, 11, (3, 6))),
    "attention_mask": jnp.ones((3, 6), jnp.int32),
}


def arm(**changes):
    sizes = dict(image_width=7, embed=6, fused=8, out=9)
    return fusion.Arm(
        image_encoder=ImageMatrix(), text_encoder=TextTable(), **(sizes | changes)
    )


def init(module, method="project"):
    return module.init(jax.random.key(0), INPUTS, train=False, method=method)


def dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])


@pytest.mark.parametrize("joined", ["concat", "sum", "product"])
def test_project_is_figure_2(joined):
    module = arm(fusion=joined)
    variables = init(module)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    flat = np.asarray(INPUTS["image"], np.float64).reshape(3, -1)
    image = flat @ p["image_encoder"]["Dense_0"]["kernel"]
    v = dense(p["vision_adder"], dense(p["image_head"], image))
    ids = np.asarray(INPUTS["input_ids"])[:, 0]
    u = dense(p["language_adder"], p["text_encoder"]["Embed_0"]["embedding"][ids])
    joint = {"concat": np.concatenate([u, v], -1), "sum": u + v, "product": u * v}
    f = np.maximum(dense(p["fusion_layer"], joint[joined]), 0)
    z, prediction = module.apply(variables, INPUTS, train=False, method="project")
    np.testing.assert_allclose(z, dense(p["fc"], f), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(z, prediction)


def test_parameters_are_those_of_the_paper():
    """300 + 300 -> 256 -> 1000 behind encoders of width 768 and 2048."""
    sizes = {
        "image_head": (2048 + 1) * 512,
        "vision_adder": (512 + 1) * 300,
        "language_adder": (768 + 1) * 300,
        "fusion_layer": (600 + 1) * 256,
        "fc": (256 + 1) * 1000,
    }

    class Wide(TextEncoder):
        width: int

        def __call__(self, x, *more, train):
            shape = (
                (x.shape[0], self.width) if not more else (x.shape[0], 2, self.width)
            )
            return jnp.zeros(shape)

    module = fusion.Arm(image_encoder=Wide(2048), text_encoder=Wide(768))
    shapes = jax.eval_shape(lambda: init(module))["params"]
    counted = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in shapes.items()
    }
    assert counted == sizes


@pytest.mark.parametrize("modality, other", [("image", "input_ids"), ("text", "image")])
def test_a_control_does_not_see_the_other_modality(modality, other):
    module = arm(modalities=modality)
    variables = init(module, "classify")
    changed = INPUTS | {other: INPUTS[other] * 0}
    outputs = [
        module.apply(variables, inputs, train=False, method="classify")
        for inputs in (INPUTS, changed)
    ]
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].shape == (3,)
    dropped = {"image": "language_adder", "text": "vision_adder"}[modality]
    assert dropped not in variables["params"]


def test_project_and_classify_share_all_but_their_last_layer():
    module = arm(normalize=True)
    one, two = (init(module, m)["params"] for m in ("project", "classify"))
    assert set(one) - set(two) == {"fc"} and set(two) - set(one) == {"classifier"}


def test_normalize_gives_both_modalities_one_size():
    module = arm(normalize=True)
    variables = init(module)
    u = module.apply(
        variables,
        INPUTS["input_ids"],
        INPUTS["attention_mask"],
        train=False,
        method="embed_text",
    )
    v = module.apply(
        variables, 100 * INPUTS["image"], train=False, method="embed_image"
    )
    for x in (u, v):
        np.testing.assert_allclose(jnp.mean(x, -1), 0, atol=1e-5)
        np.testing.assert_allclose(jnp.std(x, -1), 1, atol=1e-2)


def test_predictor_has_parameters_of_its_own():
    module = arm(predictor=4)
    variables = init(module)
    z, prediction = module.apply(variables, INPUTS, train=False, method="project")
    assert z.shape == prediction.shape and np.any(z != prediction)


def test_arms_read_their_own_views_and_may_share_a_text_encoder():
    text = TextTable()
    shared = fusion.Arms(
        {
            name: fusion.Arm(
                image_encoder=ImageMatrix(), text_encoder=text, embed=6, out=9
            )
            for name in ("cnn", "vit")
        }
    )
    own = fusion.Arms({"cnn": arm(), "vit": arm()})
    views = {"cnn": INPUTS, "vit": INPUTS}
    tables = {}
    for name, module in (("shared", shared), ("own", own)):
        params = module.init(jax.random.key(0), views, train=False, method="project")[
            "params"
        ]
        tables[name] = sum("text_encoder" in arm for arm in params.values())
    assert tables == {"shared": 1, "own": 2}
    variables = own.init(jax.random.key(0), views, train=False, method="classify")
    other = dict(views, vit=INPUTS | {"image": -INPUTS["image"]})
    one, two = (
        own.apply(variables, v, train=False, method="classify") for v in (views, other)
    )
    np.testing.assert_array_equal(one["cnn"], two["cnn"])
    assert np.any(one["vit"] != two["vit"])
    features = own.apply(variables, views, method="embeddings")
    assert features["cnn"].shape == (3, 8) and np.all(features["cnn"] >= 0)


def test_unknown_choices():
    for change in ({"fusion": "gate"}, {"modalities": "sound"}):
        with pytest.raises(ValueError, match="must be one of"):
            init(arm(**change))


def test_mean_pooling_leaves_padding_out():
    tokens = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    padded = np.where(mask[:, :, None] == 1, tokens, np.nan)
    pooled = jax.jit(lambda x, m: pool_tokens(x, m, pooling="mean"))(padded, mask)
    expected = [tokens[0, :3].astype(np.float64).mean(0), tokens[1, 0], np.zeros(5)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-6, atol=1e-6)
    first = pool_tokens(tokens, mask, pooling="cls")
    np.testing.assert_array_equal(first, tokens[:, 0])

    def loss(x):
        return pool_tokens(x, mask, pooling="mean").sum()

    gradient = jax.grad(loss)(jnp.asarray(padded))
    np.testing.assert_allclose(gradient[0, :, 0], [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_pooling_errors():
    one = jnp.ones((2, 1, 5))
    with pytest.raises(ValueError, match="needs an encoder"):
        pool_tokens(one, jnp.ones((2, 4)), pooling="mean")
    with pytest.raises(ValueError, match="text_pooling must be one of"):
        pool_tokens(one, jnp.ones((2, 1)), pooling="max")
