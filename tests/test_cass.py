import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import parallel
from memejax.losses import cass, negative_cosine, weighted_mean

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 6, 10))


def reference(x, y):
    """The loss in float64, one example at a time, by the angle between the two."""
    return [
        2 - 2 * np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
        for a, b in zip(x, y, strict=True)
    ]


def slope(function, x, step=1e-5):
    """The gradient of a float64 function by central differences."""
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = [np.array(x), np.array(x)]
        moved[0][place] += step
        moved[1][place] -= step
        out[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return out


def close(got, expected, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * scale)


def mean_loss(x, y, weight):
    return weighted_mean(cass(x, y), weight)


GRADIENT = jax.jit(jax.value_and_grad(mean_loss, (0, 1)))


def expected_mean(x, y, weight):
    """The weighted mean loss and its two gradients, of the float64 reference."""

    def mean(x, y):
        return np.average(reference(x, y), weights=weight)

    to_x = slope(lambda x: mean(x, y), x)
    return mean(x, y), (to_x, slope(lambda y: mean(x, y), y))


def test_golden():
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    y = jnp.array([[0.0, 5.0], [-2.0, 0.0], [6.0, 8.0], [0.6, 0.8], [0.0, 0.0]])
    expected = [2.0, 4.0, 0.0, 0.8, 2.0]
    np.testing.assert_allclose(jax.jit(cass)(x, y), expected, atol=1e-6)


def test_agrees_with_float64_and_is_symmetric():
    expected = reference(X, Y)
    np.testing.assert_allclose(jax.jit(cass)(X, Y), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(cass)(Y, X), expected, rtol=1e-5)


def test_scale_and_order_do_not_matter():
    scales = RNG.uniform(1e-3, 1e3, size=(6, 1))
    order = RNG.permutation(6)
    np.testing.assert_allclose(
        jax.jit(cass)(X * scales, Y * 7), reference(X, Y), rtol=1e-5
    )
    expected = np.array(reference(X, Y))[order]
    np.testing.assert_allclose(jax.jit(cass)(X[order], Y[order]), expected, rtol=1e-5)


def test_low_precision_inputs_are_computed_in_float32():
    x, y = jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y, jnp.bfloat16)
    loss = jax.jit(cass)(x, y)
    assert loss.dtype == jnp.float32
    expected = reference(np.asarray(x, np.float64), np.asarray(y, np.float64))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradient_is_that_of_the_formula():
    x, y = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    # d(-2 cos)/dx = -2 (y^ - cos x^) / |x|, here at |x| = 1, cos = 0; and for y.
    to_x, to_y = jax.jit(jax.grad(lambda x, y: cass(x, y).sum(), (0, 1)))(x, y)
    np.testing.assert_allclose(to_x, [[0.0, -2.0]], atol=1e-6)
    np.testing.assert_allclose(to_y, [[-2.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 2), (5, 17)])
def test_value_and_gradient_agree_with_float64(shape):
    x, y = RNG.normal(size=(2, *shape))
    weight = RNG.uniform(0.5, 2.0, size=shape[0])
    value, (to_x, to_y) = GRADIENT(x, y, weight)
    expected, (expected_x, expected_y) = expected_mean(x, y, weight)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    close(to_x, expected_x)
    close(to_y, expected_y)


def test_vmap_over_seeds():
    x, y = RNG.normal(size=(2, 3, 4, 5))
    weight = np.ones((3, 4))
    value, (to_x, to_y) = jax.jit(jax.vmap(GRADIENT))(x, y, weight)
    for i in range(3):
        expected, (expected_x, expected_y) = expected_mean(x[i], y[i], weight[i])
        np.testing.assert_allclose(value[i], expected, rtol=1e-5)
        close(to_x[i], expected_x)
        close(to_y[i], expected_y)


def test_a_batch_split_over_devices_is_the_batch():
    x, y = RNG.normal(size=(2, 8, 6)).astype(np.float32)
    weight = np.array([1, 2, 0, 1, 1, 1, 1, 0], np.float32)
    mesh = parallel.mesh(4)
    value, (to_x, to_y) = GRADIENT(*parallel.put_batch(mesh, (x, y, weight)))
    assert len(to_x.sharding.device_set) == 4
    alone, (alone_x, alone_y) = GRADIENT(x, y, weight)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    close(to_x, alone_x, 1e-6)
    close(to_y, alone_y, 1e-6)
    expected = expected_mean(x.astype(np.float64), y.astype(np.float64), weight)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)


def test_masked_examples_contribute_nothing():
    weight = np.array([1, 0, 2, 1, 0, 1])
    kept = weight > 0
    expected, gradients = expected_mean(X[kept], Y[kept], weight[kept])
    for spoilt in (1e6, 0.0):
        x, y = np.where(kept[:, None], [X, Y], spoilt)
        value, got = GRADIENT(x, y, weight)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for gradient, one in zip(got, gradients, strict=True):
            close(gradient[kept], one)
            assert not np.any(gradient[~kept])


@pytest.mark.parametrize("loss", [cass, negative_cosine])
def test_gradient_is_zero_at_zero_vectors(loss):
    x = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    y = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    gradient = jax.jit(jax.grad(lambda x: loss(x, y).sum()))(x)
    np.testing.assert_array_equal(gradient[0], [0.0, 0.0])
    # By hand: -2 (y^ - x^ / sqrt 2) / sqrt 2 with x^ = (1, 1) / sqrt 2.
    np.testing.assert_allclose(gradient[1], [-(0.5**0.5), 0.5**0.5], rtol=1e-5)


def test_negative_cosine_stops_the_target():
    np.testing.assert_allclose(
        jax.jit(negative_cosine)(X, Y), reference(X, Y), rtol=1e-5
    )
    gradient = jax.grad(lambda p, z: negative_cosine(p, z).sum(), (0, 1))
    to_p, to_z = jax.jit(gradient)(X.astype(np.float32), Y.astype(np.float32))
    assert not np.any(to_z)
    assert np.abs(to_p).min() > 0


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        cass(jnp.ones((2, 3)), jnp.ones((2, 4)))
