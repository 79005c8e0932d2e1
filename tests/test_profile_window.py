"""A window of a run in the profiler: its steps, its time, and what is said of it."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import profile
from memejax.profile import devices
from memejax.profile.stopwatch import Stopwatch


@jax.jit
def chunk_of_products(state, chunk):
    def one(state, x):
        return jnp.tanh(state @ x), {"loss": state.sum()}

    return jax.lax.scan(one, state, chunk)


def record(folder, counts, *, start, steps, between=None, where=None):
    """A recorder that was closed after chunks of so many steps; the run's state."""
    where = where or jax.devices()[0]
    recorder = profile.Recorder(
        # A function of its own: what is compiled already has no modules' names.
        jax.jit(chunk_of_products.__wrapped__),
        folder,
        start=start,
        steps=steps,
        dtype="float32",
        title="products",
    )
    state, done = jax.device_put(jnp.full((64, 64), 0.01), where), 0
    for count in counts:
        chunk = jax.device_put(jnp.full((count, 64, 64), 0.01), where)
        state, _ = recorder.of(done, count)(state, chunk)
        done += count
        if between is not None:
            between(done, state)
    recorder.close()
    return recorder, state


def products(folder):
    content = json.loads((folder / "profile.json").read_text("utf-8"))
    rows = content["warm"]["operations"]
    [row] = [row for row in rows if row["primitive"] == "dot_general"]
    return content, row


def test_a_chunk_of_another_shape_ends_a_window(tmp_path, capsys):
    """Its program bears the same name: its kernels would be those of the window."""
    counts = [4, 4, 4, 2, 4, 4]
    recorder, state = record(tmp_path, counts, start=4, steps=16)
    content, row = products(tmp_path)
    assert recorder.window is not None and content["warm"]["steps"] == 8
    assert row["calls"] == 1 and row["kernels"] == 1
    said = capsys.readouterr().out
    assert "products: the window of profile.start=4 ends before a chunk of" in said
    assert "8 of profile.steps=16 traced" in said
    expected = jnp.full((64, 64), 0.01)
    for count in counts:
        expected, _ = chunk_of_products(expected, jnp.full((count, 64, 64), 0.01))
    np.testing.assert_array_equal(state, expected)


def test_what_lies_between_calls_is_in_no_step(tmp_path):
    @jax.jit
    def evaluation(state):
        return (state @ state).sum()

    def pause(done, state):
        if done == 8:
            jax.block_until_ready(evaluation(state))
            time.sleep(0.5)

    record(tmp_path, [4, 4, 4, 4], start=4, steps=12, between=pause)
    content, row = products(tmp_path)
    assert content["warm"]["steps"] == 12
    # The pause is a dozen steps' between them; a step takes microseconds.
    assert content["between"] > 0.4 / 12 > content["seconds"]
    assert row["kernels"] == 1
    assert content["warm"]["others"] > 0
    text = (tmp_path / "profile.md").read_text("utf-8")
    assert "between calls, in which the run waited for data" in text
    assert "other programs, in no table" in text


def test_a_window_has_the_devices_of_its_process(tmp_path, monkeypatch):
    """As in the first of two processes with a device each."""
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    monkeypatch.setattr(devices, "local", lambda found: list(found)[:1])
    record(tmp_path, [4, 4], start=4, steps=4, where=whole)
    content, row = products(tmp_path)
    assert (content["devices"], content["local_devices"]) == (2, 1)
    assert row["flops_per_second"] == pytest.approx(row["flops"] / row["seconds"])


@pytest.mark.parametrize(
    ("counts", "start", "steps", "said"),
    [
        ([], 1, 1, "there were 0 steps"),
        ([4, 4], 5, 4, "there were 8 steps, and the last call began after step 4"),
        ([4, 2], 4, 4, "there were 6 steps, and no later call had the chunk shape of"),
        ([4, 4, 4], 4, 20, "open after 12 steps, 8 of profile.steps=20 traced: no t"),
    ],
)
def test_a_window_that_was_not_written_is_missed(
    tmp_path, capsys, counts, start, steps, said
):
    recorder, _ = record(tmp_path, counts, start=start, steps=steps)
    assert recorder.window is None
    assert not (tmp_path / "profile.json").exists()
    printed = capsys.readouterr().out
    assert f"products: the window of profile.start={start} " in printed
    assert said in printed


def test_a_written_window_says_nothing(tmp_path, capsys):
    recorder, _ = record(tmp_path, [4, 4, 4], start=4, steps=4)
    assert recorder.window is not None
    assert capsys.readouterr().out == ""


def test_a_stopwatch_counts_calls_side_by_side_once(monkeypatch):
    """Seconds at which three calls are done; the second begins before the first is."""
    ends = iter([4.0, 7.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ends))
    watch = Stopwatch()
    for began in (1.0, 2.0, 10.0):
        watch.add(began, jnp.zeros(()))
    watch.stop(wait=True)
    assert (watch.busy, watch.between) == (6.0 + 2.0, 3.0)


def test_a_stopwatch_leaves_errors_to_who_made_the_call():
    gone = jnp.ones(())
    gone.delete()
    watch = Stopwatch()
    watch.add(0.0, gone)
    watch.stop(wait=True)
    assert watch.busy == 0.0
