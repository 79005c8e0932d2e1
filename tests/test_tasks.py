from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax.curriculum import tasks
from memejax.data import plans

few = settings(max_examples=30, deadline=None, derandomize=True)
SCORES = np.random.default_rng(0).random(40)


def test_rank_by_hand():
    u = [0.5, -1.0, 2.0, np.inf, 0.6]
    assert tasks.rank(u, order="easy_first", seed=0).tolist() == [1, 0, 3, 4, 2]
    assert tasks.rank(u, order="hard_first", seed=0).tolist() == [3, 4, 1, 0, 2]
    assert tasks.rank(u, order="easy_first", seed=0).dtype == np.int32


@few
@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    seed=st.integers(0, 2**40),
)
def test_easy_first_is_hard_first_of_the_negative(scores, seed):
    u = np.array(scores)
    easy = tasks.rank(u, order="easy_first", seed=seed)
    hard = tasks.rank(-u, order="hard_first", seed=seed)
    np.testing.assert_array_equal(easy, hard)
    # And it is an order: places are a permutation along which scores ascend.
    assert sorted(easy) == list(range(len(u)))
    assert np.all(np.diff(u[np.argsort(easy)]) >= 0)


@few
@given(seed=st.integers(0, 1000))
def test_only_the_order_of_scores_counts(seed):
    one = tasks.rank(SCORES, order="easy_first", seed=seed)
    other = tasks.rank(np.exp(9 * SCORES), order="easy_first", seed=seed)
    np.testing.assert_array_equal(one, other)


