import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from memejax.curriculum.bald import bald, predictive_variance, vote_entropy
from memejax.curriculum.gradients import (
    expected_gradient_length,
    last_layer_gradient_length,
)
from memejax.curriculum.mc_dropout import mc_dropout
from memejax.curriculum.scores import (
    aadt,
    cross_entropy,
    entropy,
    least_confidence,
    margin,
)
from memejax.curriculum.toy import disagreement_example

RNG = np.random.default_rng(5)
C = 5
LOGITS = RNG.normal(scale=2, size=(6, 7, C))  # six passes, seven examples
PROBS = special.softmax(LOGITS, axis=-1)
TWO = np.r_[0.5, 0.5, np.zeros(8)]
UNEVEN = np.r_[0.85, 0.15, np.zeros(8)]
EXAMPLES = settings(deadline=None, derandomize=True, max_examples=30)


def safe_log(probs):
    with np.errstate(divide="ignore"):
        return np.log(probs)


def naive_aadt(probs, squared=False):
    distance = probs - 1 / probs.shape[-1]
    distance = distance**2 if squared else np.abs(distance)
    with np.errstate(divide="ignore"):
        return probs.shape[-1] / distance.sum(-1)


def naive_entropy(probs):
    return special.entr(probs).sum(-1)


def naive_margin(probs):
    ordered = np.sort(probs, axis=-1)
    return 1 - (ordered[..., -1] - ordered[..., -2])


def naive_bald(probs):
    return naive_entropy(probs.mean(0)) - naive_entropy(probs).mean(0)


def naive_votes(probs):
    counts = [np.bincount(row, minlength=C) for row in probs.argmax(-1).T]
    return stats.entropy(np.array(counts), axis=-1)


def naive_variance(probs):
    return np.var(probs, axis=0).sum(-1)


SQUARED = functools.partial(aadt, squared=True)
LOG_ENTROPY = functools.partial(entropy, log=True)
LOG_BALD = functools.partial(bald, log=True)
# One prediction an example, several, and the same formulas in float64.
SINGLE = {
    aadt: naive_aadt,
    SQUARED: functools.partial(naive_aadt, squared=True),
    entropy: naive_entropy,
    least_confidence: lambda probs: 1 - probs.max(-1),
    margin: naive_margin,
}
SEVERAL = {
    bald: naive_bald,
    vote_entropy: naive_votes,
    predictive_variance: naive_variance,
}
PAIRS = list((SINGLE | SEVERAL).items())
NAMES = ["aadt", "squared", "entropy", "least", "margin", "bald", "votes", "variance"]
both = pytest.mark.parametrize(("score", "naive"), PAIRS, ids=NAMES)
# Compiled once for all examples of a property test.
jitted = functools.cache(jax.jit)


def softmax_of(numbers, shape):
    return special.softmax(np.array(numbers).reshape(shape), axis=-1)


def lists(size):
    return st.lists(st.floats(-6, 6), min_size=size, max_size=size)


@both
def test_is_the_formula_in_float64(score, naive):
    got = jitted(score)(PROBS)
    assert got.dtype == jnp.float32
    expected = naive(PROBS)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    half = jnp.asarray(PROBS, jnp.bfloat16)
    got = jax.jit(score)(half)
    assert got.dtype == jnp.float32
    if score is not vote_entropy:  # where bfloat16 makes ties, votes are shared
        expected = naive(np.asarray(half, np.float64))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@both
def test_under_vmap_and_with_more_axes(score, naive):
    expected = np.stack([naive(PROBS), naive(PROBS[:, ::-1])])
    got = jax.jit(jax.vmap(score))(np.stack([PROBS, PROBS[:, ::-1]]))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    got = jax.jit(score)(np.stack([PROBS, PROBS[:, ::-1]], axis=1))
    axis = 1 if score in SINGLE else 0
    expected = np.stack([naive(PROBS), naive(PROBS[:, ::-1])], axis=axis)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@both
