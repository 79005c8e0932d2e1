import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.optim import average, ema, swa


def trees():
    old = {"w": jnp.array([[1.0, 2.0]]), "n": jnp.array([3], jnp.int32)}
    new = {"w": jnp.array([[5.0, -2.0]]), "n": jnp.array([8], jnp.int32)}
    return old, new


def test_ema_by_hand():
    got = ema(*trees(), momentum=0.75)
    np.testing.assert_allclose(got["w"], [[2.0, 1.0]])
    np.testing.assert_array_equal(got["n"], [8])
    assert got["n"].dtype == jnp.int32


@pytest.mark.parametrize(("momentum", "which"), [(0.0, 1), (1.0, 0)])
def test_ema_at_its_ends_is_one_of_both(momentum, which):
    got = ema(*trees(), momentum=momentum)
    np.testing.assert_array_equal(got["w"], trees()[which]["w"])


def test_ema_takes_a_traced_momentum():
    """Many updates in one scan, against the closed sum in float64."""
    rng = np.random.default_rng(0)
    values, momenta = rng.normal(size=(20, 3)), np.linspace(0.9, 1.0, 20)

    def body(mean, part):
        value, momentum = part
        return ema({"w": mean}, {"w": value}, momentum=momentum)["w"], None

    got, _ = jax.jit(lambda v, m: jax.lax.scan(body, jnp.zeros(3), (v, m)))(
        jnp.asarray(values, jnp.float32), jnp.asarray(momenta, jnp.float32)
    )
    shares = (1 - momenta) * np.append(np.cumprod(momenta[::-1])[::-1][1:], 1.0)
    np.testing.assert_allclose(got, shares @ values, rtol=1e-5)


def test_ema_keeps_the_averages_dtype_and_works_in_float32():
    """In bfloat16 0.25 + 0.75 * 1.0078125 would lose its last bits."""
    old = {"w": jnp.ones(1, jnp.float32), "v": jnp.ones(1, jnp.bfloat16)}
    new = {"w": jnp.full(1, 1.0078125, jnp.bfloat16), "v": jnp.full(1, 3, jnp.float32)}
    got = ema(old, new, momentum=0.25)
    assert (got["w"].dtype, got["v"].dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(got["w"], np.float32(0.25 + 0.75 * 1.0078125))
    np.testing.assert_array_equal(got["v"].astype(jnp.float32), 2.5)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, jnp.float32(2.0), float("nan")])
def test_ema_checks_a_known_momentum(momentum):
    with pytest.raises(ValueError, match=r"expected one in \[0, 1\]"):
        ema(*trees(), momentum=momentum)


@pytest.mark.parametrize("mean", [ema, swa], ids=["ema", "swa"])
def test_averages_check_shapes(mean):
    options = {"momentum": 0.5} if mean is ema else {"count": 1}
    with pytest.raises(ValueError, match=r"a/w: got \[1\], expected \[2\]"):
        mean({"a": {"w": jnp.ones(2)}}, {"a": {"w": jnp.ones(1)}}, **options)
    with pytest.raises(ValueError):
        mean({"w": jnp.ones(2)}, {"v": jnp.ones(2)}, **options)


def test_swa_is_the_mean():
    """One by one, with a traced count, against the mean of all in float64."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(7, 4))
    update = jax.jit(lambda old, new, count: swa(old, new, count=count))
    mean = {"w": jnp.full(4, 9.0)}  # of no trees: forgotten
    for count, value in enumerate(values):
        mean = update(mean, {"w": jnp.asarray(value, jnp.float32)}, count)
    np.testing.assert_allclose(mean["w"], values.mean(0), rtol=1e-5, atol=1e-6)


def test_swa_by_hand():
    got = swa(*trees(), count=3)
    np.testing.assert_allclose(got["w"], [[2.0, 1.0]])
    np.testing.assert_array_equal(got["n"], [8])
    with pytest.raises(ValueError, match="count -1"):
        swa(*trees(), count=-1)


def test_examples_run():
    done = doctest.testmod(average)
    assert done.attempted > 0 and done.failed == 0