def test_ties_are_broken_by_the_seed():
    # AADT of (.85, .15, 0, ...) and of (.5, .5, 0, ...) are both 6.25.
    u = np.array([6.25] * 20 + [5.0] * 20)
    one, same, other = (tasks.rank(u, order="easy_first", seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    # The lower score still comes first, and inside a tie not by place.
    assert sorted(one[20:]) == list(range(20))
    assert np.any(np.diff(one[20:]) < 0) and np.any(np.diff(one[:20]) < 0)


def test_ties_are_not_the_order_of_the_plan():
    """A seed's first shuffle and its order among ties are different draws."""
    shuffle = plans.shuffled(40, batch=40, steps=1, seed=3).index[0]
    places = tasks.rank(np.zeros(40), order="easy_first", seed=3)
    assert np.any(shuffle != np.argsort(places)) and np.any(shuffle != places)


def test_random_order_looks_at_no_score():
    one = tasks.rank(SCORES, order="random", seed=0)
    other = tasks.rank(np.full(40, np.nan), order="random", seed=0)
    np.testing.assert_array_equal(one, other)
    assert sorted(one) == list(range(40))
    assert np.any(one != np.arange(40))
    assert np.any(one != tasks.rank(SCORES, order="random", seed=1))


def test_tasks_by_hand():
    u = [5, 4, 3, 2, 1]
    easy = tasks.curriculum_tasks(u, 2, order="easy_first", seed=0)
    hard = tasks.curriculum_tasks(u, 2, order="hard_first", seed=0)
    assert easy.tolist() == [1, 1, 0, 0, 0]
    assert hard.tolist() == [0, 0, 0, 1, 1]
    assert easy.dtype == np.int32


@few
@given(n=st.integers(1, 60), data=st.data(), order=st.sampled_from(tasks.ORDERS))
def test_tasks_are_equal_and_follow_the_rank(n, data, order):
    n_tasks = data.draw(st.integers(1, n))
    u = np.random.default_rng(n).integers(0, 5, n)
    found = tasks.curriculum_tasks(u, n_tasks, order=order, seed=n)
    sizes = np.bincount(found, minlength=n_tasks)
    assert len(sizes) == n_tasks and sizes.max() - sizes.min() <= 1
    places = tasks.rank(u, order=order, seed=n)
    assert np.all(np.diff(found[np.argsort(places)]) >= 0)


@few
@given(
    labels=st.lists(st.integers(-1, 3), min_size=6, max_size=60),
    n_tasks=st.integers(1, 6),
)
def test_tasks_are_balanced_over_classes(labels, n_tasks):
    labels = np.array(labels)
    u = np.random.default_rng(len(labels)).random(len(labels))
    found = tasks.curriculum_tasks(
        u, n_tasks, order="easy_first", seed=0, labels=labels
    )
    sizes = np.bincount(found, minlength=n_tasks)
    assert sizes.sum() == len(labels) and sizes.max() - sizes.min() <= 1
    for label in np.unique(labels):
        mine = labels == label
        inside = np.bincount(found[mine], minlength=n_tasks)
        assert inside.max() - inside.min() <= 1
        # Within a class, scores ascend with the task.
        assert np.all(np.diff(found[mine][np.argsort(u[mine])]) >= 0)


def test_balance_is_the_labels_doing():
    """One class is easier than the other: without labels tasks are one class each."""
    labels = np.repeat(["benign", "hateful"], 10)
    u = np.arange(20.0)
    plain = tasks.curriculum_tasks(u, 2, order="easy_first", seed=0)
    assert set(labels[plain == 0]) == {"benign"}
    even = tasks.curriculum_tasks(u, 2, order="easy_first", seed=0, labels=labels)
    assert even.tolist() == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5


def test_pools_are_cumulative():
    first, second, third = tasks.pools(np.array([2, 0, 1, 0, 2]))
    assert first.tolist() == [1, 3]
    assert second.tolist() == [1, 2, 3]
    assert third.tolist() == [0, 1, 2, 3, 4]
    assert first.dtype == np.int32


@few
@given(
    n=st.integers(1, 1000),
    batch=st.integers(1, 300),
    n_tasks=st.integers(1, 10),
    epochs=st.integers(1, 200),
    reading=st.sampled_from(tasks.READINGS),
)
def test_updates_sum_to_the_baselines(n, batch, n_tasks, epochs, reading):
    n_tasks = min(n, n_tasks)
    budget = epochs * -(-n // batch)
    found = tasks.curriculum_tasks(np.arange(n), n_tasks, order="easy_first", seed=0)
    sizes = [len(pool) for pool in tasks.pools(found)]
    updates = tasks.phase_updates(budget, sizes, reading=reading)
    assert sum(updates) == budget
    # Largest remainder: within 1 of the exact share, and more never to the smaller.
    weights = sizes if reading == "epochs" else [1] * n_tasks
    shares = [Fraction(budget * weight, sum(weights)) for weight in weights]
    rest = [share - count for share, count in zip(shares, updates, strict=True)]
    assert all(-1 < r < 1 for r in rest)
    raised = [share % 1 for share, r in zip(shares, rest, strict=True) if r < 0]
    lowered = [share % 1 for share, r in zip(shares, rest, strict=True) if r > 0]
    assert not raised or not lowered or min(raised) >= max(lowered)


@pytest.mark.parametrize("reading", tasks.READINGS)
def test_one_task_is_the_baseline(reading):
    found = tasks.curriculum_tasks(SCORES, 1, order="hard_first", seed=5)
    pool = tasks.pools(found)
    updates = tasks.phase_updates(23, [len(p) for p in pool], reading=reading)
    assert updates == [23]
    assert tasks.expected_visits([23], [40], batch=10).tolist() == [5.75]
    plan = plans.phased(pool, batch=7, steps=updates, seed=2)
    baseline = plans.shuffled(40, batch=7, steps=23, seed=2)
    for name, array in baseline.as_arrays().items():
        np.testing.assert_array_equal(plan.as_arrays()[name], array)


def test_the_example_of_the_thesis():
    """100 epochs of 1000 examples in 2 tasks, one example an update."""
    u = np.random.default_rng(1).random(1000)
    pool = tasks.pools(tasks.curriculum_tasks(u, 2, order="easy_first", seed=0))
    sizes = [len(p) for p in pool]
    # The naive 50 epochs a phase fall short of the baseline's 100 x 1000.
    assert sum(50 * size for size in sizes) == 75_000
    for reading in tasks.READINGS:
        assert sum(tasks.phase_updates(100_000, sizes, reading=reading)) == 100_000
    even = tasks.phase_updates(100_000, sizes, reading="updates")
    # E/t epochs: 100, then 50.
    assert [a / b for a, b in zip(even, sizes, strict=True)] == [100, 50]


@pytest.mark.parametrize(
    "reading, n_tasks, expected",
    [
        ("updates", 2, [1.5, 0.5]),
        ("epochs", 2, [4 / 3, 2 / 3]),
        ("updates", 4, [25 / 12, 13 / 12, 7 / 12, 1 / 4]),
        ("epochs", 4, [8 / 5, 6 / 5, 4 / 5, 2 / 5]),
    ],
)
def test_expected_visits_of_equal_tasks(reading, n_tasks, expected):
    """In epochs of the baseline: E (H_T - H_{s-1}), and 2E (T - s + 1)/(T + 1)."""
    sizes = [1200 * t for t in range(1, n_tasks + 1)]
    epochs, batch = 100, 2
    budget = epochs * sizes[-1] // batch
    updates = tasks.phase_updates(budget, sizes, reading=reading)
    visits = tasks.expected_visits(updates, sizes, batch=batch)
    np.testing.assert_allclose(visits / epochs, expected, rtol=1e-4)


@few
@given(
    n=st.integers(4, 50),
    n_tasks=st.integers(1, 4),
    budget=st.integers(1, 40),
    reading=st.sampled_from(tasks.READINGS),
)
def test_visits_of_a_plan_are_the_expected(n, n_tasks, budget, reading):
    u = np.random.default_rng(n).random(n)
    found = tasks.curriculum_tasks(u, n_tasks, order="easy_first", seed=0)
    pool = tasks.pools(found)
    sizes = [len(p) for p in pool]
    updates = tasks.phase_updates(budget, sizes, reading=reading)
    plan = plans.phased(pool, batch=3, steps=updates, seed=n)
    seen = np.bincount(plan.index.reshape(-1), minlength=n)
    visits = tasks.expected_visits(updates, sizes, batch=3)
    # Passes that are whole make equal visits; the last of a phase differs by below 1.
    assert np.all(np.abs(seen - visits[found]) < n_tasks)
    counts = np.diff([0, *sizes])
    np.testing.assert_allclose((counts * visits).sum(), 3 * budget)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: tasks.rank([1.0], order="easy", seed=0), "'easy'.*easy_first"),
        (lambda: tasks.rank([[1.0]], order="random", seed=0), r"\(1, 1\)"),
        (lambda: tasks.rank([], order="random", seed=0), r"\(0,\)"),
        (lambda: tasks.rank([np.nan], order="easy_first", seed=0), "1 scores.*NaN"),
        (
            lambda: tasks.curriculum_tasks([1, 2], 3, order="easy_first", seed=0),
            "3 tasks for 2 examples",
        ),
        (
            lambda: tasks.curriculum_tasks([1, 2], 0, order="easy_first", seed=0),
            "0 tasks",
        ),
        (
            lambda: tasks.curriculum_tasks(
                [1, 2], 1, order="easy_first", seed=0, labels=[1]
            ),
            r"\(1,\), expected \(2,\)",
        ),
        (lambda: tasks.pools([0, 2]), r"\[0 2\]"),
        (lambda: tasks.pools([0.0, 1.0]), "float64"),
        (lambda: tasks.phase_updates(5, [1], reading="A"), "'A'"),
        (lambda: tasks.phase_updates(-1, [1], reading="epochs"), "-1 updates"),
        (lambda: tasks.phase_updates(5, [0, 3], reading="epochs"), r"\[0, 3\]"),
        (lambda: tasks.phase_updates(5, [], reading="updates"), r"\[\]"),
        (lambda: tasks.expected_visits([1], [1, 2], batch=1), "1 numbers.*2 sizes"),
        (lambda: tasks.expected_visits([1], [1], batch=0), "batch 0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