def test_nan_stays_in_its_example(score, naive):
    probs = PROBS.copy()
    probs[2, 3, 1] = np.nan
    got, expected = jitted(score)(probs), naive(PROBS)
    spoilt = (2, 3) if score in SINGLE else (3,)
    assert np.isnan(got[spoilt]) and np.isnan(got).sum() == 1
    np.testing.assert_allclose(
        np.delete(got, spoilt[-1], -1),
        np.delete(expected, spoilt[-1], -1),
        rtol=2e-5,
        atol=1e-6,
    )


@both
@EXAMPLES
@given(numbers=lists(2 * 2 * C), seed=st.integers(0, 99))
def test_the_order_of_classes_is_no_matter(score, naive, numbers, seed):
    probs = softmax_of(numbers, (2, 2, C))
    order = np.random.default_rng(seed).permutation(C)
    if score is vote_entropy:  # numpy's argmax does not share ties
        expected = jitted(score)(probs)
    else:
        # The bound of AADT, which naive_aadt lacks.
        power = {aadt: 1, SQUARED: 2}.get(score, np.inf)
        expected = np.minimum(naive(probs), (1000.0 * C) ** power)
    # Near the uniform prediction AADT divides by what rounding leaves.
    rtol = 5e-3 if score in (aadt, SQUARED) else 1e-4
    np.testing.assert_allclose(
        jitted(score)(probs[..., order]), expected, rtol=rtol, atol=2e-6
    )


@EXAMPLES
@given(numbers=lists(4 * 3 * C))
def test_scores_stay_within_their_bounds(numbers):
    probs = softmax_of(numbers, (4, 3, C))
    close = 1e-5
    for score, low, high in [
        (aadt, C**2 / (2 * (C - 1)), 1000 * C),
        (SQUARED, C**2 / (C - 1), 1e6 * C**2),
        (entropy, 0, math.log(C)),
        (least_confidence, 0, 1 - 1 / C),
        (margin, 0, 1),
        (bald, 0, math.log(4)),
        (vote_entropy, 0, math.log(C)),
        (predictive_variance, 0, 1 - 1 / 4),
    ]:
        got = jitted(score)(probs)
        assert np.all(got >= low * (1 - close)) and np.all(got <= high * (1 + close))


