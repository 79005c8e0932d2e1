import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import augment

RNG = np.random.default_rng(5)
IMAGES = RNG.uniform(size=(6, 8, 10, 3)).astype(np.float32)
GRAY = np.array([0.2989, 0.5870, 0.1140])


@jax.jit
def _keys(seed, draw):
    index = jnp.arange(2000)
    return augment.example_keys(
        jax.random.key(seed), index, jnp.full_like(index, draw), stream=0
    )


def make_keys(count, seed=0, draw=0):
    """The keys of the first examples; compiled once for all counts."""
    return _keys(seed, draw)[:count]


@functools.cache
def jitted(name, **arguments):
    return jax.jit(functools.partial(getattr(augment, name), **arguments))


def repeat(image, count):
    """One image many times, to see a distribution."""
    return np.broadcast_to(image, (count, *image.shape))


def test_example_keys_are_of_the_example():
    key = jax.random.key(3)
    index, draw = jnp.array([4, 7, 4, 4]), jnp.array([0, 0, 1, 0])

    @functools.partial(jax.jit, static_argnums=2)
    def data(index, draw, stream):
        keys = augment.example_keys(key, index, draw, stream)
        return jax.random.key_data(keys)

    keys = data(index, draw, 0)
    # The place in the batch does not count; index, draw and stream do.
    np.testing.assert_array_equal(keys[0], keys[3])
    np.testing.assert_array_equal(data(index[::-1], draw[::-1], 0), keys[::-1])
    every = np.concatenate([keys[:3], data(index, draw, 1)[:3]])
    assert len(np.unique(every, axis=0)) == 6
    by_hand = key
    for number in (1, 4, 1):
        by_hand = jax.random.fold_in(by_hand, number)
    np.testing.assert_array_equal(data(index, draw, 1)[2], jax.random.key_data(by_hand))


def test_to_float():
    got = augment.to_float(np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(got[0, 0, 0], [0.0, 0.2, 1.0], rtol=1e-7)
    assert got.dtype == jnp.float32
    with pytest.raises(ValueError, match="float32, expected uint8"):
        augment.to_float(IMAGES)


def test_normalize():
    mean, std = (0.1, 0.2, 0.5), (0.5, 0.25, 2.0)
    got = jitted("normalize", mean=mean, std=std)(IMAGES)
    expected = (IMAGES.astype(np.float64) - mean) / std
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="got 1 means"):
        augment.normalize(IMAGES, mean=(0.5,), std=(0.5,))


