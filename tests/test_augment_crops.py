import functools

import jax
import numpy as np
import pytest

from memejax import augment

RNG = np.random.default_rng(14)
IMAGES = RNG.uniform(size=(6, 16, 20, 3)).astype(np.float32)
SIZES = {"global_size": 12, "local_size": 6}
PLAIN = {
    "jitter": (0.0, 0.0, 0.0, 0.0),
    "grayscale": 0.0,
    "flip": 0.0,
    "blur": (0.0, 0.0, 0.0),
    "solarize": (0.0, 0.0, 0.0),
}


@functools.cache
def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def jitted(**arguments):
    return jax.jit(functools.partial(augment.multi_crop, **(SIZES | arguments)))


def both(views):
    return [np.asarray(view) for view in views]


def test_shapes_range_and_determinism():
    views = both(jitted()(keys(6), IMAGES))
    assert [v.shape for v in views] == [(2, 6, 12, 12, 3), (8, 6, 6, 6, 3)]
    for view, again in zip(views, jitted()(keys(6), IMAGES), strict=True):
        assert view.dtype == np.float32 and view.min() >= 0 and view.max() <= 1
        np.testing.assert_array_equal(view, again)
    # Other keys, other crops.
    for view, other in zip(views, jitted()(keys(6, 1), IMAGES), strict=True):
        assert (view != other).any((2, 3, 4)).all()


def test_no_crops_share_their_randomness():
    images = np.broadcast_to(IMAGES[0], IMAGES.shape)
    for crops in both(jitted()(keys(6), images)):
        every = crops.reshape(-1, crops[0, 0].size)
        assert len(np.unique(every.round(4), axis=0)) == len(every)


def test_an_example_does_not_see_its_batch():
    order = np.array([3, 0, 5, 1, 2, 4])
    views = both(jitted()(keys(6), IMAGES))
    mixed = both(jitted()(keys(6)[order], IMAGES[order]))
    # Rounding may decide on which side of solarize's threshold a value falls.
    for view, other in zip(views, mixed, strict=True):
        assert np.isclose(other, view[:, order], atol=1e-5).mean() > 0.999


def test_without_local_crops_the_others_are_the_same():
    large, small = both(jitted(local_crops=0)(keys(6), IMAGES))
    assert small.shape == (0, 6, 6, 6, 3)
    same = np.isclose(large, jitted()(keys(6), IMAGES)[0], atol=1e-5)
    assert same.shape == (2, 6, 12, 12, 3) and same.mean() > 0.999


def ramps(count, side=32):
    """Red rises with the column, green with the row."""
    image = np.zeros((side, side, 3), np.float32)
    image[..., 0] = np.linspace(0, 1, side)[None, :]
    image[..., 1] = np.linspace(0, 1, side)[:, None]
    return np.broadcast_to(image, (count, *image.shape))


