import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import standardize, variance_covariance

# 8 examples: with 3 dimensions the covariance matrix is formed, with 40 the products
# of examples.
SHAPES = [(8, 3), (8, 40)]


def reference(z, target=1.0, eps=1e-4):
    """VICReg's two terms in float64, from numpy's covariance."""
    covariance = np.atleast_2d(np.cov(np.asarray(z, np.float64), rowvar=False))
    diagonal = np.diag(covariance)
    variance = np.maximum(0, target - np.sqrt(diagonal + eps)).mean()
    return variance, ((covariance**2).sum() - (diagonal**2).sum()) / z.shape[1]


def outputs(shape):
    rng = np.random.default_rng(shape[1])
    mixing = rng.normal(size=(shape[1], shape[1])) / shape[1] ** 0.5
    return (rng.normal(size=shape) @ mixing + 3.0).astype(np.float32)


@pytest.mark.parametrize("shape", [*SHAPES, (8, 15), (8, 16)])
def test_variance_covariance_agrees_with_numpy(shape):
    z = outputs(shape)
    got = jax.jit(functools.partial(variance_covariance, target=1.5))(z)
    np.testing.assert_allclose(got, reference(z, 1.5), rtol=1e-5)


def test_variance_covariance_golden():
    # Columns (1, -1) and (0, 0) x 2: variances 2 and 0, covariance 0.
    z = np.array([[1.0, 5.0], [-1.0, 5.0]])
    loss = jax.jit(functools.partial(variance_covariance, target=2.0, eps=0.0))
    variance, covariance = loss(z)
    np.testing.assert_allclose(variance, (2 - 2**0.5 + 2) / 2, rtol=1e-6)
    assert covariance == 0
    # Ten equal columns: C is 2 everywhere, 90 off-diagonal 4s over 10.
    variance, covariance = loss(np.tile(z[:, :1], (1, 10)))
    np.testing.assert_allclose(variance, 2 - 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(covariance, 36.0, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_rows_leave_no_trace(shape):
    z, where = outputs(shape), np.array([1, 1, 0, 1, 0, 1, 1, 1], bool)
    spoilt = np.where(where[:, None], z, np.nan)
    got = jax.jit(variance_covariance)(spoilt, where=where)
    np.testing.assert_allclose(got, reference(z[where]), rtol=1e-5)
    scaled = jax.jit(standardize)(spoilt, where=where)
    assert not np.any(scaled[~where])
    kept = z[where].astype(np.float64)
    expected = (kept - kept.mean(0)) / np.sqrt(kept.var(0) + 1e-5)
    np.testing.assert_allclose(scaled[where], expected, rtol=2e-5, atol=1e-5)

    def total(z):
        return (
            sum(variance_covariance(z, where=where)) + standardize(z, where=where)[0, 0]
        )

    gradient = jax.jit(jax.grad(total))(spoilt)
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[~where])
    assert np.abs(gradient[where]).max() > 1e-3


@pytest.mark.parametrize("shape", [(8, 3), (8, 40)])
def test_gradient_is_finite_where_collapsed(shape):
    def total(z):
        parts = variance_covariance(z)
        return sum(parts) + standardize(z).sum(), parts

    z = np.full(shape, 2.0, np.float32)
    gradient, (variance, covariance) = jax.jit(jax.grad(total, has_aux=True))(z)
    np.testing.assert_allclose(variance, 1 - 0.01, rtol=1e-5)
    assert covariance == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_split_batch_is_the_batch(shape):
    z, where = outputs(shape), np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)

    def total(z, where, axis_name):
        variance, covariance = variance_covariance(
            z, where=where, axis_name=axis_name, target=1.5
        )
        return variance + 0.5 * covariance, (variance, covariance)

    @jax.jit
    @functools.partial(jax.vmap, axis_name="devices")
    def sharded(z, where):
        gradient, parts = jax.grad(total, has_aux=True)(z, where, "devices")
        return gradient, parts, standardize(z, where=where, axis_name="devices")

    gradient, parts, scaled = sharded(z.reshape(4, 2, -1), where.reshape(4, 2))
    expected = reference(z[where], 1.5)
    for part, value in zip(parts, expected, strict=True):
        np.testing.assert_allclose(part, np.full(4, value), rtol=1e-5)
    kept = z[where].astype(np.float64)
    expected = (kept - kept.mean(0)) / np.sqrt(kept.var(0) + 1e-5)
    got = scaled.reshape(shape)[where]
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    # Each device's gradient counts the loss of all four; pmean divides by four.
    alone = jax.jit(jax.grad(lambda z: total(z, where, None)[0]))(z)
    np.testing.assert_allclose(
        gradient.reshape(shape) / 4, alone, rtol=1e-4, atol=1e-6 * np.abs(alone).max()
    )


def test_order_and_offset_do_not_matter():
    z, order = outputs((8, 5)), np.random.default_rng(1).permutation(8)
    got = jax.jit(variance_covariance)(z[order] + 4.0)
    np.testing.assert_allclose(got, reference(z), rtol=1e-4)


def test_standardize_golden():
    z = jnp.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]], jnp.bfloat16)
    got = jax.jit(functools.partial(standardize, eps=0.0001))(z)
    assert got.dtype == jnp.float32
    # Column 0 has mean 3 and variance 8 / 3; column 1 is constant.
    root = (8 / 3 + 1e-4) ** 0.5
    expected = [[-2 / root, 0], [0, 0], [2 / root, 0]]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("function", [standardize, variance_covariance])
def test_shapes_are_checked(function):
    with pytest.raises(ValueError, match=r"\(4,\), expected \[batch, dim\]"):
        function(jnp.ones(4))
    with pytest.raises(ValueError, match=r"where of shape \(3,\), expected \(4,\)"):
        function(jnp.ones((4, 2)), where=jnp.ones(3, bool))
