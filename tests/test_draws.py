import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memejax.curriculum import draws
from memejax.curriculum.draws import draw, draw_plan, importance_weights

METHODS = ("categorical", "inverse_cdf", "gumbel_top_k")
INDEPENDENT = METHODS[:2]
KEY = jax.random.key(20)
# Zeros at both ends and inside; a ratio of 150 among the rest.
PROBS = np.array([0, 0.002, 0.3, 0.05, 0, 0, 0.2, 0.1, 0.048, 0.3, 0])


def p_value(index, probs):
    """Of the chi-square test that indices were drawn by probs, none of 0 among them."""
    counts = np.bincount(np.ravel(index), minlength=len(probs))
    possible = probs > 0
    assert counts[~possible].sum() == 0
    return stats.chisquare(counts[possible], counts.sum() * probs[possible]).pvalue


@pytest.mark.parametrize("method", INDEPENDENT)
def test_independent_draws_follow_the_probabilities(method):
    plan = draw_plan(KEY, PROBS, steps=60, batch=500, method=method)
    assert plan.shape == (60, 500) and plan.dtype == np.int32
    assert p_value(plan, PROBS) > 1e-4
    # Two of the rarest in place of one, or 11 of a common one in place of 10, would
    # have been seen.
    for place, factor in ((1, 0.5), (2, 1.1)):
        wrong = PROBS.copy()
        wrong[place] *= factor
        assert p_value(plan, wrong / wrong.sum()) < 1e-4
    # Neighbours in a batch are independent, as are the first half and the second.
    pairs = plan[:, 0::2] * len(PROBS) + plan[:, 1::2]
    assert p_value(pairs, np.outer(PROBS, PROBS).ravel()) > 1e-4
    halves = [
        np.bincount(half.ravel(), minlength=11) for half in (plan[:30], plan[30:])
    ]
    table = np.array(halves)[:, PROBS > 0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_top_k_draws_as_one_by_one_would():
    """First and second index: p_i, then p_j / (1 - p_i)."""
    probs = np.array([0.5, 0.0, 0.3, 0.2])
    expected = np.zeros((4, 4))
    for i in np.flatnonzero(probs):
        for j in np.flatnonzero(probs):
            if i != j:
                expected[i, j] = probs[i] * probs[j] / (1 - probs[i])
    # Whole passes of three: each is a draw of its own.
    plan = draw_plan(jax.random.key(3), probs, steps=8000, batch=3, method=METHODS[2])
    pairs = plan[:, :2]
    codes = pairs[:, 0] * 4 + pairs[:, 1]
    assert p_value(codes, expected.ravel()) > 1e-4
    # What drawing the second uniformly from the rest would give.
    naive = np.outer(probs, [1, 0, 1, 1]) / 2 * (1 - np.eye(4))
    assert p_value(codes, naive.ravel()) < 1e-4


def test_top_k_is_without_replacement():
    drawn = draw(KEY, PROBS, (7,), method="gumbel_top_k")
    assert np.array_equal(np.sort(drawn), np.flatnonzero(PROBS))
    with pytest.raises(ValueError, match="got 8 draws .* from 7 examples"):
        draw(KEY, PROBS, (4, 2), method="gumbel_top_k")
    # 2 passes of 7 and 4 of the third, which run on through the batches.
    plan = draw_plan(KEY, PROBS, steps=6, batch=3, method="gumbel_top_k").ravel()
    for start in (0, 7):
        one = plan[start : start + 7]
        assert np.array_equal(np.sort(one), np.flatnonzero(PROBS))
    assert len(set(plan[14:])) == 4
    assert not np.array_equal(plan[:7], plan[7:14])


def test_the_likely_come_early_in_a_pass():
    probs = np.repeat([1.0, 50.0], 500)
    plan = draw_plan(
        KEY, probs / probs.sum(), steps=10, batch=100, method="gumbel_top_k"
    )
    # The share of the likely half: 50 to 1 at first, what is left at the end.
    assert np.mean(plan[0] >= 500) > 0.9 and np.mean(plan[-1] >= 500) < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_a_key_gives_its_draws(method):
    make = functools.partial(draw_plan, probs=PROBS, steps=2, batch=3, method=method)
    first = make(KEY)
    assert np.array_equal(first, make(KEY))
    keys = jax.random.split(KEY, 5)
    assert len({make(key).tobytes() for key in keys}) > 2
    # A key of another implementation has words of its own.
    assert make(jax.random.key(20, impl="rbg")).shape == (2, 3)
    one = draw(KEY, PROBS, (), method=method)
    assert one.shape == () and one.dtype == jnp.int32 and PROBS[one] > 0
    assert draw(KEY, jnp.asarray(PROBS), 5, method=method).shape == (5,)
    if method in INDEPENDENT:
        assert np.array_equal(first, draw(KEY, PROBS, (2, 3), method=method))


@pytest.mark.parametrize("count, block", [(19, 1), (23, 4 * len(PROBS)), (20, 10**6)])
def test_categorical_is_traceable_and_blocks_change_nothing(count, block, monkeypatch):
    """Each draw has its own key, whatever is held at once."""
    # Each count compiles anew, and so with its own block.
    monkeypatch.setattr(draws, "CATEGORICAL_BLOCK", block)
    probs = np.stack([PROBS, PROBS[::-1]]).astype(np.float32)
    keys = jax.random.split(KEY, 2)
    drawn = jax.jit(jax.vmap(lambda k, p: draw(k, p, count, method="categorical")))
    for key, row, got in zip(keys, probs, drawn(keys, probs), strict=True):
        one = functools.partial(jax.random.categorical, mode="high")
        expected = jax.vmap(one, (0, None))(jax.random.split(key, count), jnp.log(row))
        assert np.array_equal(got, expected)
        assert np.array_equal(draw(key, row, count, method="categorical"), expected)


def test_host_methods_refuse_traced_arguments():
    for method in METHODS[1:]:
        with pytest.raises(ValueError, match=f"traced .* .{method}"):
            jax.jit(lambda p, m=method: draw(KEY, p, 2, method=m))(PROBS)
        with pytest.raises(ValueError, match=f"traced .* .{method}"):
            jax.jit(lambda k, m=method: draw(k, PROBS, 2, method=m))(KEY)


weights = st.lists(
    st.sampled_from([0.0, 0.0, 1.0, 3.0, 1e-9, 1e8]) | st.floats(0, 1),
    min_size=1,
    max_size=60,
).filter(lambda w: sum(w) > 0)


@settings(deadline=None, derandomize=True, max_examples=60, database=None)
@given(weights, st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_inverse_cdf_is_the_search_of_the_same_uniforms(weights, count, seed):
    """The guide table and the few steps along give what a search by halving gives."""
    probs = np.array(weights) / sum(weights)
    got = draw(jax.random.key(seed), probs, count, method="inverse_cdf")
    words = np.asarray(jax.random.key_data(jax.random.key(seed))).tolist()
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))
    cdf = np.cumsum(probs)
    expected = np.searchsorted(cdf, generator.random(count) * cdf[-1], side="right")
    assert np.array_equal(got, expected)
    assert np.all(probs[got] > 0)


