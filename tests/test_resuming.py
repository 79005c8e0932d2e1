"""A run that was killed or stopped goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from support import ROOT, tiny

from memejax import datasets, logs, train
from memejax.checkpoint import Checkpoints
from memejax.stages import finetune
from memejax.stages.parts.training import devices


def lines_without_clock(path):
    return [
        {k: v for k, v in line.items() if k != "clock"}
        for line in logs.read_metrics(path)
    ]


def last_state(where, config, seed=0):
    """The raw arrays of the last checkpoint of a fine-tuning stage."""
    data = datasets.load(config, where)
    stage = finetune.make(config, data, seed=seed, mesh=devices(config))
    with Checkpoints(where / str(seed) / "finetune/checkpoints", keep=2) as saves:
        state = saves.restore(stage.abstract, step=saves.latest).state
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


PROGRAM = """
import json, sys
sys.path.insert(0, {tests!r})
import conftest  # fake devices
from support import tiny
from memejax import train
train.run(tiny(**json.loads(sys.argv[2])), sys.argv[1])
"""


def start(where, **changes):
    program = PROGRAM.format(tests=str(ROOT / "tests"))
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(where), json.dumps(changes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def kill_when(process, reached, number=signal.SIGKILL):
    """Sends a signal as soon as `reached()` is true; the process must still live."""
    deadline = time.monotonic() + 900
    while not reached():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not come that far"
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate()[0]


def has_line(path, step):
    """Whether the run's metrics have come to a step."""

    def reached():
        if not path.exists():
            return False
        done = path.read_text().splitlines()
        return any(
            json.loads(line)["step"] >= step for line in done if line.endswith("}")
        )

    return reached


def test_killed_three_times_and_resumed_is_the_run_never_killed(finished, tmp_path):
    """SIGKILL at three random steps: bitwise the same parameters and metrics."""
    whole, results = finished
    where = tmp_path / "killed"
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    moments = [("pretrain", s) for s in (3, 6, 9, 12)]
    moments += [("finetune", s) for s in (3, 4, 6, 8, 9)]
    chosen = sorted(rng.choice(len(moments), 3, replace=False))
    print("killed at", [moments[i] for i in chosen])
    for stage, step in (moments[i] for i in chosen):
        saved = where / "0" / stage / "checkpoints" / str(step)
        kill_when(start(where), saved.exists)
        assert not (where / "results.json").exists()
    process = start(where)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    # The last kill may have come between a stage's first checkpoint and its digests.
    assert "resumes after step" in output or "was not finished" in output
    for stage in ("pretrain", "finetune"):
        name = f"0/{stage}/metrics.jsonl"
        assert lines_without_clock(where / name) == lines_without_clock(whole / name)
    states = [last_state(w, tiny()) for w in (whole, where)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    again = json.loads((where / "results.json").read_text())
    assert again["summary"] == json.loads(json.dumps(results))["summary"]
    outcomes = again["seeds"]["0"].values()
    assert again["seconds"] >= round(sum(o.get("seconds", 0.0) for o in outcomes), 2)


def test_sigterm_saves_and_says_so(finished, tmp_path):
    whole, _ = finished
    where = tmp_path / "stopped"
    process = start(where, **{"checkpoint.every": 1000})
    line = has_line(where / "0/pretrain/metrics.jsonl", 5)
    output = kill_when(process, line, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "SIGTERM received, saved after step" in output
    taken = json.loads((where / "starts.json").read_text())
    began = time.perf_counter()
    results = train.run(tiny(), where)
    assert results["seeds"]["0"]["pretrain"]["steps"] == 12
    both = taken["seconds"] + time.perf_counter() - began
    assert taken["seconds"] < results["seconds"] <= both + 0.01
    assert results["peak_memory_gb"] >= taken["peak_memory_gb"] > 0.1
    name = "0/pretrain/metrics.jsonl"
    assert lines_without_clock(where / name) == lines_without_clock(whole / name)