def test_aadt_by_hand():
    np.testing.assert_allclose(jitted(aadt)(np.eye(3)), [2.25] * 3, rtol=1e-6)
    np.testing.assert_allclose(jitted(aadt)(np.eye(10)), [50 / 9] * 10, rtol=1e-6)
    # It does not see how two classes share the mass.
    got = jitted(aadt)(np.stack([TWO, UNEVEN]))
    np.testing.assert_allclose(got, [6.25, 6.25], rtol=1e-6)
    # Squared: C / ((1 - 1/C)^2 + (C - 1) / C^2) = C^2 / (C - 1), and 10 / .4 for two.
    got = jitted(SQUARED)(np.stack([np.eye(10)[0], TWO, UNEVEN]))
    np.testing.assert_allclose(got, [100 / 9, 25, 10 / 0.645], rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_aadt_is_bounded_at_the_uniform_prediction(squared):
    score = functools.partial(aadt, squared=squared)
    uniform = np.full((1, 10), 0.1)
    np.testing.assert_allclose(score(uniform), 1e8 if squared else 1e4, rtol=1e-6)
    got = jax.jit(functools.partial(score, bound=40.0))(np.stack([uniform[0], TWO]))
    np.testing.assert_allclose(got, [40, 25 if squared else 6.25], rtol=1e-6)
    gradient = jax.grad(lambda p: score(p, bound=40.0).sum())(jnp.asarray(uniform))
    assert not np.any(gradient)
    # The distance 0.002 is not cut: 2 of 10 classes are 0.001 away.
    tilted = uniform + np.r_[0.001, -0.001, np.zeros(8)]
    expected = 10 / 2e-6 if squared else 10 / 0.002
    np.testing.assert_allclose(score(tilted), expected, rtol=1e-3)
    with pytest.raises(ValueError, match="score of a one-hot prediction of 10 classes"):
        score(uniform, bound=5.0)
    with pytest.raises(ValueError, match="got bound nan"):
        score(uniform, bound=math.nan)


def test_entropy_by_hand():
    probs = np.stack([np.full(10, 0.1), TWO, UNEVEN, np.eye(10)[4]])
    expected = [math.log(10), math.log(2), 0.42270909, 0]
    np.testing.assert_allclose(entropy(probs), expected, rtol=1e-6)
    logs = safe_log(probs)
    got = jitted(LOG_ENTROPY)(logs)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_margin_and_least_confidence_by_hand():
    probs = np.array([[0.2, 0.5, 0.3], [1, 0, 0], [0.4, 0.2, 0.4]])
    np.testing.assert_allclose(margin(probs), [0.8, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(least_confidence(probs), [0.5, 0, 0.6], rtol=1e-6)


def test_log_forms_agree_with_float64():
    logs = special.log_softmax(LOGITS * 6, axis=-1)
    probs = np.exp(logs)
    got = jitted(LOG_ENTROPY)(logs)
    np.testing.assert_allclose(got, naive_entropy(probs), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jitted(entropy)(probs), got, rtol=1e-4, atol=1e-6)
    got = jitted(LOG_BALD)(logs)
    np.testing.assert_allclose(got, naive_bald(probs), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jitted(bald)(probs), got, rtol=1e-5, atol=1e-7)


def test_gradients_are_the_formulas():
    # d/dp of -p ln p is -(ln p + 1); d/dl of -e^l l is -e^l (l + 1).
    got = jax.jit(jax.grad(lambda p: entropy(p).sum()))(PROBS.astype(np.float32))
    np.testing.assert_allclose(got, -(np.log(PROBS) + 1), rtol=1e-5, atol=1e-5)
    logs = np.log(PROBS).astype(np.float32)
    got = jax.jit(jax.grad(lambda x: entropy(x, log=True).sum()))(logs)
    np.testing.assert_allclose(got, -PROBS * (logs + 1), rtol=1e-4, atol=1e-5)
    # d/dp_mc of BALD is (ln p_mc - ln q_c) / M.
    got = jax.jit(jax.grad(lambda p: bald(p).sum()))(PROBS.astype(np.float32))
    expected = (np.log(PROBS) - np.log(PROBS.mean(0))) / len(PROBS)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("score", "log"),
    [
        (functools.partial(aadt, bound=50.0), False),
        (entropy, False),
        (LOG_ENTROPY, True),
        (least_confidence, False),
        (margin, False),
        (bald, False),
        (LOG_BALD, True),
        (vote_entropy, False),
        (predictive_variance, False),
        (lambda x: cross_entropy(x, jnp.ones(x.shape[:-1], jnp.int32)), True),
        (lambda p: last_layer_gradient_length(jnp.ones((3, 3, 2)), p), False),
        (lambda p: last_layer_gradient_length(0 * p, p, bias=False), False),
    ],
)
def test_gradients_are_finite_at_the_corners(score, log):
    corners = np.eye(3, dtype=np.float32)
    probs = np.stack([corners, np.roll(corners, 1, 0), [corners[0], TWO[:3], TWO[1:4]]])
    probs = safe_log(probs) if log else probs
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.nan_to_num(score(p)))))(probs)
    assert gradient.shape == probs.shape and np.isfinite(gradient).all()


