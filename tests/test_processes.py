"""Two processes of two devices each are one process of four.

One pair of processes runs the demo on tiny models: a signal to one of them stops both,
they go on to the end, and in a second folder that began alike one is killed. This
process, alone with four devices, is the reference, and ends what the pair left.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from support import ROOT, tiny

from memejax import datasets, logs, metrics, parallel, train
from memejax.data import plans
from memejax.feeders import StreamFeeder
from memejax.parallel.rendezvous import rendezvous
from memejax.signals import Interrupted, Signals

# Captions alone, to compile less; Adam would make 1e-4 of a rounding of 1e-7.
CONFIG = {
    "model.arm.modalities": "text",
    "pretrain.optimizer.rule": "sgd",
    "pretrain.steps": 4,
    "finetune.optimizer.rule": "sgd",
    "finetune.steps": 16,
    "finetune.eval_every": 8,
    "checkpoint.every": 100,
    "log.every": 1,
}
# Process 1 sends itself SIGTERM at this update of fine-tuning. It is asked about at the
# tenth update of the run, fine-tuning's sixth, and the answer is there one later.
TERM_AT, STOPS_AT = 5, 7

PROGRAM = """
import dataclasses, json, os, shutil, signal, sys
from absl import flags
sys.path.insert(0, sys.argv.pop(1))
from support import tiny
from memejax import parallel, process_flags, train
from memejax.signals import Interrupted
from memejax.stages import finetune
where, config, term_at = sys.argv[1], tiny(**json.loads(sys.argv[2])), int(sys.argv[3])
flags.FLAGS(sys.argv[:1] + sys.argv[4:])
made = finetune.make

def fine_tuning(number, at):
    # Process 1 sends itself a signal at an update.
    def make(*args, **more):
        stage, calls = made(*args, **more), []
        def run_chunk(state, chunk):
            calls.append(0)
            if len(calls) == at and not parallel.is_first():
                os.kill(os.getpid(), number)
            return stage.run_chunk(state, chunk)
        return dataclasses.replace(stage, run_chunk=run_chunk)
    finetune.make = make

with process_flags.joined():
    assert (parallel.count(), parallel.mesh().size, parallel.mesh(1).size) == (2, 4, 2)
    assert parallel.from_first({"first": parallel.is_first()}) == {"first": True}
    fine_tuning(signal.SIGTERM, term_at)
    try:
        train.run(config, where + "/whole")
    except Interrupted as stopped:
        print("stopped with", stopped.code, flush=True)
    if parallel.is_first():
        shutil.copytree(where + "/whole", where + "/killed")
    parallel.sync("copied")
    finetune.make = made
    train.run(config, where + "/whole")
    fine_tuning(signal.SIGKILL, 5)
    train.run(config, where + "/killed")