def test_the_whole_image_is_the_identity_crop():
    square = IMAGES[:, :, :8]
    crop = jitted("random_resized_crop", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(crop(make_keys(6), square), square)


def test_a_crop_of_a_ramp_is_a_ramp():
    # The value of a pixel is its place: 0 at the left, 1 at the right.
    ramp = np.broadcast_to(np.linspace(0, 1, 33)[None, :, None], (33, 33, 3))
    images = repeat(ramp.astype(np.float32), 200)
    crop = jitted(
        "random_resized_crop", scale=(0.25, 0.25), ratio=(1.0, 1.0), size=(6, 11)
    )
    got = crop(make_keys(200), images)
    assert got.shape == (200, 6, 11, 3)
    # A box half as wide over 11 columns: 16.5 / 11 pixels of 1 / 32 a step.
    np.testing.assert_allclose(np.diff(got, axis=2), 1.5 / 32, atol=1e-5)
    # Rows and channels agree: nothing leaks between axes.
    np.testing.assert_allclose(got, got[:, :1, :, :1] + np.zeros_like(got), atol=1e-6)
    # The middle of the box is uniform between a quarter and three quarters.
    middle = got[:, 0, 5, 0] * 32 + 0.5
    assert middle.min() > 8.25 - 1e-3 and middle.max() < 24.75 + 1e-3
    assert middle.min() < 9.5 and middle.max() > 23.5
    assert abs(middle.mean() - 16.5) < 1.2


def test_crops_follow_scale_and_ratio():
    # Red rises with the column, green with the row: their steps are the box's sides.
    images = np.zeros((64, 64, 3), np.float32)
    images[..., 0] = np.linspace(0, 1, 64)[None, :]
    images[..., 1] = np.linspace(0, 1, 64)[:, None]
    crop = jitted("random_resized_crop", scale=(0.1, 0.4), ratio=(0.5, 2.0))
    got = np.asarray(crop(make_keys(300), repeat(images, 300)))
    width = 63 * (got[:, 30, 40, 0] - got[:, 30, 20, 0]) / 20
    height = 63 * (got[:, 40, 30, 1] - got[:, 20, 30, 1]) / 20
    area, ratio = width * height, width / height
    for values, low, high in [(area, 0.1, 0.4), (np.log2(ratio), -1.0, 1.0)]:
        assert low - 0.01 < values.min() < low + 0.03
        assert high - 0.03 < values.max() < high + 0.01
        assert abs(values.mean() - (low + high) / 2) < 0.08 * (high - low)


def test_crop_agrees_with_jaxs_resize():
    crop = jitted(
        "random_resized_crop",
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        size=(5, 3),
        antialias=True,
    )
    square = IMAGES[:, :, :8]
    expected = jax.image.resize(square, (6, 5, 3, 3), "linear", antialias=True)
    np.testing.assert_allclose(crop(make_keys(6), square), expected, atol=1e-6)


def test_flips():
    images = repeat(IMAGES[0], 2000)
    flip = jitted("random_flip", horizontal=0.5, vertical=0.2)
    got = np.asarray(flip(make_keys(2000), images))
    mirrored = {
        (h, v): (got == IMAGES[0][:: -1 if v else 1, :: -1 if h else 1]).all((1, 2, 3))
        for h in (0, 1)
        for v in (0, 1)
    }
    shares = {how: found.mean() for how, found in mirrored.items()}
    assert sum(shares.values()) == 1
    expected = {(0, 0): 0.4, (1, 0): 0.4, (0, 1): 0.1, (1, 1): 0.1}
    assert shares == pytest.approx(expected, abs=0.04)
    always = jitted("random_flip", horizontal=1.0)(make_keys(6), IMAGES)
    np.testing.assert_array_equal(always, IMAGES[:, :, ::-1])


def test_shifts():
    images = repeat(IMAGES[0], 2000)
    got = np.asarray(jitted("random_shift", pixels=2)(make_keys(2000), images))
    padded = np.pad(IMAGES[0], ((2, 2), (2, 2), (0, 0)))
    h, w, _ = IMAGES[0].shape
    shares = [
        (got == padded[y : y + h, x : x + w]).all((1, 2, 3)).mean()
        for y in range(5)
        for x in range(5)
    ]
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(shares, 1 / 25, atol=0.018)
    grey = jitted("random_view", shift=1, flip=0.5)(make_keys(6), IMAGES[..., :1])
    assert grey.shape == (*IMAGES.shape[:3], 1)
    with pytest.raises(ValueError, match="pixels 8 for images"):
        augment.random_shift(make_keys(6), IMAGES, pixels=8)
    with pytest.raises(ValueError, match=r"expected \[b\] keys and float images"):
        augment.random_view(make_keys(6), IMAGES[..., :1], grayscale=0.5)


def factors(name, strength, function):
    """The factor each of 500 equal images got, and what `function` makes of it."""
    images = repeat(IMAGES[0] * 0.4 + 0.3, 500)
    got = np.asarray(jitted("color_jitter", **{name: strength})(make_keys(500), images))
    at, other = images.astype(np.float64), function(images.astype(np.float64))
    # got = f at + (1 - f) other, solved at the pixel where the two are farthest.
    where = np.unravel_index(np.abs(at - other)[0].argmax(), at.shape[1:])
    index = (slice(None), *where)
    factor = (got[index] - other[index]) / (at[index] - other[index])
    by = factor[:, None, None, None]
    np.testing.assert_allclose(got, by * at + (1 - by) * other, atol=1e-5)
    return factor


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("brightness", np.zeros_like),
        ("contrast", lambda x: np.zeros_like(x) + (x @ GRAY).mean((1, 2))[0]),
        ("saturation", lambda x: (x @ GRAY)[..., None] + np.zeros_like(x)),
    ],
)
def test_jitter_is_one_factor_an_image(name, function):
    factor = factors(name, 0.4, function)
    assert 0.6 - 1e-4 < factor.min() < 0.62 and 1.38 < factor.max() < 1.4 + 1e-4
    assert abs(factor.mean() - 1) < 0.05


