import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from memejax import augment

RNG = np.random.default_rng(12)
IMAGES = RNG.uniform(size=(6, 8, 10, 3)).astype(np.float32)


@functools.cache
def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def jitted(name, **arguments):
    return jax.jit(functools.partial(getattr(augment, name), **arguments))


def scipy_blur(images, sigma):
    """Blurred in float64, the edge repeated; the kernel is long enough to be whole."""
    return ndimage.gaussian_filter(
        images.astype(np.float64), (0, sigma, sigma, 0), mode="nearest", truncate=8
    )


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_agrees_with_scipy(sigma):
    got = jitted("gaussian_blur", sigma=(sigma, sigma))(keys(6), IMAGES)
    # Four sigmas hold all but 6e-5 of the kernel.
    np.testing.assert_allclose(got, scipy_blur(IMAGES, sigma), atol=1e-4)


def test_blur_of_an_image_smaller_than_the_kernel():
    got = np.asarray(jitted("gaussian_blur", sigma=(20, 20))(keys(6), IMAGES))
    assert np.ptp(got, axis=(1, 2)).max() < np.ptp(IMAGES, axis=(1, 2)).min() / 3
    flat = np.full((6, 3, 5, 3), 0.7, np.float32)
    got = jitted("gaussian_blur", sigma=(20, 20))(keys(6), flat)
    np.testing.assert_allclose(got, flat, rtol=1e-5)


def test_each_image_has_a_sigma_of_its_own():
    count, side = 300, 25
    images = np.zeros((count, side, side, 3), np.float32)
    images[:, 12, 12] = 1
    got = np.asarray(jitted("gaussian_blur", sigma=(0.8, 2.0))(keys(count), images))
    np.testing.assert_allclose(got.sum((1, 2)), 1, atol=1e-3)
    # The variance of an impulse's image along either axis is sigma squared.
    away = (np.arange(side) - 12.0) ** 2
    rows = np.sqrt((got[..., 0].sum(2) * away).sum(1))
    columns = np.sqrt((got[..., 1].sum(1) * away).sum(1))
    np.testing.assert_allclose(rows, columns, rtol=1e-3)
    assert 0.79 < rows.min() < 0.83 and 1.96 < rows.max() < 2.01
    assert abs(rows.mean() - 1.4) < 0.06


def test_solarize_by_hand():
    row = np.float32([0.0, 0.25, 0.5, 0.625, 1.0])
    images = np.broadcast_to(row[None, None, :, None], (6, 1, 5, 3))
    got = jitted("solarize", probability=1.0)(keys(6), images)
    np.testing.assert_array_equal(got[2, 0, :, 1], [0, 0.25, 0.5, 0.375, 0])
    got = jitted("solarize", threshold=0.625, probability=1.0)(keys(6), images)
    np.testing.assert_array_equal(got[0, 0, :, 0], [0, 0.25, 0.5, 0.375, 0])
    got = jitted("solarize", threshold=0.0, probability=1.0)(keys(6), images)
    np.testing.assert_array_equal(got[0, 0, :, 0], 1 - row)


@pytest.mark.parametrize(
    ("name", "arguments"), [("gaussian_blur", {"sigma": (1.0, 2.0)}), ("solarize", {})]
)
def test_share_of_changed_images(name, arguments):
    images = np.broadcast_to(IMAGES[0], (1000, *IMAGES[0].shape))
    some = jitted(name, probability=0.3, **arguments)(keys(1000), images)
    changed = (np.asarray(some) != images).any((1, 2, 3))
    assert 0.25 < changed.mean() < 0.35
    every = jitted(name, probability=1.0, **arguments)(keys(1000), images)
    every = np.asarray(every)
    assert (every != images).any((1, 2, 3)).all()
    assert every.min() >= 0 and every.max() <= 1
    np.testing.assert_allclose(np.asarray(some)[changed], every[changed], atol=1e-6)
    assert augment.__dict__[name](keys(6), IMAGES, probability=0.0) is IMAGES


@pytest.mark.parametrize("name", ["gaussian_blur", "solarize"])
def test_an_example_does_not_see_its_batch(name):
    function = jitted(name, probability=0.5)
    got, order = np.asarray(function(keys(6), IMAGES)), np.array([3, 0, 5, 1, 2, 4])
    np.testing.assert_allclose(
        function(keys(6)[order], IMAGES[order]), got[order], atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gaussian_blur", {"sigma": (0.0, 1.0)}, "sigma"),
        ("gaussian_blur", {"sigma": (2.0, 1.0)}, "sigma"),
        ("gaussian_blur", {"probability": 1.5}, "probability 1.5"),
        ("solarize", {"threshold": 1.5}, "threshold 1.5"),
        ("solarize", {"probability": -1.0}, "probability -1.0"),
    ],
)
def test_wrong_numbers(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(augment, name)(keys(6), IMAGES, **arguments)


def test_wrong_arrays():
    for name in ("gaussian_blur", "solarize"):
        with pytest.raises(ValueError, match=r"got \(5,\) keys"):
            getattr(augment, name)(keys(5), IMAGES)