class Uniforms:
    """A generator of the uniforms it is given."""

    def __init__(self, values):
        self.values = np.array(values)

    def random(self, count):
        taken, self.values = self.values[:count], self.values[count:]
        return taken.copy()


@pytest.mark.parametrize("zeros, times", [(1, 1), (100, 1), (100, 10)])
def test_the_ends_and_the_edges_of_the_uniforms(zeros, times):
    """With the guide table; for few draws without it; with more zeros than steps."""
    # Sums 0, .25, .25, .75, 1, 1: a uniform on an edge belongs to what follows.
    gap = [0.0] * zeros
    probs = np.array([*gap, 0.25, *gap, 0.5, 0.25, *gap])
    first, second, third = np.flatnonzero(probs)
    below = np.nextafter([0.25, 0.75, 1.0], 0)
    uniforms = Uniforms([0.0, 0.25, 0.75, *below, 1.0] * times)
    got = draws._inverse_cdf(uniforms, probs, 7 * times)  # type: ignore[arg-type]
    expected = [first, second, third, first, second, third, third]
    assert np.array_equal(got, expected * times)


@pytest.mark.parametrize("count", [10**5, 10**6])
def test_no_zero_is_drawn_from_seven_million(count):
    """Where a float32 cumulative sum returns them; with and without the guide table."""
    n = 7 * 10**6
    probs = 100.0 ** -np.random.default_rng(0).random(n, np.float32)
    probs[:1000] = probs[-1000:] = 0
    probs[2_000_000:5_000_000] = 0
    probs[1::3] = 0
    probs /= probs.sum(dtype=np.float64)
    drawn = np.asarray(draw(KEY, probs, count, method="inverse_cdf"))
    assert np.all(probs[drawn] > 0)
    groups = np.arange(n) // 70_000
    shares = np.bincount(groups, weights=probs.astype(np.float64))
    assert p_value(groups[drawn], shares / shares.sum()) > 1e-4
    # By probability instead of by place: the rarest tenth is drawn as it should be.
    rare = probs < 10**0.2 * probs[probs > 0].min()
    expected = probs[rare].sum(dtype=np.float64)
    assert stats.binomtest(int(rare[drawn].sum()), count, expected).pvalue > 1e-4


