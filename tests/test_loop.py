"""The loop around a step that is a few additions."""

import dataclasses
import io
import json
import re
from concurrent import futures
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from memejax import logs, loop, profile, steps
from memejax.data import plans
from memejax.signals import Interrupted, Signals
from memejax.stage import Ahead, Evaluation, Measured, Refresh, Refreshed, Stage

OPTIONS = loop.LoopOptions(save_every=4, keep=2, log_every=5)


def traced(start, steps):
    """Options with a window in the profiler."""

    def recorder(run_chunk, path):
        title = f"sums, preset demo, {path.name}"
        return profile.Recorder(
            run_chunk, path, start=start, steps=steps, dtype="float32", title=title
        )

    return dataclasses.replace(OPTIONS, recorder=recorder)


@dataclasses.dataclass(frozen=True)
class Chunks:
    """A feeder whose chunks hold several steps, as one over device memory does."""

    plan: plans.Plan
    size: int
    given: list

    def chunks(self, start, stop=None):
        stop = len(self.plan) if stop is None else stop
        for at in range(start, stop, self.size):
            self.given.append(at)
            end = min(at + self.size, stop)
            rows = self.plan.index[at:end, 0].astype(np.float32)
            yield len(rows), jnp.asarray(rows)

    def with_plan(self, plan):
        return dataclasses.replace(self, plan=plan)


def stage(total=20, size=1, measure=lambda x: {}, **more):
    """Sums the plan's indices; the loss is the index, the metrics are `measure`'s."""

    def run_chunk(state, rows):
        def one(state, row):
            params = {"sum": state.params["sum"] + row}
            new = state.replace(step=state.step + 1, params=params)
            return new, {"loss": row, **measure(state.step)}

        return jax.lax.scan(one, state, rows)

    index = np.random.default_rng(0).integers(1, 100, (total, 1)).astype(np.int32)
    plan = plans.Plan(index, np.ones((total, 1), np.float32), np.zeros_like(index))
    state = steps.State(
        step=jnp.int32(0),
        params={"sum": jnp.float32(0)},
        batch_stats={},
        opt_state={},
        average={},
        key=jax.random.key(0),
    )
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Stage(
        init=lambda: jax.device_put(state, device),
        abstract=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state
        ),
        run_chunk=jax.jit(run_chunk),
        feeder=Chunks(plan, size, []),
        scoring=lambda split: None,
        **more,
    )


def run(one, path, evaluation=None, signals=None, options=OPTIONS):
    return loop.loop(one, options, path, signals or Signals(), evaluation)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_chunks_of_any_size_give_the_same_lines(tmp_path, size):
    one = stage(size=size)
    state, outcome = run(one, tmp_path)
    index = one.feeder.plan.index[:, 0]
    assert float(state.params["sum"]) == index.sum() and outcome["steps"] == 20
    lines = logs.read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    np.testing.assert_allclose(
        [line["loss"] for line in lines], index.reshape(4, 5).mean(1)
    )


def test_a_finished_stage_reads_no_chunk(tmp_path):
    run(stage(), tmp_path)
    again = stage()
    state, outcome = run(again, tmp_path)
    assert again.feeder.given == [] and outcome["steps"] == 20
    assert float(state.params["sum"]) == again.feeder.plan.index.sum()


def test_compiling_has_a_line_once_per_start(tmp_path, capsys):
    signals = Signals()
    signals.received = 15
    with pytest.raises(Interrupted):
        run(stage(), tmp_path / "pretrain", signals=signals)
    run(stage(), tmp_path / "pretrain")
    out = capsys.readouterr().out
    assert out.count("pretrain: compiling the step\n") == 2
    # Before the first progress of either start; a stage that has ended compiles none.
    assert out.index("compiling") < out.index("SIGTERM") < out.rindex("compiling")
    assert out.rindex("compiling") < out.index("10/20")
    run(stage(), tmp_path / "pretrain")
    assert "compiling" not in capsys.readouterr().out


def test_a_run_finds_what_was_compiled_ahead(tmp_path, caplog):
    def with_init():
        one = stage()

        def init(made=one.init):
            return made()

        drawn = jax.jit(init)
        return dataclasses.replace(
            one, init=drawn, compile_init=lambda: drawn.lower().compile()
        )

    def compiled(one, path):
        caplog.clear()
        # Of this thread alone, as the option is.
        with jax.log_compiles():
            run(one, path)
        return {name for name in ("init", "run_chunk") if f"jit({name})" in caplog.text}

    assert compiled(with_init(), tmp_path / "now") == {"init", "run_chunk"}
    one = with_init().compile_ahead()
    one.ahead.init.result(), one.ahead.step.result()
    assert compiled(one, tmp_path / "ahead") == set()


def test_nothing_is_compiled_ahead_without_a_start_that_can():
    one = stage()
    assert one.compile_ahead() is one


