import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax.data import plans

few = settings(max_examples=30, deadline=None, derandomize=True)


def test_shuffled_sees_every_example_once_an_epoch():
    plan = plans.shuffled(10, batch=4, steps=5, seed=3)
    assert plan.index.shape == (5, 4)
    flat, draws = plan.index.reshape(-1), plan.draw.reshape(-1)
    for epoch in (0, 1):
        assert sorted(flat[epoch * 10 : epoch * 10 + 10]) == list(range(10))
        assert set(draws[epoch * 10 : epoch * 10 + 10]) == {epoch}
    assert np.all(plan.weight == 1)
    # No (example, draw) twice: each draw has an augmentation of its own.
    assert len(set(zip(flat, draws, strict=True))) == 20


def test_shuffled_is_a_function_of_its_seed():
    one, same, other = (
        plans.shuffled(50, batch=5, steps=10, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.index, same.index)
    assert np.any(one.index != other.index)
    assert np.any(one.index[:10] != np.arange(50).reshape(10, 5))


def test_a_longer_run_begins_like_a_shorter_one():
    short = plans.shuffled(7, batch=3, steps=4, seed=0)
    long = plans.shuffled(7, batch=3, steps=9, seed=0)
    np.testing.assert_array_equal(short.index, long.index[:4])


def test_epochs_of_one_seed_differ():
    plan = plans.shuffled(40, batch=40, steps=2, seed=0)
    assert np.any(plan.index[0] != plan.index[1])


def test_sequential_pads_the_last_batch_with_weight_0():
    plan = plans.sequential(5, batch=3)
    np.testing.assert_array_equal(plan.index, [[0, 1, 2], [3, 4, 4]])
    np.testing.assert_array_equal(plan.weight, [[1, 1, 1], [1, 1, 0]])
    assert plan.index.dtype == np.int32 and plan.weight.dtype == np.float32


def test_row_is_one_batch():
    row = plans.sequential(5, batch=3).row(1)
    np.testing.assert_array_equal(row["index"], [3, 4, 4])
    np.testing.assert_array_equal(row["weight"], [1, 1, 0])
    assert set(row) == {"index", "weight", "draw"}


@pytest.mark.parametrize("n, batch, steps", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_must_be_positive(n, batch, steps):
    with pytest.raises(ValueError, match="at least 1"):
        plans.shuffled(n, batch=batch, steps=steps, seed=0)


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        plans.Plan(
            index=np.zeros((2, 3), np.int32),
            weight=np.zeros((2, 2), np.float32),
            draw=np.zeros((2, 3), np.int32),
        )


def naive_draws(index, before):
    """How often each was drawn before, one by one."""
    seen, draws = list(before), []
    for place in np.reshape(index, -1):
        draws.append(seen[place])
        seen[place] += 1
    return np.reshape(draws, np.shape(index)), seen


def same(one, other):
    for name, array in one.as_arrays().items():
        np.testing.assert_array_equal(array, other.as_arrays()[name])


def test_shuffled_is_numpys_permutations_of_seed_and_epoch():
    """Bit for bit: a run's order outlives how it is computed."""
    plan = plans.shuffled(7, batch=3, steps=6, seed=11)
    orders = [np.random.default_rng((11, epoch)).permutation(7) for epoch in range(3)]
    np.testing.assert_array_equal(
        plan.index.reshape(-1), np.concatenate(orders)[: 6 * 3]
    )
    np.testing.assert_array_equal(plan.draw.reshape(-1), [0] * 7 + [1] * 7 + [2] * 4)
    assert plan.index.dtype == plan.draw.dtype == np.int32


def test_phased_over_everything_is_shuffled():
    one = plans.phased([np.arange(9)], batch=4, steps=[7], seed=3)
    same(one, plans.shuffled(9, batch=4, steps=7, seed=3))
    # A phase of no steps leaves no trace.
    empty = [np.array([2]), np.arange(9), np.array([], np.int32)]
    same(one, plans.phased(empty, batch=4, steps=[0, 7, 0], seed=3))


@few
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    steps=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    batch=st.integers(1, 7),
    seed=st.integers(0, 2**33),
)
def test_phases_are_whole_passes_over_their_pools(sizes, steps, batch, seed):
    steps = steps[: len(sizes)]
    if not any(steps):
        steps[0] = 1
    rng = np.random.default_rng(0)
    pools = [rng.choice(20, size, replace=False) for size in sizes]
    plan = plans.phased(pools, batch=batch, steps=steps, seed=seed)
    assert plan.index.shape == (sum(steps), batch)
    starts = np.cumsum([0, *steps])
    for pool, start, stop in zip(pools, starts, starts[1:], strict=False):
        flat = plan.index[start:stop].reshape(-1)
        for begin in range(0, len(flat), len(pool)):
            one_pass = flat[begin : begin + len(pool)]
            if len(one_pass) == len(pool):
                assert sorted(one_pass) == sorted(pool)
            else:  # the phase's last, cut short
                assert len(set(one_pass)) == len(one_pass)
                assert set(one_pass) <= set(pool)
    draws, _ = naive_draws(plan.index, np.zeros(20, int))
    np.testing.assert_array_equal(plan.draw, draws)


def test_passes_of_different_phases_have_orders_of_their_own():
    plan = plans.phased([np.arange(30)] * 2, batch=30, steps=[1, 1], seed=0)
    assert np.any(plan.index[0] != plan.index[1])
    np.testing.assert_array_equal(plan.draw, [[0] * 30, [1] * 30])


@pytest.mark.parametrize(
    "pools, steps, message",
    [
        ([[0, 1], []], [1, 2], "pool 1 is empty and has 2 steps"),
        ([[0, 1], [0, 0]], [1, 1], "pool 1 holds a place twice"),
        ([[0, -1]], [1], "places -1 to 0"),
        ([[0.5]], [1], "float64"),
        ([[0]], [1, 1], "1 pools and 2 numbers"),
        ([[0], [1]], [3, -1], r"\[3, -1\]"),
        ([[0]], [0], "at least 1"),
        ([], [], "at least 1"),
    ],
)
def test_wrong_phases_are_named(pools, steps, message):
    with pytest.raises(ValueError, match=message):
        plans.phased([np.array(p) for p in pools], batch=2, steps=steps, seed=0)


def test_from_index_by_hand():
    plan = plans.from_index([[4, 1, 4], [4, 0, 1]], before=[0, 5, 0, 0, 2])
    np.testing.assert_array_equal(plan.draw, [[2, 5, 3], [4, 0, 6]])
    np.testing.assert_array_equal(plan.weight, np.ones((2, 3)))
    assert plan.draw.dtype == plan.index.dtype == np.int32
    assert plan.weight.dtype == np.float32
    weighted = plans.from_index([[0, 1]], weight=np.array([[0.5, 2.0]]))
    np.testing.assert_array_equal(weighted.weight, [[0.5, 2.0]])


@few
@given(
    index=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    before=st.lists(st.integers(0, 9), min_size=7, max_size=7),
)
def test_draws_count_on_from_before(index, before):
    index = np.array(index[: len(index) // 2 * 2]).reshape(-1, 2)
    plan = plans.from_index(index, before=np.array(before))
    draws, seen = naive_draws(index, before)
    np.testing.assert_array_equal(plan.draw, draws)
    np.testing.assert_array_equal(plans.counts(plan, 7, before=before), seen)


def test_counts_carry_a_run_from_plan_to_plan():
    """Two plans, the second counting on from the first, are the plan of both."""
    index = np.random.default_rng(0).integers(0, 9, (8, 5))
    whole = plans.from_index(index)
    first, middle = plans.from_index(index[:3]), plans.counts(whole, 9, stop=3)
    np.testing.assert_array_equal(plans.counts(first, 9), middle)
    second = plans.from_index(index[3:], before=middle)
    np.testing.assert_array_equal(second.draw, whole.draw[3:])
    assert plans.counts(whole, 9, stop=0).tolist() == [0] * 9
    assert middle.dtype == np.int32


@pytest.mark.parametrize(
    "index, options, message",
    [
        ([[0.5]], {}, "float64"),
        ([1, 2], {}, r"\(2,\)"),
        ([[-1]], {}, "places -1"),
        ([[3]], {"before": [0, 0, 0]}, "0 to below 3"),
        ([[0]], {"before": [0.5]}, "float64"),
        ([[0]], {"before": [[0]]}, r"\(1, 1\)"),
        ([[0, 1]], {"weight": [[1.0]]}, r"\(1, 2\).*\(1, 1\)"),
    ],
)
def test_wrong_draws_are_named(index, options, message):
    with pytest.raises(ValueError, match=message):
        plans.from_index(index, **options)


def test_seeds_are_stacked():
    each = [plans.shuffled(6, batch=4, steps=5, seed=s) for s in (0, 1, 2)]
    plan = plans.stacked(each)
    assert plan.index.shape == (5, 3, 4) and len(plan) == 5 and plan.batch == 4
    for seed, one in enumerate(each):
        for name, array in plan.row(2).items():
            assert array.shape == (3, 4)
            np.testing.assert_array_equal(array[seed], one.row(2)[name])
    counted = plans.counts(plan, 6, before=np.ones((3, 6), int), stop=3)
    for seed, one in enumerate(each):
        naive = 1 + np.bincount(one.index[:3].reshape(-1), minlength=6)
        np.testing.assert_array_equal(counted[seed], naive)


def test_stacked_plans_have_one_shape():
    one, other = (plans.shuffled(6, batch=4, steps=s, seed=0) for s in (5, 6))
    with pytest.raises(ValueError, match=r"\(5, 4\), \(6, 4\)"):
        plans.stacked([one, other])
    with pytest.raises(ValueError, match=r"shapes \[\]"):
        plans.stacked([])
    with pytest.raises(ValueError, match=r"\(5, 1, 4\)"):
        plans.stacked([plans.stacked([one])])


def test_spliced_replaces_some_steps():
    plan = plans.shuffled(6, batch=2, steps=6, seed=0)
    part = plans.from_index([[5, 5], [4, 4]], weight=[[2, 2], [3, 3]])
    new = plans.spliced(plan, part, start=3)
    for name, array in new.as_arrays().items():
        old = plan.as_arrays()[name]
        np.testing.assert_array_equal(array[[0, 1, 2, 5]], old[[0, 1, 2, 5]])
        np.testing.assert_array_equal(array[3:5], part.as_arrays()[name])
        assert array.dtype == old.dtype
    # A copy: the old plan is as it was.
    same(plan, plans.shuffled(6, batch=2, steps=6, seed=0))
    seeds = plans.spliced(
        plans.stacked([plan, plan]), plans.stacked([part, part]), start=0
    )
    np.testing.assert_array_equal(seeds.index[:2, 1], part.index)


@pytest.mark.parametrize("start", [-1, 5, 6])
def test_a_part_must_fit(start):
    plan = plans.shuffled(6, batch=2, steps=6, seed=0)
    part = plans.shuffled(6, batch=2, steps=2, seed=1)
    with pytest.raises(ValueError, match="plan of 6 steps"):
        plans.spliced(plan, part, start=start)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(6, 2\)"):
        plans.spliced(plan, plans.shuffled(6, batch=3, steps=2, seed=1), start=0)


def test_counts_are_checked():
    plan = plans.shuffled(6, batch=2, steps=6, seed=0)
    with pytest.raises(ValueError, match="0 to below 5"):
        plans.counts(plan, 5)
    with pytest.raises(ValueError, match=r"\(5,\).*\(6,\)"):
        plans.counts(plan, 6, before=np.zeros(5, int))
    with pytest.raises(ValueError, match="stop 7"):
        plans.counts(plan, 6, stop=7)


def test_shapes_of_a_plan():
    flat, deep = np.zeros(3, np.int32), np.zeros((2, 2, 2, 2), np.int32)
    for wrong in (flat, deep):
        with pytest.raises(ValueError, match=r"\[steps, seeds, batch\]"):
            plans.Plan(wrong, wrong, wrong)
