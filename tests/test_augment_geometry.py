import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from memejax import augment

RNG = np.random.default_rng(11)
IMAGES = RNG.uniform(size=(6, 8, 10, 3)).astype(np.float32)
SIDE = 33


@functools.cache
def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def jitted(name, **arguments):
    return jax.jit(functools.partial(getattr(augment, name), **arguments))


warp = jax.jit(augment.warp)


def places(count):
    """Images that hold their own places: x, y and 1, in units of the side."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    image = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
    return np.broadcast_to(image, (count, *image.shape))


def read_at(view):
    """Where each pixel of a view of `places` was read, for those inside it."""
    view = np.asarray(view, np.float64)
    inside = view[..., 2] > 1 - 1e-5
    y, x = np.nonzero(inside)
    return x, y, view[inside][:, 0] * (SIDE - 1), view[inside][:, 1] * (SIDE - 1)


def corners_of(view):
    """Where the image's corners are in the view, by a fit of its homography."""
    x, y, u, v = read_at(view)
    one, zero = np.ones_like(u), np.zeros_like(u)
    rows = np.concatenate(
        [
            np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1),
            np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1),
        ]
    )
    fit = np.linalg.lstsq(rows, np.concatenate([u, v]), rcond=None)[0]
    inverse = np.linalg.inv(np.append(fit, 1.0).reshape(3, 3))
    last = SIDE - 1
    at = np.array([[0, 0, 1], [last, 0, 1], [last, last, 1], [0, last, 1]]) @ inverse.T
    return at[:, :2] / at[:, 2:]


def test_warp_agrees_with_scipy():
    matrices = np.eye(3) + RNG.uniform(-0.3, 0.3, size=(6, 3, 3))
    matrices[:, 2, :2] *= 0.1
    matrices[:, :2, 2] *= 8
    matrices[:, 2, 2] = 1
    got = warp(IMAGES, matrices.astype(np.float32))
    y, x = np.mgrid[:8, :10]
    u, v, w = np.einsum("bij,jyx->ibyx", matrices, np.stack([x, y, np.ones_like(x)]))
    assert (w > 0.05).all()
    outside = 0
    for i, image in enumerate(IMAGES.astype(np.float64)):
        for c in range(3):
            expected = ndimage.map_coordinates(
                image[..., c],
                [v[i] / w[i], u[i] / w[i]],
                order=1,
                mode="grid-constant",
            )
            np.testing.assert_allclose(got[i, ..., c], expected, atol=3e-5)
            outside += (expected == 0).sum()
    assert outside > 50


def test_warp_by_whole_pixels():
    def matrices(rows):
        return jnp.tile(jnp.array(rows, jnp.float32)[None], (6, 1, 1))

    same = warp(IMAGES, matrices(np.eye(3)))
    np.testing.assert_array_equal(same, IMAGES)
    # Read two to the right and one up: the image moves left and down.
    moved = warp(IMAGES, matrices([[1, 0, 2], [0, 1, -1], [0, 0, 1]]))
    np.testing.assert_array_equal(moved[:, 1:, :8], IMAGES[:, :-1, 2:])
    assert not np.any(moved[:, 0]) and not np.any(moved[:, :, 8:])
    mirrored = warp(IMAGES, matrices([[-1, 0, 9], [0, 1, 0], [0, 0, 1]]))
    np.testing.assert_array_equal(mirrored, IMAGES[:, :, ::-1])
    # What lies behind the horizon is not seen: here the columns right of the fifth.
    front = warp(np.ones_like(IMAGES), matrices([[0, 0, 0], [0, 0, 0], [-1, 0, 5]]))
    np.testing.assert_array_equal(front[0, 0, :, 0], [1] * 5 + [0] * 5)


def test_border_fades_over_one_pixel():
    quarter = jnp.array([[1, 0, -0.25], [0, 1, 0], [0, 0, 1]])[None]
    got = warp(np.ones((1, 2, 3, 3), np.float32), quarter)
    np.testing.assert_allclose(got[0, 0, :, 0], [0.75, 1, 1], rtol=1e-6)