@pytest.mark.parametrize("which", ["init", "step"])
def test_what_compiling_ahead_raises(tmp_path, which):
    done, failed = futures.Future(), futures.Future()
    done.set_result(None)
    failed.set_exception(RuntimeError("out of memory"))
    ahead = Ahead(**({"init": done, "step": done} | {which: failed}))
    with pytest.raises(RuntimeError, match="out of memory"):
        run(dataclasses.replace(stage(), ahead=ahead), tmp_path)


def test_a_terminal_shows_a_bar_and_lines_above_it(tmp_path, capsys, monkeypatch):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(logs, "terminal", lambda: console)
    one = stage(size=2, measure=panel(99), eval_every=10)
    run(one, tmp_path / "pretrain", scores([5, 6]))
    # Before the first update there is no bar.
    assert capsys.readouterr().out == "pretrain: compiling the step\n"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    assert "  dev at step 10: auroc/average 0.5000" in lines
    assert any(line.startswith("WARNING: COLLAPSED at step 5: cnn") for line in lines)
    assert re.fullmatch(r"pretrain ━+ 20/20 .* loss \S+", [x for x in lines if x][-1])
    assert "ETA" not in text


def test_a_resumed_stage_makes_no_first_state(tmp_path):
    """There may be no room for two, and checkpoints to start from may be gone."""
    signals = Signals()
    signals.received = 15
    with pytest.raises(Interrupted):
        run(stage(), tmp_path, signals=signals)

    def init():
        raise AssertionError("a first state is made")

    one = stage()
    state, _ = run(dataclasses.replace(one, init=init), tmp_path)
    assert float(state.params["sum"]) == one.feeder.plan.index.sum()


def test_the_saved_plan_is_followed_not_the_new_one(tmp_path):
    """A plan made from a model's scores cannot be made again."""
    first = stage()
    signals = Signals()
    signals.received = 15
    with pytest.raises(Interrupted) as caught:
        run(first, tmp_path, signals=signals)
    assert caught.value.code == 128 + 15
    other = stage()
    changed = dataclasses.replace(other.feeder.plan, index=other.feeder.plan.index * 0)
    feeder = dataclasses.replace(other.feeder, plan=changed)
    state, _ = run(dataclasses.replace(other, feeder=feeder), tmp_path)
    assert float(state.params["sum"]) == first.feeder.plan.index.sum()