def test_cross_entropy():
    logs = special.log_softmax(LOGITS, axis=-1)
    labels = RNG.integers(0, C, LOGITS.shape[:-1])
    expected = -np.log(PROBS)[(*np.indices(labels.shape), labels)]
    score = jax.jit(cross_entropy)
    np.testing.assert_allclose(score(logs, labels), expected, rtol=1e-5)
    got = score(jnp.asarray(logs, jnp.bfloat16), labels)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-2)
    # A label that is none is NaN, not the last class nor the nearest.
    got = score(logs[0, :3], jnp.array([-1, C, 2]))
    np.testing.assert_array_equal(np.isnan(got), [True, True, False])
    got = score(jnp.array([[0.0, -jnp.inf]]), jnp.array([1]))
    np.testing.assert_array_equal(got, [np.inf])


def test_bald_by_hand():
    opposite = np.eye(2)[:, None, :]
    np.testing.assert_allclose(jitted(bald)(opposite), [math.log(2)], rtol=1e-6)
    got = jitted(LOG_BALD)(safe_log(opposite))
    np.testing.assert_allclose(got, [math.log(2)], rtol=1e-6)
    # As many passes as classes, each sure of another: the bound ln C = ln M.
    np.testing.assert_allclose(
        jitted(bald)(np.eye(4)[:, None, :]), [math.log(4)], rtol=1e-6
    )
    # Twice (.9, .1), twice (.5, .5): H(.7, .3) - (H(.9, .1) + H(.5, .5)) / 2.
    probs = np.array([[0.9, 0.1], [0.5, 0.5]] * 2)[:, None, :]
    np.testing.assert_allclose(jitted(bald)(probs), [0.10174921], rtol=1e-5)


@pytest.mark.parametrize("log", [False, True])
def test_bald_of_passes_that_agree(log):
    score = jitted(LOG_BALD if log else bald)
    values = (np.log(PROBS) if log else PROBS).astype(np.float32)
    assert not np.any(score(values[:1]))
    same = np.repeat(values[:1], 7, axis=0)
    got = score(same)
    assert np.all(got >= 0) and np.all(got < 1e-12)


def test_small_bald_is_not_rounding():
    # Of a saturated model: the difference of two float32 entropies is noise here.
    logits = np.r_[12.0, 0, 0] + RNG.normal(scale=0.1, size=(8, 50, 3))
    probs = special.softmax(logits, axis=-1)
    expected = naive_bald(probs)
    assert expected.max() < 1e-6
    np.testing.assert_allclose(jitted(bald)(probs), expected, rtol=1e-3)
    single = probs.astype(np.float32)
    difference = naive_entropy(single.mean(0)) - naive_entropy(single).mean(0)
    assert np.abs(difference / expected - 1).max() > 0.1


@EXAMPLES
@given(numbers=lists(4 * 1 * C), seed=st.integers(0, 99))
def test_the_order_of_passes_is_no_matter(numbers, seed):
    probs = softmax_of(numbers, (4, 1, C))
    order = np.random.default_rng(seed).permutation(4)
    for score, naive in [(bald, naive_bald), (predictive_variance, naive_variance)]:
        got = jitted(score)(probs[order])
        np.testing.assert_allclose(got, naive(probs), rtol=1e-4, atol=2e-6)


def test_bald_of_few_passes_is_low():
    # 300 examples of little disagreement: E[BALD_M] is (1 - 1/M) of its limit.
    centre = RNG.normal(size=(1, 300, 10))
    logits = centre + RNG.normal(scale=0.5, size=(400, 300, 10))
    probs = special.softmax(logits, axis=-1)
    limit = np.mean(naive_bald(probs))
    ratios = [np.mean(jitted(bald)(probs[:m])) / limit for m in (2, 5, 20)]
    np.testing.assert_allclose(ratios, [0.5, 0.8, 0.95], atol=0.05)
    assert ratios == sorted(ratios)


