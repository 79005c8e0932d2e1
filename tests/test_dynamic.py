import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memejax.curriculum import dynamic
from memejax.curriculum.draws import draw_plan
from memejax.data import plans

few = settings(max_examples=30, deadline=None, derandomize=True)
KEY = jax.random.key(7)
# Sizes are few, since each one compiles anew; 49 (1 / 49) is no power of 2.
N = 49
HARD = dict(favour="hard", max_ratio=10.0, min_temperature=0.0)


def scores(n=N, seed=0):
    return np.random.default_rng(seed).random(n).astype(np.float32)


def assert_same(one, other):
    """The same draw, to the last bit of every array."""
    for name in ("index", "weight", "probs"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_schedules_by_hand():
    linear = dynamic.ratio_schedule("linear", start=9.0, end=1.0, steps=4)
    assert [linear(i) for i in (0, 1, 2, 4, 9)] == [9, 7, 5, 1, 1]
    # Linear in the logarithm: 2^6, 2^4, 2^2, 2^0.
    geometric = dynamic.ratio_schedule("geometric", start=64.0, end=1.0, steps=3)
    np.testing.assert_allclose([geometric(i) for i in range(4)], [64, 16, 4, 1])
    assert geometric(3) == 1.0 and geometric(0) == 64.0
    for value in (5.0, math.inf):
        constant = dynamic.ratio_schedule("constant", start=value, end=value, steps=3)
        assert {constant(i) for i in range(5)} == {value}


@few
@given(
    kind=st.sampled_from(["linear", "geometric"]),
    ends=st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)),
    steps=st.integers(1, 50),
)
def test_schedules_are_monotone_between_their_ends(kind, ends, steps):
    start, end = ends
    ratio = dynamic.ratio_schedule(kind, start=start, end=end, steps=steps)
    values = np.array([ratio(i) for i in range(steps + 2)])
    assert values[0] == start and values[steps] == values[-1] == end
    sign = 1 if end >= start else -1
    assert np.all(sign * np.diff(values) >= -1e-9 * max(ends))


@pytest.mark.parametrize(
    "kind, start, end, steps, message",
    [
        ("cosine", 2.0, 1.0, 3, "'cosine'.*geometric"),
        ("linear", 2.0, 0.5, 3, "2.0 to 0.5"),
        ("linear", math.nan, 1.0, 3, "nan to 1.0"),
        ("geometric", math.inf, 1.0, 3, "finite"),
        ("constant", 3.0, 2.0, 3, "constant ratio from 3.0 to 2.0"),
        ("linear", 2.0, 1.0, 0, "0 steps"),
    ],
)
def test_wrong_schedules_are_named(kind, start, end, steps, message):
    with pytest.raises(ValueError, match=message):
        dynamic.ratio_schedule(kind, start=start, end=end, steps=steps)


def test_a_schedule_has_no_step_before_0():
    ratio = dynamic.ratio_schedule("linear", start=2.0, end=1.0, steps=3)
    with pytest.raises(ValueError, match="step -1"):
        ratio(-1)


def test_refreshes_by_hand():
    assert dynamic.refresh_starts(10, warm_up=3, every=4) == (0, 3, 7)
    assert dynamic.refresh_starts(11, warm_up=3, every=4) == (0, 3, 7)
    assert dynamic.refresh_starts(12, warm_up=3, every=4) == (0, 3, 7, 11)
    assert dynamic.refresh_starts(10, warm_up=0, every=4) == (0, 4, 8)
    # A warm-up as long as the run leaves the uniform run.
    assert dynamic.refresh_starts(10, warm_up=10, every=4) == (0,)
    assert dynamic.segments(10, warm_up=10, every=4) == ((0, 10),)
    assert dynamic.segments(10, warm_up=0, every=4) == ((0, 4), (4, 8), (8, 10))


@few
@given(updates=st.integers(1, 60), warm_up=st.integers(0, 70), every=st.integers(1, 70))
def test_segments_cover_the_run(updates, warm_up, every):
    found = dynamic.segments(updates, warm_up=warm_up, every=every)
    covered = [update for start, stop in found for update in range(start, stop)]
    assert covered == list(range(updates))
    assert all(start < stop for start, stop in found)


@pytest.mark.parametrize("updates, warm_up, every", [(0, 1, 1), (5, -1, 1), (5, 1, 0)])
def test_wrong_refreshes_are_named(updates, warm_up, every):
    with pytest.raises(ValueError, match=f"warm_up {warm_up} and every {every}"):
        dynamic.segments(updates, warm_up=warm_up, every=every)