def test_averages_span_an_interruption(tmp_path):
    """Stopped after step 1 of 5 of a line: the line is that of a whole run."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(stage(), whole)
    signals = Signals()
    signals.received = 2
    with pytest.raises(Interrupted):
        run(stage(), cut, signals=signals)
    run(stage(), cut)
    lines = [logs.read_metrics(w / "metrics.jsonl") for w in (whole, cut)]
    for a, b in zip(*lines, strict=True):
        assert {**a, "clock": 0} == {**b, "clock": 0}


@pytest.mark.parametrize("size", [1, 4])
def test_a_bad_loss_names_its_step_and_is_not_saved(tmp_path, size):
    one = stage(size=size)
    one.feeder.plan.index[10] = -1

    def run_chunk(state, rows):
        state, metrics = one.run_chunk(state, rows)
        bad = jnp.where(metrics["loss"] < 0, jnp.inf, metrics["loss"])
        return state, {"loss": bad}

    with pytest.raises(loop.NonFiniteLossError, match="the loss is inf at step 11"):
        run(dataclasses.replace(one, run_chunk=run_chunk), tmp_path)
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [4, 8]


def panel(collapsed_until):
    def measure(step):
        alike = step < collapsed_until
        return {
            "collapse/cnn/std": jnp.where(alike, 0.01, 0.9),
            "collapse/cnn/mean_cosine": jnp.where(alike, 0.99, 0.1),
            "collapse/cnn/effective_rank": jnp.where(alike, 1.1, 30.0),
        }

    return measure


def test_a_collapse_is_named_while_the_run_goes_on(tmp_path, capsys):
    _, outcome = run(stage(measure=panel(99)), tmp_path)
    out = capsys.readouterr().out
    assert out.count("WARNING: COLLAPSED at step 5: cnn") == 1
    assert out.index("WARNING") < out.index("10/20")
    assert outcome["collapsed"] and "cnn" in outcome["why_collapsed"][0]


def test_a_run_that_recovers_is_not_collapsed(tmp_path, capsys):
    _, outcome = run(stage(measure=panel(7)), tmp_path)
    assert "WARNING" in capsys.readouterr().out
    assert outcome["collapsed"] is False and outcome["why_collapsed"] == []
    assert outcome["panel"]["cnn/std"] == pytest.approx(0.9)


def scores(values):
    """An evaluation whose AUROC goes through `values` / 10, one an evaluation."""
    remaining = iter(values)

    def measure(_):
        rating = next(remaining) / 10
        return Measured({"auroc/average": rating}, rating)

    return Evaluation(measure, "dev")


def test_early_stop_keeps_the_best(tmp_path, capsys):
    one = stage(total=100, eval_every=5, patience=3)
    _, outcome = run(one, tmp_path, scores([5, 8, 7, 8, 6, 9, 9]))
    # Best at step 10; no better in the evaluations at 15, 20, 25.
    assert outcome["steps"] == 25 and outcome["best_step"] == 10
    assert outcome["best"] == 0.8
    assert "no better auroc in 3 evaluations" in capsys.readouterr().out
    kept = {int(p.name) for p in (tmp_path / "checkpoints").iterdir()}
    assert 10 in kept and 25 in kept


def refreshing(size, at=(6, 14)):
    """A stage whose plan from some steps on is drawn from the sum until then."""

    def draw(state, plan, step):
        index = plan.index.copy()
        index[step:] = (
            int(state.params["sum"]) % 97 + np.arange(len(plan) - step)[:, None]
        )
        return Refreshed(
            dataclasses.replace(plan, index=index),
            {"first": float(index[step, 0])},
            {"index": index},
        )

    return stage(size=size, refresh=Refresh(at, draw))


@pytest.mark.parametrize("size", [1, 4])
def test_a_plan_is_drawn_again_from_the_state_of_then(tmp_path, size):
    one = refreshing(size)
    state, _ = run(one, tmp_path)
    before = one.feeder.plan.index[:6, 0]
    second = before.sum() % 97 + np.arange(8)
    third = (before.sum() + second.sum()) % 97 + np.arange(6)
    assert float(state.params["sum"]) == before.sum() + second.sum() + third.sum()
    lines = logs.read_metrics(tmp_path / "metrics.jsonl")
    drawn = [line for line in lines if line["split"] == "curriculum"]
    assert [(line["step"], line["first"]) for line in drawn] == [
        (6, second[0]),
        (14, third[0]),
    ]
    with np.load(tmp_path / "refreshes/14.npz") as saved:
        np.testing.assert_array_equal(saved["index"][14:, 0], third)


def test_what_was_drawn_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def cut(file, **arrays):
        write = getattr(file, "write", None) or Path(file).write_bytes
        write(b"PK")
        raise OSError("no space")

    monkeypatch.setattr(np, "savez_compressed", cut)
    with pytest.raises(OSError, match="no space"):
        run(refreshing(1), tmp_path)
    assert not (tmp_path / "refreshes/6.npz").exists()


@pytest.mark.parametrize("stop", [5, 6, 7, 13])
def test_resuming_goes_on_with_the_plan_that_was_drawn(tmp_path, stop):
    """Stopped before, at and after a refresh: the same end."""
    whole, _ = run(refreshing(1), tmp_path / "whole")
    signals = Signals()

    def measure(state):
        signals.received = 15 if int(state.step) >= stop else 0
        return Measured({}, 0.0)

    first = dataclasses.replace(refreshing(1), eval_every=1)
    with pytest.raises(Interrupted):
        run(first, tmp_path / "cut", Evaluation(measure, "dev"), signals=signals)
    state, outcome = run(refreshing(1), tmp_path / "cut")
    assert outcome["steps"] == 20
    assert float(state.params["sum"]) == float(whole.params["sum"])


def test_a_window_in_the_profiler_changes_nothing(tmp_path):
    state, outcome = run(stage(size=3), tmp_path / "plain")
    options = traced(start=5, steps=4)
    seen, outcome_seen = run(stage(size=3), tmp_path / "seen", options=options)
    assert seen.params == state.params
    assert outcome_seen["steps"] == outcome["steps"] == 20
    assert not (tmp_path / "plain/profile.json").exists()
    # In the folder of the stage's events, where TensorBoard looks for it.
    [trace] = (tmp_path / "seen").glob("plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 0
    found = json.loads((tmp_path / "seen/profile.json").read_text("utf-8"))
    # Whole chunks of three steps each, so many that the four asked for are in them.
    assert found["warm"]["steps"] == 6
    assert found["cold"] is None
    shares = [row["share_of_time"] for row in found["warm"]["by_class"]]
    assert sum(shares) == pytest.approx(1.0)
    assert "sums, preset demo, seen" in (tmp_path / "seen/profile.md").read_text()


def test_a_first_call_is_in_no_window(tmp_path):
    calls = []

    @jax.jit
    def step(state, chunk):
        jax.debug.callback(calls.append, chunk)
        return state + chunk, {}

    recorder = profile.Recorder(
        step, tmp_path, start=1, steps=1, dtype="float32", title="resumed"
    )
    # A run that goes on after 7 steps.
    state = recorder.of(7, 1)(jnp.float32(0), jnp.float32(1))[0]
    assert recorder.window is None
    state = recorder.of(8, 1)(state, jnp.float32(2))[0]
    assert recorder.window is not None and recorder.window.steps == 1
    recorder.close()
    jax.effects_barrier()
    assert (float(state), [float(x) for x in calls]) == (3, [1, 2])


def test_a_window_before_the_first_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="profile.steps=0"):
        run(stage(), tmp_path, options=traced(start=3, steps=0))
