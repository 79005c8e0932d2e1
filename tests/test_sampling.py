import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from memejax.curriculum import (
    achieved_ratio,
    class_shares,
    effective_sample_size,
    sampling_probs,
    temperature,
    temperature_search,
    unique_fraction,
)

N = 16
FAVOURS = ("easy", "hard")
# One compilation for all examples of a property.
jitted = jax.jit(sampling_probs, static_argnames=("favour", "winsorize"))
prop = settings(deadline=None, derandomize=True, max_examples=30, database=None)
ratios = st.floats(0.0001, 18.4206).map(lambda x: float(np.exp(x))) | st.sampled_from(
    [1.0001, 2.0, 1e8]
)
# Multiples of 1/64: differences are exact in float32, so tolerances are ratios' own.
uncertainties = st.lists(
    st.integers(-640, 640), min_size=N, max_size=N, unique=True
).map(lambda x: np.array(x, np.float64) / 64)


def reference(u, favour, ratio, floor):
    """The softmax at the closed-form temperature, in float64."""
    u = np.asarray(u, np.float64)
    tau = max(floor, np.ptp(u) / np.log(ratio))
    return special.softmax((u if favour == "hard" else -u) / tau)


@prop
@given(uncertainties, ratios, st.sampled_from(FAVOURS), st.floats(0, 3))
def test_probs_are_the_softmax_at_the_temperature(u, ratio, favour, floor):
    got = jitted(u, favour=favour, max_ratio=ratio, min_temperature=floor)
    assert got.dtype == jnp.float32
    # ln R = 18 amplifies the rounding of u's place between min and max.
    expected = reference(u, favour, ratio, floor)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(got, float).sum(), 1, rtol=1e-6)


@prop
@given(uncertainties, ratios)
def test_ratio_is_met_and_bounds_hold(u, ratio):
    probs = jitted(u, favour="hard", max_ratio=ratio, min_temperature=0.0)
    got = np.asarray(probs, np.float64)
    # R, two weights, a sum and two quotients are rounded: a few parts in 2^24.
    np.testing.assert_allclose(got.max() / got.min(), ratio, rtol=3e-7)
    np.testing.assert_allclose(achieved_ratio(probs), ratio, rtol=3e-7)
    slack = 1e-6
    assert got.min() >= (1 - slack) / (1 + ratio * (N - 1))
    assert got.max() <= (1 + slack) * ratio / (ratio + N - 1)
    bound = 4 * ratio / (1 + ratio) ** 2
    assert effective_sample_size(probs, share=True) >= bound * (1 - slack)


@prop
@given(uncertainties, ratios)
def test_easy_is_the_mirror_of_hard(u, ratio):
    hard, easy = (
        np.asarray(jitted(u, favour=f, max_ratio=ratio, min_temperature=0.5), float)
        for f in ("hard", "easy")
    )
    products = hard * easy
    np.testing.assert_allclose(products, products[0], rtol=2e-5)
    assert np.all(np.diff(hard[np.argsort(u)]) >= 0)
    assert hard[np.argmax(u)] > hard[np.argmin(u)]
    np.testing.assert_allclose(
        hard.max() / hard.min(), easy.max() / easy.min(), rtol=1e-6
    )


@prop
@given(
    uncertainties, ratios, st.integers(-4, 4).map(lambda k: 2.0**k), st.floats(-4, 4)
)
def test_a_scale_and_an_offset_change_nothing(u, ratio, scale, offset):
    args = dict(favour="easy", max_ratio=ratio, min_temperature=0.0)
    moved = jitted(1.7 * scale * u + offset, **args)
    np.testing.assert_allclose(moved, jitted(u, **args), rtol=1e-4)


@pytest.mark.parametrize("favour", FAVOURS)
@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_ratio_one_and_equal_scores_are_uniform_bit_for_bit(favour, floor):
    for n in (1, 3, 49, 1000):
        exact = np.full(n, np.float32(1) / np.float32(n))
        u = np.random.default_rng(n).normal(size=n)
        for values, ratio in ((u, 1.0), (np.full(n, 0.3), 7.0), (0 * u, 1.0)):
            got = jitted(values, favour=favour, max_ratio=ratio, min_temperature=floor)
            assert np.array_equal(got, exact)
        eager = sampling_probs(u, favour=favour, max_ratio=1, min_temperature=floor)
        assert np.array_equal(eager, exact)
    assert jitted(u, favour=favour, max_ratio=2.0, min_temperature=0.0)[0] != exact[0]


