import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from memejax import augment

RNG = np.random.default_rng(13)
IMAGES = RNG.uniform(size=(6, 8, 10, 3)).astype(np.float32)


@functools.cache
def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def jitted(name, **arguments):
    return jax.jit(functools.partial(getattr(augment, name), **arguments))


IN_ORDER = [
    {"crop_scale": (0.3, 1.0), "crop_ratio": (0.9, 1.1)},
    {"perspective": 0.4, "perspective_probability": 0.8},
    {"rotation": 30.0, "rotation_probability": 0.7},
    {"flip": 0.5, "vertical_flip": 0.5},
    {"brightness": 0.4, "saturation": 0.4},
    {"grayscale": 0.3},
    {"blur": 0.6, "blur_sigma": (0.5, 1.5)},
    {"solarize": 0.5},
    {"noise": 0.1},
]


def test_view_is_its_operations_in_order():
    count = 40
    images = np.tile(IMAGES[:5], (8, 1, 1, 1))
    everything = functools.reduce(dict.__or__, IN_ORDER)
    got = np.asarray(jitted("random_view", **everything)(keys(count), images))
    one_by_one = images
    for arguments in IN_ORDER:
        one_by_one = jitted("random_view", **arguments)(keys(count), one_by_one)
    # Not more: where solarize's threshold falls, rounding decides.
    close = np.isclose(got, one_by_one, atol=1e-4)
    assert close.mean() > 0.999
    assert got.min() >= 0 and got.max() <= 1
    assert len(np.unique(got.reshape(count, -1), axis=0)) == count


@pytest.mark.parametrize("arguments", IN_ORDER, ids=lambda a: next(iter(a)))
def test_each_operation_does_something(arguments):
    got = jitted("random_view", **arguments)(
        keys(40), np.tile(IMAGES[:5], (8, 1, 1, 1))
    )
    assert np.isfinite(got).all()
    assert (np.asarray(got) != np.tile(IMAGES[:5], (8, 1, 1, 1))).any()


def test_view_by_other_means():
    view = jitted("random_view", blur=1.0, blur_sigma=(1.2, 1.2), solarize=1.0)
    blurred = ndimage.gaussian_filter(
        IMAGES.astype(np.float64), (0, 1.2, 1.2, 0), mode="nearest", truncate=8
    )
    expected = np.where(blurred >= 0.5, 1 - blurred, blurred)
    np.testing.assert_allclose(view(keys(6), IMAGES), expected, atol=2e-4)


def test_view_costs_nothing_when_off():
    off = dict.fromkeys(["perspective", "rotation", "blur", "solarize"], 0.0)
    view = functools.partial(augment.random_view, **off)
    assert not jax.make_jaxpr(view)(keys(6), IMAGES).eqns
    off = dict(perspective=0.3, rotation=9.0)
    off |= dict(perspective_probability=0.0, rotation_probability=0.0)
    view = functools.partial(augment.random_view, **off)
    assert not jax.make_jaxpr(view)(keys(6), IMAGES).eqns


@pytest.mark.parametrize(
    "arguments",
    [
        {"perspective": -0.1},
        {"perspective": 0.1, "perspective_probability": 1.1},
        {"rotation": 200.0},
        {"rotation": 5.0, "rotation_probability": -0.5},
        {"blur": 1.5},
        {"blur": 0.5, "blur_sigma": (2.0, 1.0)},
        {"solarize": -0.5},
    ],
)
def test_wrong_numbers(arguments):
    with pytest.raises(ValueError, match="got"):
        jax.eval_shape(
            functools.partial(augment.random_view, **arguments), keys(6), IMAGES
        )


def test_cass_share_of_changed_images():
    count = 1200
    images = np.broadcast_to(IMAGES[0], (count, *IMAGES[0].shape))
    got = np.asarray(jitted("cass_view")(keys(count), images))
    assert got.min() >= 0 and got.max() <= 1 and got.dtype == np.float32
    # Neither of two rounds nor of two flips, each at 0.3.
    assert abs((got == images).all((1, 2, 3)).mean() - 0.7**4) < 0.04
    # Of the first round's images one half keeps its perspective.
    first = dict(jitter=0.0, degrees=0.0, probability=1.0, flip=0.0, vertical_flip=0.0)
    got = np.asarray(jitted("cass_view", **first)(keys(count), images))
    assert abs((got == images).all((1, 2, 3)).mean() - 0.5) < 0.04


def test_cass_flips():
    images = np.broadcast_to(IMAGES[0], (1000, *IMAGES[0].shape))
    view = jitted("cass_view", probability=0.0, flip=0.2, vertical_flip=0.6)
    got = np.asarray(view(keys(1000), images))
    for flipped, share in [
        (IMAGES[0], 0.32),
        (IMAGES[0, :, ::-1], 0.08),
        (IMAGES[0, ::-1], 0.48),
        (IMAGES[0, ::-1, ::-1], 0.12),
    ]:
        assert abs((got == flipped).all((1, 2, 3)).mean() - share) < 0.05


def test_cass_jitters_before_it_turns():
    images = np.full((40, 24, 24, 3), 0.5, np.float32)
    view = jitted(
        "cass_view", probability=1.0, distortion=0.0, flip=0.0, vertical_flip=0.0
    )
    got = np.asarray(view(keys(40), images))
    # Brightness, twice, of what is gray everywhere: one factor; then black corners,
    # which a change of contrast after them would have made gray.
    middle = got[:, 12, 12, 0]
    assert 0.5 * 0.8**2 - 1e-4 < middle.min() < middle.max() < 0.5 * 1.2**2 + 1e-4
    inner = got[:, 8:16, 8:16] / middle[:, None, None, None]
    np.testing.assert_allclose(inner, 1.0, rtol=1e-5)
    corner = np.minimum(got[:, 0, 0, 0], got[:, 0, -1, 0]) / middle
    # At 10 degrees the corner reads 2.2 pixels outside, below 2.6 degrees half a one.
    assert (corner == 0).mean() > 0.3
    assert np.ptp(middle) > 0.05


def test_cass_view_is_of_the_example():
    view, order = jitted("cass_view"), np.array([3, 0, 5, 1, 2, 4])
    got = np.asarray(view(keys(6), IMAGES))
    np.testing.assert_allclose(
        view(keys(6)[order], IMAGES[order]), got[order], atol=1e-6
    )
    assert (np.asarray(view(keys(6, 1), IMAGES)) != got).any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"probability": 1.5},
        {"jitter": -0.1},
        {"distortion": 2.0},
        {"degrees": -4.0},
        {"perspective_probability": 3.0},
        {"flip": -0.5},
        {"vertical_flip": 1.5},
    ],
)
def test_cass_wrong_numbers(arguments):
    with pytest.raises(ValueError, match="got"):
        jax.eval_shape(
            functools.partial(augment.cass_view, **arguments), keys(6), IMAGES
        )
    with pytest.raises(ValueError, match=r"got \(5,\) keys"):
        augment.cass_view(keys(5), IMAGES)