WRONG = {
    "got method 'alias'": {"method": "alias"},
    "typed key": {"key": jax.random.PRNGKey(0)},
    "and shape \\(2,\\)": {"key": jax.random.split(KEY)},
    "all at least 1": {"batch": 0},
    "got sizes \\(-1, 2\\)": {"steps": -1},
    "got probs of shape \\(1, 2\\)": {"probs": np.ones((1, 2)) / 2},
    "got probs of shape \\(0,\\)": {"probs": np.ones(0)},
    "got probs with sum 0.75": {"probs": np.full(3, 0.25)},
    "got probs with sum 1.0 and minimum -0.5": {"probs": np.array([1.5, -0.5])},
    "got probs with sum nan": {"probs": np.array([1.0, np.nan])},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_raise(message, method):
    args = dict(key=KEY, probs=PROBS, steps=2, batch=2, method=method) | WRONG[message]
    with pytest.raises(ValueError, match=message):
        draw_plan(**args)
    shape = (args.pop("steps"), args.pop("batch"))
    with pytest.raises(ValueError, match=message):
        draw(shape=shape, **args)


def test_importance_weights_by_hand():
    probs = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    index = np.array([[0, 1], [2, 3]])
    function = jax.jit(importance_weights)
    # Of the four that can be drawn: 1 / (4 p).
    for power, expected in (
        (1.0, [[0.5, 1], [2, 2]]),
        (0.5, [[0.5**0.5, 1], [2**0.5, 2**0.5]]),
    ):
        got = function(probs, index, power=power)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        np.testing.assert_allclose(
            importance_weights(probs, index, power=power), expected, rtol=1e-6
        )
    uneven = np.array([0.1, 0.2, 0.7])
    assert np.all(np.asarray(function(uneven, index % 3, power=0.0)) == 1)


def test_importance_weights_undo_the_preference():
    values = np.arange(len(PROBS)) ** 2.0
    drawn = draw_plan(KEY, PROBS, steps=100, batch=1000)
    weights = importance_weights(PROBS, drawn, power=1.0)
    mean = values[PROBS > 0].mean()
    weighted = np.asarray(weights, float) * values[drawn]
    error = weighted.std() / weighted.size**0.5
    assert abs(weighted.mean() - mean) < 4 * error
    assert abs(values[drawn].mean() - mean) > 40 * error


def test_wrong_importance_weights_raise():
    for probs, index in (
        (PROBS, [1, 4]),
        (PROBS, [11]),
        (PROBS, [-1]),
        (PROBS[None], [1]),
        (2 * PROBS, [1]),
    ):
        with pytest.raises(ValueError, match="expected"):
            importance_weights(probs, np.array(index), power=1.0)
