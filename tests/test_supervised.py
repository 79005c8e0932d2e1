import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import binary_cross_entropy, sigmoid_focal, weighted_mean

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(scale=3, size=16).astype(np.float32)
LABELS = RNG.integers(0, 2, 16)


def focal(logits, labels, gamma, weight):
    """The formula in float64, from probabilities."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    pt = np.where(labels == 1, p, 1 - p)
    return -np.where(labels == 1, weight, 1) * (1 - pt) ** gamma * np.log(pt)


@pytest.mark.parametrize("weight", [1.0, 1.8])
def test_cross_entropy_is_the_formula(weight):
    loss = jax.jit(functools.partial(binary_cross_entropy, positive_weight=weight))
    expected = focal(LOGITS, LABELS, 0, weight)
    np.testing.assert_allclose(loss(LOGITS, LABELS), expected, rtol=1e-5)
    order = RNG.permutation(16)
    got = loss(LOGITS[order], LABELS[order])
    np.testing.assert_allclose(got, expected[order], rtol=1e-5)


def test_cross_entropy_golden():
    # log(1 + e^-log 3) = log(4 / 3); the label 0 pays log 4.
    logits = jnp.full(2, np.log(3.0))
    got = binary_cross_entropy(logits, jnp.array([1, 0]), positive_weight=2.0)
    np.testing.assert_allclose(got, [2 * np.log(4 / 3), np.log(4)], rtol=1e-6)


def test_cross_entropy_is_torchs():
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        logits,
        torch.tensor(LABELS, dtype=torch.float32),
        pos_weight=torch.tensor(2.5),
        reduction="none",
    )
    theirs.sum().backward()

    def ours(logits):
        return binary_cross_entropy(logits, LABELS, positive_weight=2.5)

    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours(LOGITS), theirs, atol=1e-5 * theirs.max(), rtol=0)
    gradient = jax.jit(jax.grad(lambda x: ours(x).sum()))(LOGITS)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 0.5])
def test_focal_is_the_formula(gamma):
    loss = jax.jit(functools.partial(sigmoid_focal, gamma=gamma, positive_weight=3.0))
    expected = focal(LOGITS, LABELS, gamma, 3.0)
    np.testing.assert_allclose(loss(LOGITS, LABELS), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [binary_cross_entropy, sigmoid_focal])
def test_large_logits_stay_finite(loss):
    logits, labels = jnp.array([1e4, -1e4, 1e4, -1e4]), jnp.array([1, 0, 0, 1])
    # Right: nothing to pay. Wrong: |logit|, which (1 - p_t) = 1 does not fade.
    np.testing.assert_allclose(loss(logits, labels), [0, 0, 1e4, 1e4], rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: loss(x, labels).sum()))(logits)
    np.testing.assert_allclose(gradient, [0, 0, 1, -1], rtol=1e-6)


@pytest.mark.parametrize("loss", [binary_cross_entropy, sigmoid_focal])
def test_masked_rows_leave_no_trace(loss):
    where = np.arange(16) % 4 != 0
    logits = np.where(where, LOGITS, np.nan).astype(np.float32)
    labels = np.where(where, LABELS, -1)
    gamma = 2.0 if loss is sigmoid_focal else 0.0
    got = jax.jit(loss)(logits, labels, where=where)
    assert not np.any(got[~where])
    expected = focal(LOGITS[where], LABELS[where], gamma, 1.0)
    np.testing.assert_allclose(got[where], expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: loss(x, labels, where=where).sum()))(logits)
    assert not np.any(gradient[~where])
    assert np.isfinite(gradient).all() and np.abs(gradient[where]).max() > 0.1


@pytest.mark.parametrize("loss", [binary_cross_entropy, sigmoid_focal])
def test_an_unknown_label_that_counts_is_nan(loss):
    got = loss(jnp.zeros(3), jnp.array([0, -1, 1]))
    np.testing.assert_array_equal(np.isnan(got), [False, True, False])


@pytest.mark.parametrize("loss", [binary_cross_entropy, sigmoid_focal])
def test_errors(loss):
    with pytest.raises(ValueError, match="float32, expected integers"):
        loss(jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="expected one shape"):
        loss(jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match="gamma -1"):
        sigmoid_focal(jnp.zeros(2), jnp.zeros(2, jnp.int32), gamma=-1)


def test_weighted_mean():
    mean = jax.jit(weighted_mean)
    # (2 x 1 + 4 x 0.5) / 1.5, the NaN of weight 0 aside.
    values = jnp.array([1.0, 0.5, jnp.nan])
    np.testing.assert_allclose(mean(values, jnp.array([2.0, 4.0, 0.0])), 4 / 6)
    assert mean(values, jnp.zeros(3)) == 0
    gradient = jax.jit(jax.grad(weighted_mean))(values, jnp.array([2.0, 4.0, 0.0]))
    np.testing.assert_allclose(gradient, [1 / 3, 2 / 3, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="expected one shape"):
        weighted_mean(values, jnp.ones((3, 1)))


def test_weighted_mean_of_a_split_batch():
    values, weight = LOGITS.reshape(4, 4), RNG.uniform(size=(4, 4)) > 0.4

    @jax.jit
    @functools.partial(jax.vmap, axis_name="devices")
    def sharded(values, weight):
        return jax.value_and_grad(weighted_mean)(values, weight, axis_name="devices")

    mean, gradient = sharded(values, weight)
    np.testing.assert_allclose(mean, np.full(4, values[weight].mean()), rtol=1e-5)
    # As everywhere under a mapped axis: pmean turns the gradients into the global one.
    np.testing.assert_allclose(gradient / 4, weight / weight.sum(), rtol=1e-5)
