import numpy as np
import pytest

from memejax.data import plans


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
