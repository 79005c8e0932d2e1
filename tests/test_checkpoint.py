import hashlib
import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import digests, parallel, steps
from memejax.checkpoint import Checkpoints, DamagedCheckpointError
from memejax.data import plans

PLAN = plans.shuffled(9, batch=2, steps=4, seed=0)


def state_at(step):
    return parallel.put_state(
        parallel.mesh(),
        steps.State(
            step=jnp.int32(step),
            params={"w": jnp.arange(6.0).reshape(2, 3) + step},
            batch_stats={},
            opt_state=({"m": jnp.full(3, 0.1 * step)}, ()),
            average={},
            key=jax.random.key(step),
        ),
    )


def save(saves, step, **more):
    saves.save(
        step,
        state_at(step),
        plan=PLAN.as_arrays(),
        position={"sum": {"loss": 0.1 + 0.2}, "step": step},
        **more,
    )


def test_round_trip_is_bitwise(tmp_path):
    with Checkpoints(tmp_path, keep=1) as saves:
        assert saves.restore_latest(state_at(0)) is None
        save(saves, 3)
    with Checkpoints(tmp_path, keep=1) as saves:
        saved = saves.restore_latest(state_at(0))
    assert saved.step == 3 and saved.position == {"sum": {"loss": 0.1 + 0.2}, "step": 3}
    for a, b in zip(
        jax.tree.leaves(saved.state), jax.tree.leaves(state_at(3)), strict=True
    ):
        assert a.dtype == b.dtype and a.sharding == b.sharding
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    for name, array in PLAN.as_arrays().items():
        np.testing.assert_array_equal(saved.plan[name], array)
        assert saved.plan[name].dtype == array.dtype


def test_last_n_and_best_stay(tmp_path):
    with Checkpoints(tmp_path, keep=2, best=["auroc"]) as saves:
        for step, rating in [
            (1, 0.6),
            (2, 0.9),
            (3, 0.9),
            (4, None),
            (5, 0.7),
            (6, 0.8),
        ]:
            save(saves, step, metrics=None if rating is None else {"auroc": rating})
        saves.wait()
        assert saves.best("auroc") == 2
        best = saves.best("auroc")
        left = {int(p.name) for p in tmp_path.iterdir()}
        assert left == {best, 5, 6}
        assert saves.latest == 6
        assert int(saves.restore(state_at(0), step=best).state.step) == best


def test_donating_the_state_right_after_a_save_does_not_change_it(tmp_path):
    mesh = parallel.mesh()
    bump = parallel.jit_step(
        lambda s, b: (s.replace(params={"w": s.params["w"] + 100.0}), {}), mesh
    )
    batch = parallel.put_batch(mesh, np.zeros(4, np.float32))
    with Checkpoints(tmp_path, keep=1) as saves:
        state = state_at(7)
        saves.save(7, state, plan=PLAN.as_arrays(), position={})
        for _ in range(20):
            state, _ = bump(state, batch)
        saved = saves.restore_latest(state_at(0))
    np.testing.assert_array_equal(saved.state.params["w"], state_at(7).params["w"])


def test_a_save_that_was_cut_off_is_not_seen(tmp_path):
    with Checkpoints(tmp_path, keep=2) as saves:
        save(saves, 1)
    whole = next(p for p in tmp_path.iterdir() if p.name == "1")
    # What a kill leaves behind: a folder under its temporary name.
    cut = tmp_path / "2.orbax-checkpoint-tmp"
    cut.mkdir()
    (cut / "state").mkdir()
    with Checkpoints(tmp_path, keep=2) as saves:
        assert saves.latest == 1 and whole.exists()
        save(saves, 2)
        saves.wait()
        assert saves.latest == 2


def test_a_kill_between_two_saves_loses_no_committed_one(tmp_path):
    with Checkpoints(tmp_path / "run", keep=2) as saves:
        save(saves, 1)
        # No call of wait(): a killed process makes none.
        sealed, until = tmp_path / "run" / "1" / digests.FILE, time.monotonic() + 30
        while not sealed.exists() and time.monotonic() < until:
            time.sleep(0.01)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
    with Checkpoints(tmp_path / "killed", keep=2) as saves:
        assert saves.restore_latest(state_at(0)).step == 1
        assert not saves.set_aside


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    with Checkpoints(tmp_path, keep=2) as saves:
        save(saves, 1)
        saves.wait()
        saves.save(1, state_at(5), plan=PLAN.as_arrays(), position={})
        assert int(saves.restore(state_at(0), step=1).state.step) == 1


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
    with (
        Checkpoints(tmp_path, keep=1) as saves,
        pytest.raises(FileNotFoundError, match="no checkpoint in"),
    ):
        saves.restore(state_at(0), step=None)


