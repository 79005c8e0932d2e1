import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import collapse, collapse_panel, is_collapsed

RNG = np.random.default_rng(2)
PANEL = jax.jit(collapse_panel)


def reference(z):
    """The panel in float64, pairs one by one."""
    z = np.asarray(z, np.float64)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    n, d = z.shape
    cosines = [u[i] @ u[k] for i in range(n) for k in range(n) if i != k]
    share = np.linalg.svd(z, compute_uv=False)
    share = share[share > 1e-12 * share.max()] / share.sum()
    return {
        "std": u.std(axis=0).mean() * np.sqrt(d),
        "mean_cosine": np.mean(cosines),
        "effective_rank": np.exp(-(share * np.log(share)).sum()),
    }


def close(panel, expected, **tolerance):
    assert set(panel) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(panel[name], value, err_msg=name, **tolerance)


@pytest.mark.parametrize("shape", [(9, 4), (5, 20)])
def test_agrees_with_float64(shape):
    z = RNG.normal(size=shape) + 0.5
    close(PANEL(z), reference(z), rtol=1e-5)


def test_no_square_of_the_dimensions_is_reserved():
    """The singular values of [8, 2048] need no [2048, 2048]."""
    compiled = PANEL.lower(jax.ShapeDtypeStruct((8, 2048), jnp.float32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2048**2


def test_constant_outputs():
    panel = PANEL(np.tile([[3.0, -1.0, 2.0]], (64, 100)))
    expected = {"std": 0.0, "mean_cosine": 1.0, "effective_rank": 1.0}
    close(panel, expected, atol=1e-4)
    collapsed, reason = is_collapsed(panel)
    assert collapsed
    assert reason.count("is below") == 2 and reason.count("is above") == 1


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("signs", ["one", "both"])
def test_one_dominant_dimension(signs, noise):
    # However long the outputs are along it, and whichever way they point.
    z = noise * RNG.normal(size=(32, 100))
    z[:, 3] += RNG.uniform(0.5, 2.0, size=32)
    if signs == "both":
        z[::2, 3] *= -1
    panel = PANEL(z)
    close(panel, reference(z), rtol=1e-4, atol=1e-5)
    collapsed, reason = is_collapsed(panel)
    assert collapsed
    assert ("mean cosine" in reason) == (signs == "one")
    assert "effective rank" in reason


def test_zero_outputs_are_collapsed():
    panel = PANEL(np.zeros((4, 3)))
    close(panel, {"std": 0, "mean_cosine": 0, "effective_rank": 1}, atol=1e-6)
    assert is_collapsed(panel)[0]


def test_gaussian_outputs():
    panel = PANEL(RNG.normal(size=(32, 2000)))
    close({"std": panel["std"]}, {"std": 1.0}, atol=0.05)
    close({"mean_cosine": panel["mean_cosine"]}, {"mean_cosine": 0.0}, atol=0.01)
    assert 31 < panel["effective_rank"] <= 32.001
    assert is_collapsed(panel) == (False, "")


def test_two_clusters_by_hand():
    # Two examples at (2, 0) and two at (0, 1): of the 12 ordered pairs 4 agree. The
    # singular values are sqrt 8 and sqrt 2, two thirds and one third of their sum.
    z = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    expected = {
        "std": 0.5 * 2**0.5,
        "mean_cosine": 1 / 3,
        "effective_rank": 3 / 2 ** (2 / 3),
    }
    close(PANEL(z), expected, rtol=1e-5)


def test_masked_rows_leave_no_trace():
    z, where = RNG.normal(size=(9, 6)) + 1, np.arange(9) % 3 != 0
    spoilt = np.where(where[:, None], z, np.nan)
    close(PANEL(spoilt, where=where), reference(z[where]), rtol=1e-5)


def test_scale_and_order():
    z = RNG.normal(size=(7, 5)) + 1
    close(PANEL(100.0 * z[::-1]), reference(z), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_examples_say_nothing(count):
    panel = PANEL(np.ones((4, 3)), where=np.arange(4) < count)
    assert all(np.isnan(value) for value in panel.values())
    assert is_collapsed(panel) == (False, "")


@pytest.mark.parametrize(
    ("name", "limit", "worse"),
    [
        ("std", collapse.MIN_STD, -0.01),
        ("mean_cosine", collapse.MAX_MEAN_COSINE, 0.01),
        ("effective_rank", collapse.MIN_EFFECTIVE_RANK, -0.01),
    ],
)
def test_each_threshold(name, limit, worse):
    healthy = {"std": 0.9, "mean_cosine": 0.1, "effective_rank": 50.0}
    assert is_collapsed(healthy | {name: limit - worse}) == (False, "")
    collapsed, reason = is_collapsed(healthy | {name: limit + worse})
    assert collapsed
    assert name.replace("_", " ") in reason and str(limit) in reason


def test_errors():
    with pytest.raises(ValueError, match=r"expected \[batch, dim\]"):
        collapse_panel(jnp.ones(3))
    with pytest.raises(ValueError, match="where of shape"):
        collapse_panel(jnp.ones((3, 2)), where=jnp.ones(2, bool))
    with pytest.raises(ValueError, match="without .*std"):
        is_collapsed({"mean_cosine": 0.0, "effective_rank": 3.0})