def test_votes_by_hand():
    # The shares (3, 1) / 4 and (2, 1, 1) / 4; then a pass whose vote is split.
    first = np.eye(3)[[0, 0, 1, 0]]
    second = np.eye(3)[[2, 0, 1, 2]]
    got = jitted(vote_entropy)(np.stack([first, second], axis=1))
    np.testing.assert_allclose(got, [0.56233514, 1.5 * math.log(2)], rtol=1e-6)
    split = np.array([[[0.4, 0.4, 0.2]], [[0.1, 0.8, 0.1]]])
    np.testing.assert_allclose(jitted(vote_entropy)(split), [0.56233514], rtol=1e-6)
    np.testing.assert_allclose(
        jitted(vote_entropy)(np.log(split)), [0.56233514], rtol=1e-6
    )


def test_variance_by_hand():
    # Class by class ((.9, .5): .04) twice.
    probs = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
    np.testing.assert_allclose(jitted(predictive_variance)(probs), [0.08], rtol=1e-6)
    assert not np.any(jitted(predictive_variance)(probs[:1]))


def linear(params, x, label):
    logits = params["w"] @ x + params.get("b", 0.0)
    return -jax.nn.log_softmax(logits)[label]


@pytest.mark.parametrize("bias", [True, False])
def test_gradient_length_of_a_linear_layer(bias):
    features = RNG.normal(size=(7, 4))
    params = {"w": RNG.normal(size=(C, 4)), "b": RNG.normal(size=C) * bias}
    probs = special.softmax(features @ params["w"].T + params["b"], axis=-1)
    # Independently: the gradients written out, (p - e_c) h^T and p - e_c.
    error = probs[:, None, :] - np.eye(C)
    weights = np.einsum("ncj,nd->ncjd", error, features)
    squares = (weights**2).sum((2, 3)) + bias * (error**2).sum(2)
    expected = (probs * np.sqrt(squares)).sum(1)
    if not bias:
        del params["b"]
    closed = jax.jit(functools.partial(last_layer_gradient_length, bias=bias))
    got = closed(features, probs)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    inputs = jnp.asarray(features, jnp.float32)
    general = jax.jit(functools.partial(expected_gradient_length, linear))
    got = general(params, inputs, probs=probs)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # A loss in bfloat16 gives a float32 score too.
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, inputs))
    got = general(*half, probs=jnp.asarray(probs, jnp.bfloat16))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=0.1)


def test_gradient_length_of_a_network_is_the_loop():
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(keys[0], (3, 6)), jax.random.normal(keys[1], (6, 2))]
    inputs = {"x": jax.random.normal(keys[2], (4, 3)), "scale": jnp.arange(1.0, 5.0)}
    probs = special.softmax(RNG.normal(size=(4, 2)), axis=-1)

    def loss(params, example, label):
        hidden = jnp.tanh(example["x"] @ params[0]) * example["scale"]
        return -jax.nn.log_softmax(hidden @ params[1])[label]

    gradient, expected = jax.jit(jax.grad(loss)), np.zeros(4)
    for i in range(4):
        example = {name: values[i] for name, values in inputs.items()}
        for c in range(2):
            leaves = gradient(params, example, c)
            flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
            expected[i] += probs[i, c] * np.linalg.norm(flat)
    score = jax.jit(functools.partial(expected_gradient_length, loss))
    got = score(params, inputs, probs=probs)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gradient_length_of_saturated_predictions():
    # (1 - d, d): 2 (1 - d) d sqrt 2, where ||p||^2 - p_c^2 would be rounding alone.
    left = np.array([1e-3, 1e-4, 1e-5])
    probs = np.stack([1 - left, left], axis=-1)
    score = jax.jit(last_layer_gradient_length)
    got = score(np.zeros((3, 2)), probs)
    expected = 2 * math.sqrt(2) * (1 - left) * left
    np.testing.assert_allclose(got, expected, rtol=5e-3)
    certain = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    got = score(np.array([[3, 4], [3, 4], [np.nan, 4]]), certain)
    np.testing.assert_array_equal(got, [0, 0, np.nan])