def test_masked_rows_leave_no_trace():
    u = np.array([0.5, np.nan, -1.0, np.inf, 2.0, -1e30])
    where = np.array([1, 0, 1, 0, 1, 0], bool)
    kept = [0.5, -1.0, 2.0]
    for ratio, floor, q in ((9.0, 0.0, None), (9.0, 2.0, None), (9.0, 0.0, 0.25)):
        clipped = kept if q is None else np.clip(kept, *np.quantile(kept, [q, 1 - q]))
        got = jitted(
            u,
            favour="hard",
            max_ratio=ratio,
            min_temperature=floor,
            winsorize=q,
            where=where,
        )
        assert not np.any(got[~where])
        np.testing.assert_allclose(
            got[where], reference(clipped, "hard", ratio, floor), rtol=1e-5
        )
    got = jitted(u, favour="easy", max_ratio=1.0, min_temperature=0.0, where=where)
    assert np.array_equal(got[where], np.full(3, np.float32(1) / np.float32(3)))
    tau = temperature(u, max_ratio=np.e, min_temperature=0.0, where=where)
    np.testing.assert_allclose(tau, 3.0, rtol=1e-6)
    # What a mask inside a traced program cannot raise.
    nothing = jitted(
        u, favour="hard", max_ratio=9.0, min_temperature=0.0, where=np.zeros(6, bool)
    )
    assert np.array_equal(nothing, np.zeros(6))


def test_gradient_is_finite_under_a_mask_and_at_equal_scores():
    where = jnp.array([True, True, True, False])

    def loss(u, ratio):
        probs = sampling_probs(
            u, favour="hard", max_ratio=ratio, min_temperature=0.5, where=where
        )
        return probs[0]

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    # Temperature 2 / ln 9 rules: u_0 + h raises p_0, and R - h does too.
    by_u, by_ratio = gradient(jnp.array([1.0, 0.0, 2.0, jnp.nan]), 9.0)
    assert np.all(np.isfinite(by_u)) and by_u[0] > 0 and by_u[3] == 0
    # p_0 = sqrt(R) / (1 + sqrt(R) + R), whose derivative at 9 is -8 / (6 * 169).
    np.testing.assert_allclose(by_ratio, -8 / (6 * 169), rtol=1e-5)
    # A masked row far below the others.
    by_u, _ = jax.grad(
        lambda u, r: sampling_probs(
            u, favour="easy", max_ratio=r, min_temperature=0.0, where=where
        )[0],
        argnums=(0, 1),
    )(jnp.array([1001.0, 1000.0, 1002.0, -1e4]), 9.0)
    assert np.all(np.isfinite(by_u)) and by_u[0] < 0
    by_u, by_ratio = gradient(jnp.ones(4), 9.0)
    assert np.all(np.isfinite(by_u)) and np.isfinite(by_ratio)


def test_cap_and_target():
    """Entropies of ten classes at R = 100: temperature 1 and 1/2."""
    u = np.array([0.0, 0.4, np.log(10)])
    expected = {1.0: (1.0, 10.0), 0.0: (0.5, 100.0)}
    for floor, (tau, ratio) in expected.items():
        args = dict(max_ratio=100.0, min_temperature=floor)
        np.testing.assert_allclose(temperature(u, **args), tau, rtol=1e-6)
        for favour in FAVOURS:
            got = achieved_ratio(sampling_probs(u, favour=favour, **args))
            np.testing.assert_allclose(got, ratio, rtol=1e-6)
    # At R = 5 both meet the ratio.
    for floor in expected:
        probs = sampling_probs(u, favour="hard", max_ratio=5, min_temperature=floor)
        np.testing.assert_allclose(achieved_ratio(probs), 5, rtol=1e-6)


def test_no_control_is_a_plain_softmax():
    u = np.array([0.0, 1.0, 3.0, 200.0])
    got = jitted(u, favour="hard", max_ratio=np.inf, min_temperature=2.0)
    np.testing.assert_allclose(got, special.softmax(u / 2), rtol=1e-6, atol=1e-37)
    assert temperature(u, max_ratio=np.inf, min_temperature=2.0) == 2.0


def test_a_ratio_for_each_row_under_vmap():
    u = np.random.default_rng(0).normal(size=(4, 30))
    given_ratios = np.array([1.0, 1.5, 40.0, 1e8])
    by_row = functools.partial(sampling_probs, favour="easy", min_temperature=0.0)
    got = jax.jit(jax.vmap(lambda u, r: by_row(u, max_ratio=r)))(u, given_ratios)
    assert np.array_equal(got[0], np.full(30, np.float32(1) / np.float32(30)))
    for row, values, ratio in zip(got[1:], u[1:], given_ratios[1:], strict=True):
        np.testing.assert_allclose(
            row, reference(values, "easy", ratio, 0), rtol=1e-4, atol=1e-12
        )