def test_hue_turns_the_colour_circle():
    images = np.zeros((300, 1, 1, 3), np.float32) + np.float32([0.8, 0.2, 0.2])
    got = jitted("color_jitter", hue=0.1)(make_keys(300), images)[:, 0, 0]
    hues, saturations, values = zip(
        *[colorsys.rgb_to_hsv(*c) for c in got], strict=True
    )
    turn = (np.array(hues) + 0.5) % 1 - 0.5
    assert -0.1001 < turn.min() < -0.095 and 0.095 < turn.max() < 0.1001
    np.testing.assert_allclose(saturations, 0.75, rtol=1e-4)
    np.testing.assert_allclose(values, 0.8, rtol=1e-5)


def test_jitter_probability():
    images = repeat(IMAGES[0], 1000)
    jitter = jitted("color_jitter", brightness=0.5, hue=0.2, probability=0.3)
    got = np.asarray(jitter(make_keys(1000), images))
    assert 0.25 < (got != images).any((1, 2, 3)).mean() < 0.35


def test_grayscale():
    got = np.asarray(
        jitted("random_grayscale", probability=0.25)(
            make_keys(1000), repeat(IMAGES[0], 1000)
        )
    )
    changed = (got != IMAGES[0]).any((1, 2, 3))
    assert 0.2 < changed.mean() < 0.3
    expected = np.repeat((IMAGES[0].astype(np.float64) @ GRAY)[..., None], 3, axis=-1)
    np.testing.assert_allclose(
        got[changed], np.broadcast_to(expected, got[changed].shape), atol=1e-6
    )


def test_noise():
    images = np.full((50, 16, 16, 3), 0.5, np.float32)
    got = np.asarray(jitted("gaussian_noise", sigma=0.05)(make_keys(50), images))
    assert abs(got.mean() - 0.5) < 1e-3 and abs(got.std() - 0.05) < 1e-3
    assert len(np.unique(got[:, 0, 0, 0])) == 50


EVERYTHING = {
    "crop_scale": (0.3, 1.0),
    "flip": 0.5,
    "vertical_flip": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "jitter_probability": 0.9,
    "grayscale": 0.2,
    "noise": 0.1,
}


def test_view_is_of_the_key_and_the_image_alone():
    view, keys = jitted("random_view", **EVERYTHING), make_keys(6)
    got = np.asarray(view(keys, IMAGES))
    assert got.shape == IMAGES.shape and got.dtype == np.float32
    assert got.min() >= 0 and got.max() <= 1
    np.testing.assert_array_equal(view(keys, IMAGES), got)
    order = np.array([3, 0, 5, 1, 2, 4])
    np.testing.assert_allclose(view(keys[order], IMAGES[order]), got[order], atol=1e-6)
    # Equal images of other examples, other draws and other seeds look different.
    same = repeat(IMAGES[0], 6)
    views = [view(make_keys(6, *of), same) for of in [(0, 0), (0, 1), (1, 0)]]
    assert len(np.unique(np.concatenate(views).reshape(18, -1), axis=0)) == 18


def test_view_with_nothing_on_is_the_image():
    keys = make_keys(6)
    np.testing.assert_array_equal(augment.random_view(keys, IMAGES), IMAGES)
    off = dict.fromkeys(EVERYTHING, 0.0) | {"crop_scale": (1.0, 1.0)}
    traced = jax.make_jaxpr(functools.partial(augment.random_view, **off))
    assert not traced(keys, IMAGES).eqns