class Head(nn.Module):
    """A small head; with shared masks, what one example draws is what all draw."""

    shared: bool

    @nn.compact
    def __call__(self, x):
        axes = (0,) if self.shared else ()
        x = nn.Dropout(0.5, broadcast_dims=axes, deterministic=False)(x)
        x = nn.relu(nn.Dense(16)(x))
        x = nn.Dropout(0.5, broadcast_dims=axes, deterministic=False)(x)
        return nn.Dense(3)(x)


@functools.cache
def head_params():
    keys = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    return jax.jit(Head(True).init)(keys, jnp.ones((1, 8)))


@functools.cache
def runner(shared, at_once):
    head, params = Head(shared), head_params()

    def run(inputs):
        return mc_dropout(
            jnp.tanh,
            lambda x, key: head.apply(params, x, rngs={"dropout": key}),
            inputs,
            key=jax.random.key(3),
            passes=6,
            at_once=at_once,
        )

    return jax.jit(run)


def passes_of(inputs, *, shared=True, at_once=1):
    return np.asarray(runner(shared, at_once)(inputs))


INPUTS = RNG.normal(size=(10, 8)).astype(np.float32)


def test_dropout_scores_do_not_depend_on_chunks():
    whole = passes_of(INPUTS)
    assert whole.shape == (6, 10, 3) and whole.dtype == np.float32
    np.testing.assert_allclose(np.exp(whole).sum(-1), 1, rtol=1e-5)
    # Only the sizes of the matrix products differ.
    chunks = [passes_of(INPUTS[i : i + 3]) for i in range(0, 10, 3)]
    chunked = np.concatenate(chunks, axis=1)
    np.testing.assert_allclose(chunked, whole, atol=1e-5)
    score = jitted(LOG_BALD)
    np.testing.assert_allclose(score(chunked), score(whole), atol=1e-5)
    assert np.all(score(whole) > 1e-3)
    # With a mask an example they do depend on them.
    whole = passes_of(INPUTS, shared=False)
    chunk = passes_of(INPUTS[3:6], shared=False)
    assert np.abs(chunk - whole[:, 3:6]).max() > 0.1


def test_dropout_passes_are_their_keys():
    whole = passes_of(INPUTS)
    # More at once are the same passes.
    np.testing.assert_allclose(passes_of(INPUTS, at_once=4), whole, atol=1e-5)
    # Pass m by hand: its mask from fold_in(key, m), and numpy's softmax.
    key, rows = jax.random.key(7), jnp.asarray(INPUTS)

    def head(x, key):
        return (x * jax.random.bernoulli(key, 0.5, (1, 8)))[:, :3].astype(jnp.bfloat16)

    run = functools.partial(mc_dropout, lambda x: 2 * x, head, passes=3)
    got = jax.jit(run)(rows, key=key)
    assert got.dtype == jnp.float32
    for m in range(3):
        keep = np.asarray(jax.random.bernoulli(jax.random.fold_in(key, m), 0.5, (1, 8)))
        expected = special.log_softmax((2 * INPUTS * keep)[:, :3], axis=-1)
        np.testing.assert_allclose(got[m], expected, atol=0.05)


def test_dropout_computes_the_trunk_once():
    calls = []

    def trunk(x):
        jax.debug.callback(lambda: calls.append("trunk"))
        return x

    def head(x, key):
        jax.debug.callback(lambda: calls.append("head"))
        return x

    run = jax.jit(lambda x: mc_dropout(trunk, head, x, key=jax.random.key(0), passes=5))
    run(jnp.ones((2, 3)))
    jax.effects_barrier()
    assert calls.count("trunk") == 1 and calls.count("head") == 5