def test_winsorizing_clips_to_quantiles():
    u = np.append(np.random.default_rng(1).normal(size=40), [500.0, -80.0])
    args = dict(favour="easy", max_ratio=10.0, min_temperature=0.0)
    for q in (0.05, 0.1, 0.33):
        clipped = np.clip(u, *np.quantile(u, [q, 1 - q]))
        got = jitted(u, winsorize=q, **args)
        np.testing.assert_allclose(got, reference(clipped, "easy", 10, 0), rtol=1e-4)
    np.testing.assert_allclose(jitted(u, winsorize=0.0, **args), jitted(u, **args))
    # The outliers hold the ratio alone, until they are clipped.
    plain, clipped = (jitted(u, winsorize=q, **args)[:40] for q in (None, 0.1))
    assert achieved_ratio(plain) < 1.1 and achieved_ratio(clipped) > 9.9


WRONG = {
    "expected 'easy' or 'hard'": {"favour": "difficult"},
    "got max_ratio 0.5": {"max_ratio": 0.5},
    "got max_ratio nan": {"max_ratio": np.nan},
    "got max_ratio 1e\\+300": {"max_ratio": 1e300},
    "got max_ratio of shape": {"max_ratio": np.ones(3)},
    "got min_temperature -1": {"min_temperature": -1.0},
    "got min_temperature nan": {"min_temperature": np.nan},
    "inf with min_temperature 0": {"max_ratio": np.inf, "min_temperature": 0},
    "got winsorize 0.5": {"winsorize": 0.5},
    "got winsorize -0.1": {"winsorize": -0.1},
    "1 of 3 uncertainties": {"u": np.array([0.0, np.nan, 1.0])},
    "2 of 3 uncertainties": {"u": np.array([-np.inf, np.inf, 1.0])},
    "1 of 2 uncertainties": {
        "u": np.array([np.inf, np.inf, 1.0]),
        "where": np.array([True, False, True]),
    },
    "got u of shape": {"u": np.ones((3, 2))},
    "got where of shape": {"where": np.ones(4, bool)},
    "without any example": {"where": np.zeros(3, bool)},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_raise(message):
    args = dict(favour="hard", max_ratio=2.0, min_temperature=0.0, u=np.arange(3.0))
    with pytest.raises(ValueError, match=message):
        sampling_probs(**(args | WRONG[message]))


def test_concrete_values_are_checked_inside_a_traced_program():
    defaults = dict(u=np.arange(3.0), favour="hard", max_ratio=2.0, min_temperature=0.0)

    def program(factor, **change):
        return factor * sampling_probs(**(defaults | change))

    assert jax.jit(program)(2.0).shape == (3,)
    for change in (
        {"u": np.array([0.0, np.nan, 1.0])},
        {"max_ratio": np.inf},
        {"where": np.zeros(3, bool)},
    ):
        with pytest.raises(ValueError, match="expected"):
            jax.jit(functools.partial(program, **change))(2.0)


def test_wrong_traced_values_give_nan():
    u = np.arange(3.0)
    for values, ratio, floor in (
        (u, 0.5, 0.0),
        (u, np.nan, 1.0),
        (u, np.inf, 0.0),
        (u, 2.0, -1.0),
        (np.array([0.0, np.inf, 1.0]), 2.0, 0.0),
        (np.array([0.0, np.nan, 1.0]), 2.0, 0.0),
    ):
        for favour in FAVOURS:
            got = jitted(values, favour=favour, max_ratio=ratio, min_temperature=floor)
            assert np.all(np.isnan(got))


@prop
@given(st.floats(0, 60), ratios.filter(lambda r: r > 1.01), st.floats(0.1, 3))
def test_search_agrees_with_the_closed_form_to_an_increment(spread, ratio, start):
    u = np.array([0.25, 0.25 + spread])
    found = temperature_search(u, max_ratio=ratio, start=start, increment=0.01)
    closed = float(temperature(u, max_ratio=ratio, min_temperature=start))
    assert closed * (1 - 1e-5) <= found <= closed * (1 + 1e-5) + 0.01
    assert np.exp(np.ptp(u) / found) <= ratio * (1 + 1e-12)


@prop
@given(
    st.integers(0, 2**31),
    st.floats(0.1, 60),
    ratios.filter(lambda r: r > 1.01),
    st.floats(0.1, 3),
    st.sampled_from(["easy", "hard"]),
)
def test_increments_are_those_of_the_search(seed, spread, ratio, start, favour):
    """Probabilities are a softmax at the temperature that the search finds."""
    u = np.random.default_rng(seed).uniform(0, spread, 7)
    tau = temperature_search(u, max_ratio=ratio, start=start, increment=0.01)
    got = np.asarray(
        sampling_probs(
            u, favour=favour, max_ratio=ratio, min_temperature=start, increment=0.01
        ),
        np.float64,
    )
    candidates = []
    # Rounding to float32 may miss or add one increment.
    for step in (-1, 0, 1):
        s = (u if favour == "hard" else -u) / (tau + 0.01 * step)
        p = np.exp(s - s.max())
        candidates.append(p / p.sum())
    near = min(np.abs(got - p).max() for p in candidates)
    assert near < 2e-6
    assert got.max() / got.min() <= ratio * (1 + 1e-4)


def test_a_ratio_of_one_by_increments_is_uniform():
    options = dict(favour="easy", min_temperature=1.0, increment=0.01)
    got = sampling_probs(np.array([0.0, 5.0, 2.0]), max_ratio=1.0, **options)
    np.testing.assert_allclose(got, 1 / 3, rtol=1e-6)
    free = sampling_probs(np.array([0.0, 1.0]), max_ratio=np.inf, **options)
    np.testing.assert_allclose(free, np.exp([0, -1]) / (1 + np.exp(-1)), rtol=1e-6)
    with pytest.raises(ValueError, match="got increment -1"):
        sampling_probs(
            np.ones(2), favour="easy", max_ratio=2, min_temperature=1, increment=-1
        )


def test_search_by_hand_and_far():
    # 4 / ln 10 = 1.7372.
    np.testing.assert_allclose(temperature_search([0.0, 4.0], max_ratio=10), 1.74)
    assert temperature_search([0.0, 1.0], max_ratio=10) == 1
    assert temperature_search([2.0, 2.0], max_ratio=1) == 1
    # 500 / ln 1.5 = 1233.15: 123,216 increments.
    far = temperature_search([0.0, 500.0], max_ratio=1.5)
    np.testing.assert_allclose(far, 1233.16, rtol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"u": [0.0, np.nan]},
        {"u": []},
        {"max_ratio": 0.9},
        {"max_ratio": np.nan},
        {"start": 0.0},
        {"increment": 0.0},
    ],
    ids=str,
)
def test_wrong_searches_raise(change):
    with pytest.raises(ValueError, match="expected"):
        temperature_search(**({"u": [0.0, 1.0], "max_ratio": 2.0} | change))