"""


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of the runs, and of each process its output and exit status."""
    where = tmp_path_factory.mktemp("pair")
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"}
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "tests"), str(where)]
    command += [json.dumps(CONFIG), str(TERM_AT)]
    command += [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    outputs = [(where / f"output{i}").open("w") for i in range(2)]
    running = [
        subprocess.Popen(
            [*command, f"--process={i}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        for i, output in enumerate(outputs)
    ]
    try:
        lost = running[1].wait(timeout=900)
        began = time.monotonic()
        left = running[0].wait(timeout=120)
        waited = time.monotonic() - began
    finally:
        for process, output in zip(running, outputs, strict=True):
            process.kill()
            process.wait()
            output.close()
    said = [(where / f"output{i}").read_text() for i in range(2)]
    return where, said, (left, lost), waited


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run in this process."""
    where = tmp_path_factory.mktemp("alone")
    train.run(tiny(**CONFIG), where)
    return where


def assert_same_run(where, expected, *, tolerance):
    """Every loss and dev score, and the predictions, of two runs."""
    for stage in ("pretrain", "finetune"):
        got, lines = (
            logs.read_metrics(folder / "0" / stage / "metrics.jsonl")
            for folder in (where, expected)
        )
        assert [line["step"] for line in got] == [line["step"] for line in lines]
        for a, b in zip(got, lines, strict=True):
            names = {"loss", "auroc/average"} & set(b)
            assert names
            for name in names:
                assert a[name] == pytest.approx(b[name], rel=tolerance), (stage, b)
    files = sorted((expected / "0/evaluate/predictions").iterdir())
    # Two splits, of each the arms and their average.
    assert len(files) == 6
    for file in files:
        other = where / "0/evaluate/predictions" / file.name
        (ids, proba, _), (names, values, _) = map(
            metrics.read_predictions, (other, file)
        )
        assert ids == names
        np.testing.assert_allclose(proba, values, rtol=tolerance)


def test_two_processes_compute_what_one_does(pair, alone):
    where, said, *_ = pair
    assert "test_unseen" in said[0], said
    assert_same_run(where / "whole", alone, tolerance=1e-6)
    environment = json.loads((where / "whole/environment.json").read_text())
    assert environment["processes"] == 2 and len(environment["devices"]) == 4


def test_the_first_process_alone_speaks(pair):
    _, said, *_ = pair
    assert "finetune 16/16" in said[0] and "16/16" not in said[1], said


def test_a_signal_to_one_stops_all_at_one_step(pair):
    where, said, *_ = pair
    assert all(f"stopped with {128 + signal.SIGTERM}" in text for text in said), said
    assert f"SIGTERM received, saved after step {STOPS_AT}" in said[0]
    saved = where / "killed/0/finetune/checkpoints"
    assert (saved / str(STOPS_AT)).exists()


def test_a_lost_process_ends_the_other_and_one_goes_on(pair, alone, capsys):
    where, said, (left, lost), waited = pair
    assert lost == -signal.SIGKILL and waited < 60, said
    # The broken connection is told of at once; if it is not, the heartbeat ends it.
    if left == 1:
        assert "lost another process" in said[0], said
    else:
        assert left == -signal.SIGABRT and "another task died" in said[0], said
    capsys.readouterr()
    train.run(tiny(**CONFIG), where / "killed")
    assert "finetune: resumes after step" in capsys.readouterr().out
    assert_same_run(where / "killed", alone, tolerance=1e-5)


# Starting


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "h:1"}, "--processes and --process missing"),
        ({"processes": 2, "process": 0}, "go together: --coordinator missing"),
        ({"coordinator": "h:1", "processes": 2, "process": 2}, "--process=2 of"),
        ({"coordinator": "h:1", "processes": 2, "process": -1}, "--process=-1 of"),
        ({"coordinator": "h:1", "processes": 0, "process": 0}, "--processes=0"),
        ({"coordinator": "h", "processes": 2, "process": 1}, "expected HOST:PORT"),
        ({"coordinator": "h:x", "processes": 2, "process": 1}, "expected HOST:PORT"),
        ({"detect": True, "process": 1}, "--distributed finds"),
        ({"timeout": 0}, "at least 1 second, got 0"),
    ],
)
def test_wrong_flags_are_named(given, message):
    with pytest.raises(parallel.ProcessError, match=message):
        parallel.start(**given)


def test_one_process_starts_nothing():
    parallel.start()
    parallel.start(coordinator="127.0.0.1:1", processes=1, process=0)
    assert not jax.distributed.is_initialized()
    assert parallel.count() == 1 and parallel.is_first()
    assert parallel.from_first("x") == "x" and parallel.Agreement().largest(3) == 3
    ran = []
    with parallel.first_before_others("nothing"):
        ran.append(1)
    assert ran == [1]


def test_a_coordinator_that_does_not_answer_is_named():
    where = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(parallel.ProcessError, match=f"no process 0 answers at {where}"):
        parallel.start(coordinator=where, processes=2, process=1, timeout=1)
    assert time.monotonic() - began < 10


def test_the_command_says_so_in_one_line():
    command = [sys.executable, "-m", "memejax.main", "--config=configs/cass_mm.py"]
    where = f"127.0.0.1:{free_port()}"
    command += [f"--coordinator={where}", "--processes=2", "--process=1"]
    done = subprocess.run(
        [*command, "--start_timeout=1"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no process 0 answers at {where} after 1 s")
    assert done.stderr.count("\n") == 1


def meeting(port, processes, numbers, timeout=10):
    """What became of processes, threads here, that meet: number -> error or None."""
    ended = {}

    def one(number, of):
        try:
            rendezvous(
                f"127.0.0.1:{port}", processes=of, process=number, timeout=timeout
            )
            ended[number] = None
        except parallel.ProcessError as error:
            ended[number] = str(error)

    of = processes if isinstance(processes, list) else [processes] * len(numbers)
    threads = [
        threading.Thread(target=one, args=pair)
        for pair in zip(numbers, of, strict=True)
    ]
    for thread in threads:
        thread.start()
        # One after the other, so that each knows its place.
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return ended


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_meet_in_any_order(order):
    port = free_port()
    assert meeting(port, 3, order) == {0: None, 1: None, 2: None}
    # The port is free for jax.
    with socket.create_server(("", port)):
        pass


def test_who_does_not_come_is_named():
    ended = meeting(free_port(), 3, (0, 2), timeout=1)
    assert ended[0] == "of 3 processes these did not arrive within 1 s: 1"
    assert "did not continue" in ended[2]


def test_processes_that_count_differently_are_named():
    ended = meeting(free_port(), [2, 3], (0, 1))
    assert ended[0] == "process 1 is one of 3, process 0 one of 2"
    assert ended[0] in ended[1]


def test_a_port_in_use_and_an_unknown_host_are_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert "cannot listen on port" in meeting(port, 2, (0,))[0]
    with pytest.raises(parallel.ProcessError, match="unknown host, nowhere.invalid"):
        rendezvous("nowhere.invalid:9876", processes=2, process=1, timeout=5)


def say_slowly(peer, text):
    """A letter at a time, until the other end is closed."""
    with peer, contextlib.suppress(OSError):
        for letter in text:
            peer.sendall(letter.encode())
            time.sleep(0.2)


def knock(port):
    """A connection, as soon as somebody listens."""
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.02)
    raise TimeoutError("nobody listens")


def slow_stranger(port):
    """A thread that knocks, and would speak for four seconds."""
    thread = threading.Thread(target=lambda: say_slowly(knock(port), "x" * 20))
    thread.start()
    return thread


def test_somebody_else_at_the_port_is_no_process():
    port = free_port()

    first = threading.Thread(
        target=rendezvous,
        args=(f"127.0.0.1:{port}",),
        kwargs=dict(processes=2, process=0, timeout=10),
    )
    first.start()
    with knock(port) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\n")
    rendezvous(f"127.0.0.1:{port}", processes=2, process=1, timeout=10)
    first.join()


def test_who_speaks_slowly_keeps_nobody_waiting():
    port = free_port()
    stranger = slow_stranger(port)
    began = time.monotonic()
    ended = meeting(port, 2, (0,), timeout=1)
    assert ended[0] == "of 2 processes these did not arrive within 1 s: 1"
    assert time.monotonic() - began < 3
    stranger.join()
    port = free_port()
    stranger = slow_stranger(port)
    assert meeting(port, 2, (0, 1), timeout=1) == {0: None, 1: None}
    stranger.join()


def test_a_process_0_that_speaks_slowly_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        speaker = threading.Thread(
            target=lambda: say_slowly(server.accept()[0], "x" * 20)
        )
        speaker.start()
        began = time.monotonic()
        ended = meeting(server.getsockname()[1], 2, (1,), timeout=1)
        assert "did not continue; see its output" in ended[1]
        assert time.monotonic() - began < 3
        speaker.join()


@pytest.mark.parametrize("again", [False, True])
def test_a_process_that_ended_did_not_come(again):
    """And one that is started again takes its place."""
    port, ended = free_port(), {}
    threads = [
        threading.Thread(target=lambda: ended.update(meeting(port, 3, (0,), timeout=1)))
    ]
    threads[0].start()
    with knock(port) as peer:
        peer.sendall(b"1 3\n")
        time.sleep(0.1)
    ended |= meeting(port, 3, (1, 2) if again else (2,), timeout=1)
    threads[0].join()
    if again:
        assert ended == {0: None, 1: None, 2: None}
    else:
        assert ended[0] == "of 3 processes these did not arrive within 1 s: 1"


def test_two_processes_of_one_number_are_named():
    port, ended = free_port(), []

    def come(number):
        try:
            rendezvous(f"127.0.0.1:{port}", processes=3, process=number, timeout=2)
        except parallel.ProcessError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=come, args=(i,)) for i in (0, 1, 1)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert "there is a process 1 already" in ended
    assert sum("there is a process 1 already" in text for text in ended) == 2


# A second signal


class EndedError(Exception):
    pass


def test_a_second_signal_ends_one_of_several_at_once(monkeypatch, capfd):
    """Without an exception, which what it passes on its way may hold up."""

    def leave(status):
        raise EndedError(status)

    monkeypatch.setattr(os, "_exit", leave)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(Interrupted) as alone:
            os.kill(os.getpid(), signal.SIGTERM)
        assert alone.value.code == 143 and capfd.readouterr().err == ""
        monkeypatch.setattr(parallel, "count", lambda: 2)
        with pytest.raises(EndedError, match="143"):
            os.kill(os.getpid(), signal.SIGTERM)
    said = capfd.readouterr().err
    assert said.startswith("error: process 0 of 2 received SIGTERM after another")
    assert said.count("\n") == 1


# Parts


def test_a_lone_process_has_all_rows():
    assert parallel.own_rows(parallel.mesh(2), 8) == slice(0, 8)


def test_a_feeder_gives_the_plan_row_by_row():
    plan = plans.shuffled(10, batch=4, steps=3, seed=0)
    source = {"value": np.arange(10) ** 2}
    feeder = StreamFeeder(source, plan, mesh=parallel.mesh(2), threads=1, workers=0)
    batches = [jax.device_get(batch) for _, batch in feeder.chunks(1)]
    assert len(batches) == 2
    for batch, index in zip(batches, plan.index[1:], strict=True):
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["value"], index**2)


def test_others_find_the_built_in_memes():
    config = tiny()
    found = datasets.with_written_memes(config, pathlib.Path("run"))
    assert found.data.root == "run/memes" and config.data.root is None
    assert datasets.with_written_memes(found, pathlib.Path("other")) is found