@pytest.mark.parametrize("name", ["flip", "brightness", "hue", "grayscale", "noise"])
def test_view_hands_on_each_strength(name):
    got = jitted("random_view", **{name: 0.5})(make_keys(6), IMAGES)
    assert 0 < np.abs(got - IMAGES).max() <= 1


def test_token_dropout_rate_and_what_it_spares():
    ids = np.broadcast_to(np.arange(20), (500, 20)).astype(np.int32)
    mask = np.broadcast_to(np.arange(20) < 15, (500, 20)).astype(np.int32)
    keys = make_keys(500)
    got_ids, got = jitted("token_dropout", rate=0.3)(keys, ids, mask)
    np.testing.assert_array_equal(got_ids, ids)
    assert got.dtype == mask.dtype
    assert np.all(got[:, 0] == 1) and not np.any(got[:, 15:])
    shares = np.asarray(got[:, 1:15]).mean(axis=0)
    np.testing.assert_allclose(shares, 0.7, atol=0.09)
    assert abs(shares.mean() - 0.7) < 0.02


def test_token_dropout_keeps_one_of_those_there_are():
    # Captions with 0, 1, 2 and 3 tokens after [CLS], and one with nothing at all.
    counts = np.repeat([0, 1, 2, 3, 4], 200)
    mask = (np.arange(5)[None] < counts[:, None]).astype(np.int32)
    _, got = jitted("token_dropout", rate=1.0)(make_keys(1000), mask, mask)
    expected = np.minimum(counts, 2)
    np.testing.assert_array_equal(got.sum(axis=1), expected)
    # Of three, each is the one that stays as often.
    np.testing.assert_allclose(np.asarray(got[800:, 1:4]).mean(0), 1 / 3, atol=0.12)
    _, same = augment.token_dropout(make_keys(1000), mask, mask, rate=0.0)
    np.testing.assert_array_equal(same, mask)


def test_tokens_and_flips_of_one_key_are_independent():
    keys, count = make_keys(2000), 2000
    images = repeat(np.float32([[[0, 0, 0], [1, 1, 1]]]), count)
    flipped = np.asarray(jitted("random_view", flip=0.5)(keys, images))[:, 0, 0, 0]
    mask = np.ones((count, 4), np.int32)
    for other in (keys, jax.vmap(jax.random.fold_in, (0, None))(keys, 1)):
        _, kept = jitted("token_dropout", rate=0.5)(other, mask, mask)
        correlations = np.corrcoef(np.asarray(kept[:, 1:]).T, flipped)[-1, :-1]
        assert np.abs(correlations).max() < 0.1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("random_flip", {"horizontal": 1.5}, "horizontal 1.5"),
        ("random_grayscale", {"probability": -0.1}, "probability -0.1"),
        ("color_jitter", {"hue": 0.6}, "hue 0.6"),
        ("color_jitter", {"contrast": -1.0}, "contrast -1.0"),
        ("gaussian_noise", {"sigma": -1.0}, "sigma -1.0"),
        ("random_resized_crop", {"scale": (0.5, 1.5)}, r"scale \(0.5, 1.5\)"),
        ("random_resized_crop", {"scale": (1, 1), "ratio": (2, 1)}, "ratio"),
    ],
)
def test_wrong_strengths(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(augment, name)(make_keys(6), IMAGES, **arguments)


def test_wrong_arrays():
    with pytest.raises(ValueError, match="typed keys"):
        augment.random_view(jnp.zeros((6, 2), jnp.uint32), IMAGES)
    with pytest.raises(ValueError, match=r"got \(5,\) keys"):
        augment.random_view(make_keys(5), IMAGES)
    with pytest.raises(ValueError, match="uint8 images"):
        augment.random_view(make_keys(6), jnp.zeros((6, 4, 4, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"keys \(5,\)"):
        augment.token_dropout(
            make_keys(5), jnp.ones((6, 3)), jnp.ones((6, 3)), rate=0.1
        )