toy_of = functools.cache(lambda seed: disagreement_example(seed=seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_toy_tells_disagreement_from_a_boundary(seed):
    toy = toy_of(seed)
    positive = toy.probs_mnc[..., 1].mean(0)
    inside, far = np.abs(toy.inputs) < 1.5, np.abs(toy.inputs) > 4
    boundary = inside & (np.abs(positive - 0.5) < 0.15)
    assert boundary.sum() >= 5 and far.sum() >= 60
    # Boundary scores are high in both places, for the mean of the members.
    for score, high in [(toy.entropy, 0.6), (toy.aadt, 5.0)]:
        assert score[boundary].min() > high and score[far].min() > high
        assert score[inside].min() < high / 2
    # BALD is high far away alone, where each member is sure of itself.
    assert toy.bald[boundary].max() < 0.05 < 0.4 < toy.bald[far].min()
    assert toy.bald[inside].max() < 0.1
    assert (
        toy.member_entropy[far].max() < 0.3 < 0.5 < toy.member_entropy[boundary].min()
    )
    np.testing.assert_allclose(toy.entropy - toy.member_entropy, toy.bald, atol=1e-5)
    np.testing.assert_allclose(toy.bald, naive_bald(toy.probs_mnc), atol=1e-5)
    np.testing.assert_allclose(toy.probs_mnc.sum(-1), 1, rtol=1e-6)


def test_the_toy_repeats_itself():
    toy, again = toy_of(0), disagreement_example()
    assert toy.probs_mnc.shape == (64, 201, 2) and toy.inputs.shape == (201,)
    np.testing.assert_array_equal(toy.probs_mnc, again.probs_mnc)
    assert np.abs(toy.probs_mnc - toy_of(1).probs_mnc).max() > 0.1
    with pytest.raises(ValueError, match="got members 1"):
        disagreement_example(members=1)


@pytest.mark.parametrize("score", [score for score, _ in PAIRS], ids=NAMES)
def test_errors_of_shapes(score):
    with pytest.raises(ValueError, match="at least two classes"):
        jax.jit(score)(np.ones((3, 2, 1)))
    if score in SEVERAL:
        for shape in [(7, C), (0, 7, C), (C,)]:
            with pytest.raises(ValueError, match=r"expected \[passes, examples, cl"):
                score(np.ones(shape))
    else:
        with pytest.raises(ValueError, match=r"got probs of shape \(\)"):
            score(0.5)


def test_errors_of_labels():
    logs = np.zeros((3, C))
    with pytest.raises(ValueError, match=r"expected labels of shape \(3,\)"):
        cross_entropy(logs, np.zeros((3, 1), np.int32))
    with pytest.raises(ValueError, match="float32, expected integers"):
        cross_entropy(logs, jnp.zeros(3))


def test_errors_of_gradients():
    params = {"w": jnp.ones((C, 2))}
    with pytest.raises(ValueError, match=r"expected \[examples, classes\]"):
        expected_gradient_length(linear, params, jnp.ones((3, 2)), probs=np.ones(C))
    with pytest.raises(ValueError, match=r"expected inputs of shape \(4, ...\)"):
        expected_gradient_length(linear, params, jnp.ones((3, 2)), probs=PROBS[0, :4])
    with pytest.raises(ValueError, match="expected the same leading axes"):
        last_layer_gradient_length(np.ones((3, 2)), PROBS[0, :4])


def test_errors_of_dropout():
    def run(head, **options):
        options = {"key": jax.random.key(0), "passes": 2} | options
        return mc_dropout(lambda x: x, head, jnp.ones((2, 3)), **options)

    with pytest.raises(ValueError, match="got passes 0 and at_once 1"):
        run(lambda x, key: x, passes=0)
    with pytest.raises(ValueError, match="got passes 2 and at_once 0"):
        run(lambda x, key: x, at_once=0)
    with pytest.raises(ValueError, match=r"got logits of shape \(2,\)"):
        run(lambda x, key: x[:, 0])
    with pytest.raises(ValueError, match="at least two classes"):
        run(lambda x, key: x[:, :1])
