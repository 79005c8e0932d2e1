"""How an arm sees a batch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import augment
from memejax.steps import views

B = 8
KEY = jax.random.key(0)
# Numbers of which every operation changes something.
VIEW = functools.partial(
    augment.random_view, crop_scale=(0.5, 1.0), flip=0.5, brightness=0.4, noise=0.1
)


def batch(seed=0, side=2):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 255, (B, side, side, 3), np.uint8),
        "input_ids": rng.integers(0, 9, (B, 5)).astype(np.int32),
        "attention_mask": np.ones((B, 5), np.int32),
        "index": np.arange(B, dtype=np.int32),
        "draw": np.zeros(B, np.int32),
        "weight": np.ones(B, np.float32),
    }


def pictures(data):
    return {k: v for k, v in data.items() if k not in ("input_ids", "attention_mask")}


def two_sizes(keys, images):
    """Two whole crops that differ from example to example, and a pixel of each."""
    brighter = jax.vmap(lambda key, x: x * jax.random.uniform(key))(keys, images)
    return jnp.stack([images, brighter]), images[None, :, :1, :1]


def test_views_follow_the_example_not_its_place():
    """An example's view depends on (key, index, draw), not on the batch around it."""
    recipe = views.Recipe(
        mean=(0.5,) * 3, std=(0.25,) * 3, augment=VIEW, token_dropout=0.5
    )
    make = views.make_views({"a": recipe, "b": recipe})
    data = batch()
    one = make(KEY, data, train=True)
    order = np.random.default_rng(0).permutation(B)
    moved = make(KEY, {k: v[order] for k, v in data.items()}, train=True)
    for name in ("image", "attention_mask"):
        np.testing.assert_allclose(
            one["a"][name][order], moved["a"][name], rtol=1e-5, atol=1e-6
        )
    assert np.any(np.asarray(one["a"]["attention_mask"]) == 0)
    # Arms of one stream see the same view, another draw gives another one.
    np.testing.assert_array_equal(one["a"]["image"], one["b"]["image"])
    again = make(KEY, dict(data, draw=data["draw"] + 1), train=True)
    assert np.any(one["a"]["image"] != again["a"]["image"])
    still = make(None, data, train=False)
    np.testing.assert_allclose(
        still["a"]["image"], (data["image"] / 255.0 - 0.5) / 0.25, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(still["a"]["attention_mask"], data["attention_mask"])


def test_independent_streams_see_different_views():
    recipe = functools.partial(
        views.Recipe,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        augment=functools.partial(augment.random_view, brightness=0.5),
    )
    made = views.make_views({"a": recipe(stream=0), "b": recipe(stream=1)})(
        KEY, batch(), train=True
    )
    assert np.any(made["a"]["image"] != made["b"]["image"])


def test_captions_are_left_out_a_batch_at_a_time():
    recipe = views.Recipe(mean=(0.0,) * 3, std=(1.0,) * 3)
    make = views.make_views({"a": recipe, "b": recipe}, caption_dropout=0.3)
    data, left_out = batch(), 0
    for number in range(200):
        made = make(KEY, data, train=True, step_key=jax.random.key(number))
        a, b = (np.asarray(made[arm]["attention_mask"]) for arm in "ab")
        np.testing.assert_array_equal(a, b)
        assert np.all(a[:, 0] == 1) and len(np.unique(a[:, 1:])) == 1
        left_out += a[0, 1] == 0
    assert abs(left_out / 200 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 200)
    kept = make(None, data, train=False)
    np.testing.assert_array_equal(kept["a"]["attention_mask"], data["attention_mask"])


def test_a_batch_without_captions():
    recipe = views.Recipe(
        mean=(0.0,) * 3, std=(1.0,) * 3, augment=two_sizes, token_dropout=0.5
    )
    make = views.make_views({"a": recipe}, caption_dropout=0.5)
    data = pictures(batch())
    assert make(KEY, data, train=True)["a"].keys() == {"crops"}
    assert make(None, data, train=False)["a"].keys() == {"image"}


def test_crops_of_several_sizes_are_each_normalised():
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    recipe = views.Recipe(mean=mean, std=std, augment=two_sizes)
    make = jax.jit(views.make_views({"a": recipe}), static_argnames="train")
    data = batch()
    view = make(KEY, data, train=True)["a"]
    # Captions go with the crops, as they came.
    assert view.keys() == {"crops", "input_ids", "attention_mask"}
    whole, pixel = view["crops"]
    assert whole.shape == (2, B, 2, 2, 3) and pixel.shape == (1, B, 1, 1, 3)
    x = data["image"].astype(np.float64) / 255
    plain = (x - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(whole[0], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pixel[0], plain[:, :1, :1], rtol=1e-5, atol=1e-6)
    # The second is darker by one factor an example.
    darker = np.asarray(whole[1], np.float64) * np.array(std) + np.array(mean)
    factors = darker[:, 0, 0, 0] / x[:, 0, 0, 0]
    np.testing.assert_allclose(darker, factors[:, None, None, None] * x, atol=1e-5)
    assert len(np.unique(factors.round(4))) == B and factors.max() < 1

    still = make(None, data, train=False)["a"]
    assert still.keys() == {"image", "input_ids", "attention_mask"}
    np.testing.assert_allclose(still["image"], plain, rtol=1e-5, atol=1e-6)


def test_crops_follow_the_example():
    recipe = views.Recipe(mean=(0.0,) * 3, std=(1.0,) * 3, augment=two_sizes)
    make = views.make_views({"a": recipe})
    data, order = pictures(batch()), np.arange(B)[::-1]
    one = make(KEY, data, train=True)["a"]["crops"]
    moved = {k: v[order] for k, v in data.items()}
    for x, y in zip(one, make(KEY, moved, train=True)["a"]["crops"], strict=True):
        np.testing.assert_allclose(x[:, order], y, rtol=1e-6)


@pytest.mark.parametrize("local_crops", [0, 3])
def test_dinos_crops_have_their_shapes_and_dtype(local_crops):
    crops = functools.partial(
        augment.multi_crop, global_size=8, local_size=4, local_crops=local_crops
    )
    recipe = views.Recipe(mean=(0.0,) * 3, std=(1.0,) * 3, augment=crops)
    make = views.make_views({"a": recipe}, dtype=jnp.bfloat16)
    made = jax.eval_shape(
        lambda data: make(KEY, data, train=True), pictures(batch(side=8))
    )
    whole, local = made["a"]["crops"]
    assert whole.shape == (2, B, 8, 8, 3) and local.shape == (local_crops, B, 4, 4, 3)
    assert whole.dtype == local.dtype == jnp.bfloat16