def test_areas_places_and_flips():
    count = 300
    arguments = PLAIN | {"flip": 0.5, "global_size": 24, "local_size": 16}
    views = both(jitted(**arguments)(keys(count), ramps(count)))
    flipped = []
    for crop, (low, high) in zip(views, [(0.4, 1.0), (0.05, 0.4)], strict=True):
        size = crop.shape[2]
        # Inner differences: an antialiased edge is bent.
        width = np.diff(crop[..., size // 2, 4:-4, 0], axis=-1).mean(-1) * 31 * size
        height = np.diff(crop[..., 4:-4, size // 2, 1], axis=-1).mean(-1) * 31 * size
        flipped.append(width < 0)
        width = abs(width)
        area, ratio = width * height / 32**2, width / height
        assert low - 0.02 < area.min() < area.max() < high + 0.02
        # A box too wide or too high is cut.
        assert abs(area.mean() - (low + high) / 2) < 0.08 * (high - low)
        assert 0.7 < ratio.min() < ratio.max() < 1.42
        assert np.ptp(ratio) > 0.4
    middle = views[1][:, :, 8, 8, :2].reshape(-1, 2)
    assert np.ptp(middle, axis=0).min() > 0.6
    assert abs(np.corrcoef(middle.T)[0, 1]) < 0.1
    flipped = np.concatenate(flipped).astype(float)
    np.testing.assert_allclose(flipped.mean(axis=1), 0.5, atol=0.1)
    assert np.abs(np.corrcoef(flipped) - np.eye(10)).max() < 0.25


def shares(changed):
    """The share of changed crops: of the first global, the second, the locals."""
    large, small = changed
    return [large[0].mean(), large[1].mean(), small.mean()]


def test_solarize_and_blur_differ_by_view():
    arguments = PLAIN | {"solarize": (0.0, 0.2, 1.0), "blur": (1.0, 0.1, 0.5)}
    view = jitted(**arguments, blur_sigma=(30.0, 30.0), local_crops=2)
    # Blur leaves a colour as it is.
    images = np.full((400, 16, 20, 3), 0.75, np.float32)
    views = both(view(keys(400), images))
    got = shares([np.isclose(v, 0.25, atol=1e-5).all((2, 3, 4)) for v in views])
    assert got == pytest.approx([0, 0.2, 1], abs=0.06)
    # A kernel wider than the crop leaves little of what varies.
    noise = RNG.uniform(size=(400, 16, 20, 3)).astype(np.float32)
    views = both(view(keys(400), noise))
    got = shares([np.std(v, axis=(2, 3)).max(-1) < 0.05 for v in views])
    assert got == pytest.approx([1, 0.1, 0.5], abs=0.06)


def test_jitter_and_grayscale():
    color = np.float32([0.6, 0.4, 0.3])
    luma = color @ np.float32([0.2989, 0.5870, 0.1140])
    images = np.broadcast_to(color, (400, 16, 20, 3))
    arguments = PLAIN | {"jitter": (0.3, 0.0, 0.0, 0.0), "jitter_probability": 0.7}
    view = jitted(**arguments | {"grayscale": 0.3}, local_crops=2)
    views = [v[:, :, 3, 3] for v in both(view(keys(400), images))]
    gray = [np.ptp(v, axis=-1) < 1e-4 for v in views]
    assert shares(gray) == pytest.approx([0.3] * 3, abs=0.07)
    factor = [
        np.where(g, v[..., 0] / luma, v[..., 0] / color[0])
        for g, v in zip(gray, views, strict=True)
    ]
    jittered = [abs(f - 1) > 1e-4 for f in factor]
    assert shares(jittered) == pytest.approx([0.7] * 3, abs=0.07)
    assert all(0.7 < f.min() < 0.75 and 1.25 < f.max() < 1.3 for f in factor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_size": 17}, "global_size 17 .* expected 1 to 16"),
        ({"local_size": 17}, "local_size 17"),
        ({"local_size": 0}, "local_size 0"),
        ({"local_crops": -1}, "local_crops -1"),
        ({"global_scale": (0.4, 1.1)}, "global_scale"),
        ({"local_scale": (0.0, 0.4)}, "local_scale"),
        ({"local_scale": (0.4, 0.05), "local_crops": 0}, "local_scale"),
        ({"jitter": (0.4, 0.4, 0.4)}, "jitter"),
        ({"jitter": (0.4, 0.4, 0.4, 0.9)}, "hue 0.9"),
        ({"blur": (1.0, 0.1)}, "expected 3 numbers"),
        ({"solarize": (0.0, 0.2)}, "expected 3 numbers"),
        ({"blur": (1.0, 0.1, 1.5)}, "probability 1.5"),
        ({"solarize": (0.0, -0.2, 0.0)}, "probability -0.2"),
        ({"flip": 2.0}, "horizontal 2.0"),
        ({"grayscale": 2.0}, "probability 2.0"),
        ({"blur_sigma": (3.0, 1.0)}, "sigma"),
    ],
)
def test_wrong_numbers(arguments, message):
    # Nothing has to be computed to find out.
    crops = functools.partial(augment.multi_crop, **(SIZES | arguments))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(crops, keys(6), IMAGES)


def test_wrong_arrays():
    with pytest.raises(ValueError, match=r"got \(5,\) keys"):
        augment.multi_crop(keys(5), IMAGES, **SIZES)
