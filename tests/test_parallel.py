"""Seeds over devices, and the feeder of data that lies on them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import feeders, parallel, steps
from memejax.data import plans


def step(state, batch):
    """Sums what it sees, weighed; the order matters."""
    seen = jnp.sum(batch["value"] * batch["weight"])
    return 0.5 * state + seen, {"loss": seen, "draw": batch["draw"].sum()}


def numbers(seeds=2, count=7):
    rng = np.random.default_rng(0)
    parts = [
        plans.from_index(rng.integers(0, 9, (count, 3)), weight=rng.random((count, 3)))
        for _ in range(seeds)
    ]
    return plans.stacked(parts), np.arange(9, dtype=np.float32)


def naive(plan, values, seed):
    state = np.float32(seed)
    for index, weight in zip(plan.index[:, seed], plan.weight[:, seed], strict=True):
        state = 0.5 * state + (values[index] * weight).sum()
    return state


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("devices", [1, 2])
def test_seeds_over_devices_are_the_seeds_one_by_one(vectorize, devices):
    plan, values = numbers(seeds=4)
    mesh = parallel.mesh(devices)
    feeder = feeders.ArrayFeeder({"value": values}, plan, mesh=mesh, marks=(4, 3))
    run = parallel.jit_seeds(
        steps.gather_steps(step), mesh, vectorize=vectorize, donate=False
    )
    state, losses, counts = jnp.arange(4.0), [], []
    for count, chunk in feeder.chunks(0):
        state, metrics = run(state, chunk["rows"], chunk["data"])
        counts.append(count)
        losses.append(metrics["loss"])
    # No chunk goes past a multiple of 4 or of 3.
    assert counts == [3, 1, 2, 1]
    assert np.concatenate(losses, axis=1).shape == (4, 7)
    np.testing.assert_allclose(state, [naive(plan, values, s) for s in range(4)], 1e-5)


def test_chunks_of_a_part_and_of_another_plan():
    plan, values = numbers()
    mesh = parallel.mesh(1)
    feeder = feeders.ArrayFeeder({"value": values}, plan, mesh=mesh, marks=(5,))
    assert [count for count, _ in feeder.chunks(2, 6)] == [3, 1]
    (_, chunk), *_ = feeder.chunks(2, 6)
    np.testing.assert_array_equal(
        chunk["rows"]["index"], plan.index[2:5].swapaxes(0, 1)
    )
    other = plans.Plan(plan.index[::-1], plan.weight, plan.draw)
    (_, chunk), *_ = feeder.with_plan(other).chunks()
    np.testing.assert_array_equal(
        chunk["rows"]["index"], other.index[:5].swapaxes(0, 1)
    )


def test_wrong_plans_marks_and_splits_are_named():
    plan, values = numbers(seeds=3)
    data = {"value": values}
    one = plans.sequential(9, batch=3)
    with pytest.raises(ValueError, match=r"\[steps, seeds, batch\], got \(3, 3\)"):
        feeders.ArrayFeeder(data, one, mesh=parallel.mesh(1), marks=(1,))
    with pytest.raises(ValueError, match="marks must be at least 1"):
        feeders.ArrayFeeder(data, plan, mesh=parallel.mesh(1), marks=(4, 0))
    with pytest.raises(ValueError, match="3 cannot be split evenly over 2 devices"):
        feeders.ArrayFeeder(data, plan, mesh=parallel.mesh(2), marks=(4,))


def test_as_many_devices_as_the_seeds_divide_into():
    sizes = [parallel.devices_for_seeds(n).size for n in (1, 2, 3, 4, 6, 10)]
    assert sizes == [1, 2, 3, 4, 3, 2]
    assert parallel.devices_for_seeds(4, 3).size == 2


def test_a_device_per_core():
    program = (
        "from memejax import parallel; parallel.device_per_core(); "
        "import jax; print(jax.device_count())"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    for asked, expected in ((None, os.cpu_count()), ("3", 3)):
        more = {} if asked is None else {"JAX_NUM_CPU_DEVICES": asked}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment | more,
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == expected


DISPATCH = """
from memejax import command_line, parallel
command_line.prepare()
import jax.numpy as jnp
mesh = parallel.mesh(4)

def step(state, batch):
    for _ in range(4):
        state = state + jnp.tanh(batch @ state).mean(0)
    return state, {}

step = parallel.jit_step(step, mesh)
state = parallel.put_state(mesh, jnp.ones((64, 64)))
batch = parallel.put_batch(mesh, jnp.ones((16, 64, 64)))
for _ in range(300):
    state, _ = step(state, batch)
print(state[0, 0])
"""


def test_four_fake_devices_do_not_wait_for_each_other_forever():
    """With a thread a device, calls dispatched ahead stand still within 100 of them."""
    environment = dict(os.environ) | {"JAX_NUM_CPU_DEVICES": "4"}
    environment.pop("PJRT_NPROC", None)
    done = subprocess.run(
        [sys.executable, "-c", DISPATCH],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # Every call adds 4 * tanh of something large.
    assert float(done.stdout) == 1 + 4 * 300


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"JAX_NUM_CPU_DEVICES": "50"}, "100"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=50"}, "100"),
        ({"JAX_NUM_CPU_DEVICES": "50", "PJRT_NPROC": "60"}, "60"),
        ({}, "None"),
    ],
)
def test_threads_for_fake_devices(given, expected):
    names = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "PJRT_NPROC")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    program = (
        "import os; from memejax import command_line, parallel; "
        "assert os.environ.get('PJRT_NPROC') in (None, '60'); "
        "command_line.prepare(); print(os.environ.get('PJRT_NPROC'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_keys_of_a_state_are_split_with_it():
    mesh = parallel.mesh(2)
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    draw = parallel.jit_seeds(
        lambda key, scale, _: scale * jax.random.normal(key),
        mesh,
        vectorize=False,
        donate=False,
    )
    expected = [2 * jax.random.normal(key) for key in keys]
    np.testing.assert_allclose(draw(keys, jnp.full(4, 2.0), {}), expected, rtol=1e-6)