def test_affine_matrix_turns_enlarges_and_moves():
    square = IMAGES[:, :, :8]
    affine = functools.partial(augment.affine_matrix, height=8, width=8)
    one, still = jnp.ones(6), jnp.zeros((6, 2))
    turned = warp(square, affine(jnp.full(6, np.pi / 2), one, shift=still))
    np.testing.assert_allclose(turned, np.rot90(square, axes=(1, 2)), atol=1e-5)
    moved = warp(square, affine(jnp.zeros(6), one, shift=still + jnp.array([[3, 1]])))
    np.testing.assert_allclose(moved[:, 1:, 3:], square[:, :-1, :-3], atol=1e-6)
    # Twice as large about the middle, 3.5: pixel k reads 3.5 + (k - 3.5) / 2.
    large = warp(square, affine(jnp.zeros(6), 2 * one, shift=still))
    at = 1.75 + np.arange(8) / 2
    expected = ndimage.map_coordinates(
        square[0, ..., 1], np.meshgrid(at, at, indexing="ij"), order=1
    )
    np.testing.assert_allclose(large[0, ..., 1], expected, atol=1e-6)


def test_affine_matrix_turns_before_it_moves():
    matrix = augment.affine_matrix(
        jnp.array([np.pi / 2]),
        jnp.array([2.0]),
        shift=jnp.array([[5.0, 0.0]]),
        height=3,
        width=5,
    )
    # The middle (2, 1) goes to (7, 1); one to its right goes two up from there.
    np.testing.assert_allclose(matrix[0] @ jnp.array([7, 1, 1]), [2, 1, 1], atol=1e-5)
    np.testing.assert_allclose(matrix[0] @ jnp.array([7, -1, 1]), [3, 1, 1], atol=1e-5)


def test_perspective_matrix_by_hand():
    # (u, v) -> (u, v) / (1 + v) takes the unit square to these corners; its inverse
    # is (x, y) / (1 - y).
    corners = jnp.array([[[0, 0], [1, 0], [0.5, 0.5], [0, 0.5]]])
    got = augment.perspective_matrix(corners, height=2, width=2)
    np.testing.assert_allclose(
        got[0], [[1, 0, 0], [0, 1, 0], [0, -1, 1]], rtol=1e-6, atol=1e-6
    )
    # A quarter in from each side of 3 by 5 pixels: twice as small about the middle.
    corners = jnp.array([[[1, 0.5], [3, 0.5], [3, 1.5], [1, 1.5]]])
    got = augment.perspective_matrix(corners, height=3, width=5)
    np.testing.assert_allclose(got[0], [[2, 0, -2], [0, 2, -1], [0, 0, 1]], atol=1e-6)


def test_perspective_matrix_agrees_with_a_solver():
    height, width = 8, 10
    at = np.array([[0, 0], [9, 0], [9, 7], [0, 7]], float)
    corners = at + RNG.uniform(-1.5, 1.5, size=(20, 4, 2))
    got = jax.jit(functools.partial(augment.perspective_matrix, height=8, width=10))(
        corners.astype(np.float32)
    )
    assert got.shape == (20, 3, 3) and (height, width) == (8, 10)
    for matrix, corner in zip(np.asarray(got, np.float64), corners, strict=True):
        rows, values = [], []
        for (x, y), (u, v) in zip(corner, at, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y]]
            rows += [[0, 0, 0, x, y, 1, -v * x, -v * y]]
            values += [u, v]
        expected = np.append(np.linalg.solve(rows, values), 1).reshape(3, 3)
        np.testing.assert_allclose(matrix / matrix[2, 2], expected, atol=2e-4)
        assert matrix[2] @ [*corner.mean(axis=0), 1] > 0


def test_perspective_moves_each_corner_inwards():
    count, half = 150, (SIDE - 1) / 2
    views = jitted("random_perspective", distortion=0.4)(keys(count), places(count))
    corners = np.stack([corners_of(view) for view in np.asarray(views)])
    last = SIDE - 1
    inward = np.abs(corners - [[0, 0], [last, 0], [last, last], [0, last]]) / half
    assert corners.min() > -0.01 and corners.max() < last + 0.01
    assert inward.max() < 0.4 + 1e-3
    # Eight independent numbers, each uniform in [0, 0.4].
    inward = inward.reshape(count, 8)
    np.testing.assert_allclose(inward.mean(axis=0), 0.2, atol=0.035)
    np.testing.assert_allclose(inward.std(axis=0), 0.4 / 12**0.5, atol=0.02)
    assert np.abs(np.corrcoef(inward.T) - np.eye(8)).max() < 0.35