def test_a_search_without_end_raises(monkeypatch):
    # The package has the function under the name of the module.
    module = sys.modules["memejax.curriculum.temperature"]
    monkeypatch.setattr(module, "MAX_INCREMENTS", 1000)
    with pytest.raises(ValueError, match="1000 increments"):
        temperature_search([0.0, 1.0], max_ratio=1.0)


def test_effective_sample_size():
    probs = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
    size = jax.jit(effective_sample_size)
    np.testing.assert_allclose(size(probs), 1 / 0.3, rtol=1e-6)
    np.testing.assert_allclose(size(1e-25 * probs), 1 / 0.3, rtol=1e-6)
    np.testing.assert_allclose(
        effective_sample_size(probs, share=True), 1 / 1.5, rtol=1e-6
    )
    where = np.array([1, 1, 0, 0, 0], bool)
    np.testing.assert_allclose(
        effective_sample_size(probs, share=True, where=where), 0.49 / 0.5, rtol=1e-6
    )


def test_kantorovich_bound_is_tight():
    # One part R and R parts 1: sum p = 2 R, sum p^2 = R (R + 1), of R + 1 examples.
    probs = np.array([10.0] + [1.0] * 10) / 20
    np.testing.assert_allclose(
        effective_sample_size(probs, share=True), 40 / 121, rtol=1e-6
    )


def test_achieved_ratio():
    probs = np.array([0.6, 0.0, 0.15, 0.25])
    np.testing.assert_allclose(jax.jit(achieved_ratio)(probs), 4.0, rtol=1e-6)
    where = np.array([0, 0, 1, 1], bool)
    np.testing.assert_allclose(achieved_ratio(probs, where=where), 5 / 3, rtol=1e-6)
    assert achieved_ratio(probs, where=np.ones(4, bool)) == np.inf


def test_unique_fraction():
    assert unique_fraction(np.array([[4, 4], [4, 0]]), 8) == 0.25
    assert unique_fraction(np.zeros(0, np.int32), 8) == 0
    for wrong in ([-1], [8]):
        with pytest.raises(ValueError, match="expected"):
            unique_fraction(np.array(wrong), 8)


def test_class_shares():
    probs = np.array([0.1, 0.2, 0.3, 0.4])
    labels = np.array([2, 0, -1, 2])
    shares = functools.partial(class_shares, n_classes=3)
    for function in (shares, jax.jit(shares)):
        np.testing.assert_allclose(function(probs, labels), [0.2, 0, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="labels from -1 to 3"):
        shares(probs, np.array([3, 0, -1, 2]))
    with pytest.raises(ValueError, match="expected \\(4,\\)"):
        shares(probs, np.array([0, 1]))
    # A running float32 sum of a million would be off by 1e-3.
    many = np.full(10**6, 1e-6, np.float32)
    np.testing.assert_allclose(shares(many, np.zeros(10**6, int))[0], 1, rtol=1e-5)
