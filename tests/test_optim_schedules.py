"""Schedules against PyTorch's, and against the arrays of published definitions."""

import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import optim
from memejax.optim import groups, schedules


def over(schedule, steps):
    """Its values at all steps at once, traced, as inside a scan."""
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


def test_cosine_ends_at_the_floor():
    factor = optim.schedule("cosine", steps=110, warmup=10, floor=0.2)
    got = [factor(step) for step in (0, 5, 10, 60, 110, 500)]
    np.testing.assert_allclose(got, [0.0, 0.5, 1.0, 0.6, 0.2, 0.2], atol=1e-6)


def test_cosine_cycle_by_hand():
    factor = optim.schedule("cosine_cycle", steps=100, warmup=0, floor=0.1)
    got = [factor(step) for step in (0, 8, 16, 24, 32, 48)]
    np.testing.assert_allclose(got, [1.0, 0.55, 0.1, 0.55, 1.0, 0.1], atol=1e-6)


def test_cosine_cycle_after_a_warm_up():
    factor = optim.schedule("cosine_cycle", steps=100, warmup=4, half_period=3)
    got = [factor(step) for step in (0, 1, 4, 7, 10)]
    np.testing.assert_allclose(got, [0.0, 0.25, 1.0, 0.0, 1.0], atol=1e-6)


def test_cosine_cycle_is_pytorchs():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=16, eta_min=1e-6
    )
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    factor = optim.schedule("cosine_cycle", steps=100, warmup=0, floor=1e-3)
    np.testing.assert_allclose(1e-3 * over(factor, 100), expected, atol=1e-9)


def test_cosine_cycle_holds_far_out():
    """Half way up after 31,250 periods, where pi t / 16 has lost it in float32."""
    factor = optim.schedule("cosine_cycle", steps=10**7, warmup=0)
    np.testing.assert_allclose(factor(jnp.int32(10**6 + 8)), 0.5, atol=1e-6)


@pytest.mark.parametrize(("start", "end"), [(0.996, 1.0), (0.04, 0.4)])
def test_cosine_is_the_published_array(start, end):
    steps = 37
    expected = np.array(
        [end + 0.5 * (start - end) * (1 + math.cos(math.pi * i / steps))
         for i in range(steps)]
    )  # fmt: skip
    got = over(optim.cosine(start, end, steps=steps), steps + 5)
    np.testing.assert_allclose(got[:steps], expected, rtol=1e-6)
    np.testing.assert_array_equal(got[steps:], np.float32(end))
    assert got.dtype == np.float32


def test_linear_then_constant_is_the_published_array():
    """Indexed by epoch: 5 epochs of warm-up and 3 more, of 7 updates each."""
    by_epoch = np.concatenate([np.linspace(0.04, 0.07, 5), np.full(3, 0.07)])
    schedule = optim.linear_then_constant(0.04, 0.07, steps_per_epoch=7, epochs=5)
    np.testing.assert_allclose(over(schedule, 56), np.repeat(by_epoch, 7), rtol=1e-6)


@pytest.mark.parametrize(("epochs", "first"), [(0, 0.07), (1, 0.04)])
def test_linear_then_constant_of_no_or_one_epoch(epochs, first):
    schedule = optim.linear_then_constant(0.04, 0.07, steps_per_epoch=2, epochs=epochs)
    np.testing.assert_allclose(over(schedule, 4), [first, first, 0.07, 0.07], rtol=1e-6)


def test_schedules_check_their_arguments():
    with pytest.raises(ValueError, match="floor 2.0"):
        optim.schedule("cosine", steps=10, warmup=0, floor=2.0)
    with pytest.raises(ValueError, match="half_period 0"):
        optim.schedule("cosine_cycle", steps=10, warmup=0, half_period=0)
    with pytest.raises(ValueError, match="got 0 steps"):
        optim.cosine(0.0, 1.0, steps=0)
    with pytest.raises(ValueError, match="got 0 steps per epoch and 3 epochs"):
        optim.linear_then_constant(0.0, 1.0, steps_per_epoch=0, epochs=3)


@pytest.mark.parametrize("module", [schedules, groups], ids=["schedules", "groups"])
def test_examples_run(module):
    done = doctest.testmod(module)
    assert done.attempted > 0 and done.failed == 0