def test_affine_draws_angle_scale_and_shift():
    count = 200
    affine = jitted(
        "random_affine", degrees=30, translate=(0.1, 0.25), scale=(0.5, 0.8)
    )
    drawn = []
    for view in np.asarray(affine(keys(count), places(count))):
        x, y, u, v = read_at(view)
        rows = np.stack([x, y, np.ones_like(u)], axis=1)
        fit = np.linalg.lstsq(rows, np.stack([u, v], axis=1), rcond=None)[0].T
        scale = 1 / np.sqrt(np.linalg.det(fit[:, :2]))
        angle = np.degrees(np.arctan2(fit[1, 0], fit[0, 0]))
        cos, sin = fit[0, 0], fit[1, 0]
        np.testing.assert_allclose(fit[:, :2], [[cos, -sin], [sin, cos]], atol=1e-4)
        middle = np.full(2, (SIDE - 1) / 2)
        shift = np.linalg.solve(fit[:, :2], middle - fit[:, 2]) - middle
        drawn.append([angle, scale, *shift])
    drawn = np.array(drawn)
    low = np.array([-30, 0.5, -0.1 * SIDE, -0.25 * SIDE])
    high = np.array([30, 0.8, 0.1 * SIDE, 0.25 * SIDE])
    share = (drawn - low) / (high - low)
    assert share.min() > -1e-3 and share.max() < 1 + 1e-3
    np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=0.08)
    np.testing.assert_allclose(share.std(axis=0), 12**-0.5, atol=0.03)
    assert np.abs(np.corrcoef(share.T) - np.eye(4)).max() < 0.3


WARPS = [("random_perspective", {"distortion": 0.3}), ("random_affine", {"degrees": 9})]


@pytest.mark.parametrize(("name", "arguments"), WARPS)
def test_share_of_changed_images(name, arguments):
    images = np.broadcast_to(IMAGES[0], (1000, *IMAGES[0].shape))
    some = jitted(name, probability=0.3, **arguments)(keys(1000), images)
    changed = (np.asarray(some) != images).any((1, 2, 3))
    assert 0.25 < changed.mean() < 0.35
    # Those that are changed are as they are when all are.
    every = np.asarray(jitted(name, **arguments)(keys(1000), images))
    assert (every != images).any((1, 2, 3)).all()
    np.testing.assert_allclose(np.asarray(some)[changed], every[changed], atol=1e-6)
    never = augment.__dict__[name](keys(6), IMAGES, probability=0.0, **arguments)
    assert never is IMAGES


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*WARPS, ("random_perspective", {"distortion": 1.0}), ("random_affine", {})],
)
def test_warps_are_of_the_example_and_stay_in_range(name, arguments):
    if name == "random_affine":
        arguments |= {"degrees": 180, "translate": (1, 1), "scale": (0.01, 9)}
    function = jitted(name, **{k: v for k, v in arguments.items()})
    images = np.tile(IMAGES, (20, 1, 1, 1))
    got = np.asarray(function(keys(120), images))
    assert got.shape == images.shape and got.dtype == np.float32
    assert got.min() >= 0 and got.max() <= 1 and got.max() > 0.5
    order = RNG.permutation(120)
    np.testing.assert_allclose(
        function(keys(120)[order], images[order]), got[order], atol=1e-6
    )
    assert len(np.unique(got[::6].reshape(20, -1), axis=0)) > 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("random_perspective", {"distortion": 1.1}, "distortion 1.1"),
        ("random_perspective", {"probability": -0.1}, "probability -0.1"),
        ("random_affine", {"degrees": -1}, "degrees -1"),
        ("random_affine", {"degrees": 181}, "degrees 181"),
        ("random_affine", {"translate": (0.5,)}, "translate"),
        ("random_affine", {"translate": (0.5, 1.5)}, "translate"),
        ("random_affine", {"scale": (0, 1)}, "scale"),
        ("random_affine", {"scale": (2, 1)}, "scale"),
        ("random_affine", {"degrees": 1, "probability": 2}, "probability 2"),
    ],
)
def test_wrong_numbers(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(augment, name)(keys(6), IMAGES, **arguments)


def test_wrong_arrays():
    for name in ("random_perspective", "random_affine"):
        with pytest.raises(ValueError, match=r"got \(5,\) keys"):
            getattr(augment, name)(keys(5), IMAGES)