@pytest.mark.parametrize("n", [1, N])
@pytest.mark.parametrize("favour", ["easy", "hard"])
def test_ratio_1_is_uniform_bit_for_bit(n, favour):
    sizes = dict(segment=2, steps=5, batch=7)
    drawn = dynamic.redraw(
        KEY, scores(n), favour=favour, max_ratio=1.0, min_temperature=0.0, **sizes
    )
    assert_same(drawn, dynamic.uniform_draw(KEY, n, **sizes))


def test_equal_scores_are_uniform_bit_for_bit():
    """A model that knows nothing yet draws as the control does."""
    sizes = dict(segment=1, steps=5, batch=7)
    drawn = dynamic.redraw(KEY, np.full(N, 2.3, np.float32), **HARD, **sizes)
    assert_same(drawn, dynamic.uniform_draw(KEY, N, **sizes))


@pytest.mark.parametrize("method", ["inverse_cdf", "categorical", "gumbel_top_k"])
def test_ratio_1_is_uniform_by_every_method(method):
    sizes = dict(segment=1, steps=3, batch=7, method=method)
    options = dict(HARD, max_ratio=1.0)
    drawn = dynamic.redraw(KEY, scores(), **options, **sizes)
    assert_same(drawn, dynamic.uniform_draw(KEY, N, **sizes))
    assert np.any(dynamic.redraw(KEY, scores(), **HARD, **sizes).index != drawn.index)


def test_a_correction_undoes_the_preference():
    """(1 / (n p))^k of what was drawn: at k 1 the weighted counts are even."""
    u, sizes = scores(3), dict(segment=1, steps=4000, batch=5)
    full = dynamic.redraw(KEY, u, **HARD, **sizes, correction=1.0)
    half = dynamic.redraw(KEY, u, **HARD, **sizes, correction=0.5)
    inverse = 1 / (3 * full.probs.astype(np.float64))
    np.testing.assert_allclose(full.weight, inverse[full.index], rtol=1e-5)
    np.testing.assert_allclose(half.weight, np.sqrt(inverse)[half.index], rtol=1e-5)
    assert full.weight.dtype == np.float32
    # The correction changes no draw.
    np.testing.assert_array_equal(full.index, half.index)
    even = np.bincount(full.index.reshape(-1), full.weight.reshape(-1)) / 20_000
    np.testing.assert_allclose(even, 1 / 3, rtol=0.1)


def test_a_correction_of_ratio_1_corrects_nothing():
    sizes = dict(segment=1, steps=4, batch=5)
    options = dict(HARD, max_ratio=1.0, correction=1.0)
    drawn = dynamic.redraw(KEY, scores(), **options, **sizes)
    uniform = dynamic.uniform_draw(KEY, N, **sizes)
    np.testing.assert_array_equal(drawn.index, uniform.index)
    np.testing.assert_allclose(drawn.weight, uniform.weight, rtol=1e-6)


def test_an_outlier_can_be_clipped():
    u = np.append(np.linspace(0, 1, N - 1), 1e6)
    sizes = dict(segment=0, steps=2, batch=2)
    plain = dynamic.redraw(KEY, u, **HARD, **sizes)
    clipped = dynamic.redraw(KEY, u, **HARD, **sizes, winsorize=0.1)
    spread = [np.ptp(np.log(d.probs[:-1])) for d in (plain, clipped)]
    assert spread[0] < 1e-4 and spread[1] == pytest.approx(math.log(10), rel=1e-4)


def test_a_probability_of_0_is_an_infinite_ratio():
    options = dict(favour="hard", max_ratio=math.inf, min_temperature=1.0)
    u = np.array([0.0, 1e3])
    draw = dynamic.redraw(KEY, u, **options, segment=0, steps=2, batch=2)
    assert draw.diagnostics["achieved_ratio"] == math.inf
    assert set(draw.index.flat) == {1}


def run_plan(draw_of, n, *, updates, batch):
    """The plan of a whole run, segment after segment, as a trainer makes it."""
    plan = plans.from_index(np.zeros((updates, batch), np.int32))
    pairs = dynamic.segments(updates, warm_up=3, every=4)
    for number, (start, stop) in enumerate(pairs):
        draw = draw_of(number, stop - start)
        part = plans.from_index(
            draw.index, weight=draw.weight, before=plans.counts(plan, n, stop=start)
        )
        plan = plans.spliced(plan, part, start=start)
    return plan