def files_of(checkpoint):
    return sorted(p for p in checkpoint.rglob("*") if p.is_file())


@pytest.fixture
def three(tmp_path):
    """Checkpoints of the steps 1 to 3, of which 2 is the best."""
    with Checkpoints(tmp_path, keep=3, best=["auroc"]) as saves:
        for step, rating in ((1, 0.6), (2, 0.9), (3, 0.7)):
            save(saves, step, metrics={"auroc": rating})
    return tmp_path


def flip(path, seed):
    content = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def test_every_file_of_a_checkpoint_is_verified(three, tmp_path_factory):
    """One flipped bit, an empty file or none: the one before is restored, bitwise."""
    names = [p.relative_to(three / "3") for p in files_of(three / "3")]
    assert len(names) > 8
    damages = {
        "flip": lambda path: flip(path, 0),
        "empty": lambda path: path.write_bytes(b""),
        "remove": lambda path: path.unlink(),
    }
    for i, name in enumerate(names):
        for what, damage in damages.items():
            if what == "empty" and not (three / "3" / name).stat().st_size:
                continue
            if what == "flip" and not (three / "3" / name).stat().st_size:
                continue
            copy = tmp_path_factory.mktemp("damaged") / f"{i}-{what}"
            shutil.copytree(three, copy)
            damage(copy / "3" / name)
            with Checkpoints(copy, keep=3, best=["auroc"]) as saves:
                saved = saves.restore_latest(state_at(0))
                assert saved is not None and saved.step == 2, (name, what)
                np.testing.assert_array_equal(
                    saved.state.params["w"], state_at(2).params["w"]
                )
                assert str(copy / "3") in saves.set_aside[3]
                # It can be saved again in the place of the damaged one.
                save(saves, 3)
            with Checkpoints(copy, keep=3) as saves:
                assert saves.restore_latest(state_at(0)).step == 3
            assert (copy / "3.damaged").is_dir()


def test_a_damaged_best_checkpoint_is_an_error(three):
    arrays = [p for p in files_of(three / "2/state") if p.parent.name == "d"]
    flip(max(arrays, key=lambda path: path.stat().st_size), 1)
    with (
        Checkpoints(three, keep=3, best=["auroc"]) as saves,
        pytest.raises(DamagedCheckpointError, match=r"step 2: .* is damaged$"),
    ):
        saves.restore(state_at(0), step=2)


def test_all_damaged(three):
    for step in (1, 2, 3):
        (three / str(step) / "plan" / "manifest.ocdbt").unlink()
    with Checkpoints(three, keep=3) as saves:
        assert saves.restore_latest(state_at(0)) is None
        assert set(saves.set_aside) == {1, 2, 3}


def test_a_save_without_digests_is_unfinished_unless_it_is_an_old_one(three):
    """Killed between orbax's commit and the digests, against a run of before."""
    (three / "3" / digests.FILE).unlink()
    with Checkpoints(three, keep=3) as saves:
        assert saves.restore_latest(state_at(0)).step == 2
        assert "not finished" in saves.set_aside[3]
    old = three / "2" / "_CHECKPOINT_METADATA"
    (three / "2" / digests.FILE).unlink()
    written = json.loads(old.read_text("utf-8"))
    del written["custom_metadata"]["sealed"]
    old.write_text(json.dumps(written), "utf-8")
    with Checkpoints(three, keep=3) as saves:
        assert saves.restore_latest(state_at(0)).step == 2


def test_large_files_are_verified_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_PART", 1000)
    data = bytearray(range(256)) * 10
    (tmp_path / "arrays").write_bytes(data)
    digests.write(tmp_path)
    assert digests.problem(tmp_path) is None
    for place in (0, 999, 1000, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        (tmp_path / "arrays").write_bytes(damaged)
        assert "arrays is damaged" in digests.problem(tmp_path)
    # Of an earlier memejax: one SHA-256.
    earlier = {"arrays": hashlib.sha256(data).hexdigest()}
    (tmp_path / digests.FILE).write_text(json.dumps(earlier))
    assert "arrays is damaged" in digests.problem(tmp_path)
    (tmp_path / "arrays").write_bytes(data)
    assert digests.problem(tmp_path) is None