def test_a_run_of_ratio_1_is_the_uniform_run():
    n, batch, updates = N, 13, 17

    def curriculum(number, steps, ratio):
        if number == 0:
            return dynamic.uniform_draw(KEY, n, segment=0, steps=steps, batch=batch)
        return dynamic.redraw(
            KEY,
            scores(seed=number),
            segment=number,
            steps=steps,
            batch=batch,
            favour="easy",
            max_ratio=ratio,
            min_temperature=0.0,
        )

    def control(number, steps):
        return dynamic.uniform_draw(KEY, n, segment=number, steps=steps, batch=batch)

    expected = run_plan(control, n, updates=updates, batch=batch)
    for ratio, equal in ((1.0, True), (50.0, False)):
        plan = run_plan(
            lambda number, steps, r=ratio: curriculum(number, steps, r),
            n,
            updates=updates,
            batch=batch,
        )
        # The warm-up is shared by all ratios.
        np.testing.assert_array_equal(plan.index[:3], expected.index[:3])
        for name, array in plan.as_arrays().items():
            if equal:
                np.testing.assert_array_equal(array, expected.as_arrays()[name])
        assert np.array_equal(plan.index, expected.index) == equal
    # And no draw of an example comes twice.
    pairs = np.stack([expected.index, expected.draw]).reshape(2, -1).T
    assert len(np.unique(pairs, axis=0)) == updates * batch


def test_a_segment_is_a_function_of_key_and_number():
    def drawn(key, segment):
        sizes = dict(segment=segment, steps=20, batch=3)
        return dynamic.redraw(key, scores(), **HARD, **sizes).index

    np.testing.assert_array_equal(drawn(KEY, 3), drawn(KEY, 3))
    assert np.any(drawn(KEY, 3) != drawn(KEY, 4))
    assert np.any(drawn(KEY, 3) != drawn(jax.random.key(8), 3))
    # A step folds its number into the run's key; segment 3 is not step 3.
    probs = np.full(N, 1 / N)
    step = draw_plan(jax.random.fold_in(KEY, 3), probs, steps=20, batch=3)
    segment = dynamic.uniform_draw(KEY, N, segment=3, steps=20, batch=3)
    assert np.any(segment.index != step)


@pytest.mark.parametrize("favour, expected", [("hard", [1, 3, 9]), ("easy", [9, 3, 1])])
def test_draws_follow_the_scores(favour, expected):
    """Scores 0, 1, 2 and ratio 9: probabilities as 1 to 3 to 9, and so the draws."""
    draw = dynamic.redraw(
        KEY,
        np.array([0.0, 1.0, 2.0]),
        segment=1,
        steps=400,
        batch=5,
        favour=favour,
        max_ratio=9.0,
        min_temperature=0.0,
    )
    assert draw.index.shape == draw.weight.shape == (400, 5)
    assert draw.index.dtype == np.int32
    np.testing.assert_allclose(draw.probs, np.array(expected) / 13, rtol=1e-6)
    seen = np.bincount(draw.index.reshape(-1), minlength=3)
    assert stats.chisquare(seen, 2000 * np.array(expected) / 13).pvalue > 1e-3
    np.testing.assert_array_equal(draw.weight, 1)
    # Diagnostics: 13^2 / (3 (1 + 9 + 81)), the ratio, and all three drawn.
    found = draw.diagnostics
    assert found["ess_share"] == pytest.approx(169 / 273, rel=1e-6)
    assert found["achieved_ratio"] == pytest.approx(9, rel=1e-5)
    assert found["unique_fraction"] == 1


def test_the_temperature_caps_the_ratio():
    draw = dynamic.redraw(
        KEY,
        np.array([0.0, 1.0]),
        segment=1,
        steps=2,
        batch=2,
        favour="hard",
        max_ratio=100.0,
        min_temperature=1.0,
    )
    assert draw.diagnostics["achieved_ratio"] == pytest.approx(math.e, rel=1e-5)


def test_few_draws_see_few_examples():
    draw = dynamic.uniform_draw(KEY, 1000, segment=0, steps=3, batch=4)
    assert draw.diagnostics["ess_share"] == pytest.approx(1)
    assert draw.diagnostics["achieved_ratio"] == 1
    assert draw.diagnostics["unique_fraction"] == len(set(draw.index.flat)) / 1000
    # A third of the examples stays out of an epoch of draws: (1 - 1/n)^n.
    epoch = dynamic.uniform_draw(KEY, 1000, segment=0, steps=10, batch=100)
    assert epoch.diagnostics["unique_fraction"] == pytest.approx(0.632, abs=0.04)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"segment": -1}, "segment -1"),
        ({"steps": 0}, r"\(0, 2\)"),
        ({"batch": 0}, r"\(2, 0\)"),
        ({"favour": "both"}, "both"),
        ({"max_ratio": 0.5}, "0.5"),
        ({"method": "roulette"}, "roulette"),
    ],
)
def test_wrong_draws_are_named(change, message):
    options = dict(HARD, segment=0, steps=2, batch=2) | change
    with pytest.raises(ValueError, match=message):
        dynamic.redraw(KEY, scores(), **options)


def test_a_uniform_draw_needs_examples():
    with pytest.raises(ValueError, match="0 examples"):
        dynamic.uniform_draw(KEY, 0, segment=0, steps=1, batch=1)
