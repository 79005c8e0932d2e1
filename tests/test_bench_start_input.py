"""Benchmarks of the start, the input and the detector: their parts, in seconds."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from bench_support import counting_stage

from memejax.bench import detector, input_study, start, usage
from memejax.bench.peers import Peer
from memejax.models.maskrcnn import MaskRCNN
from memejax.weights.maskrcnn import maskrcnn_variables


def test_starts_are_timed():
    found = start.measured(["interpreter", "import memejax"], runs=2)
    assert list(found) == ["interpreter", "import memejax"]
    assert all(len(v) == 2 and min(v) > 0 for v in found.values())
    with pytest.raises(ValueError, match="runs=0"):
        start.measured(["help"], runs=0)


def test_the_first_step_is_seen(tmp_path):
    program = (
        "import sys, time; print('20 memes'); print(sys.argv[1]); "
        "print('pretrain   1/200    0%  loss 1', flush=True); time.sleep(600)"
    )
    seconds = start.first_step(["-c", program], tmp_path, name="a")
    assert 0 < seconds < 300
    with pytest.raises(RuntimeError, match="ended before a step:\nno such thing"):
        start.first_step(["-c", "exit('no such thing')"], tmp_path, name="b")
    # What a run says, and what is none of it.
    assert start.FIRST.search("pretrain  1/12    8%  loss 0.5")
    assert not start.FIRST.search("pretrain 11/12   92%  loss 0.5")


def test_a_line_of_proc():
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    middle = " ".join(["0"] * 9)
    line = f"7 (a) b (c)) S 3 {middle} {tick} {2 * tick} {3 * tick} {4 * tick}"
    line += " 20 0 1 0 0 9999 5 0"
    found = usage.read_stat(line)
    assert found == usage.Process(3, 3.0, 7.0, 5 * page)


def test_cards_are_read():
    found = usage.read_gpus("75, 1024, 2048\n0, 3, 2048\n")
    assert found == [(0.75, 2.0**30, 2.0**31), (0.0, 3 * 2.0**20, 2.0**31)]
    assert usage.read_gpus("") == []


def test_a_child_is_watched():
    # A child holds 200 MB and works for a while.
    program = "x = b'1' * 200_000_000\nfor i in range(3_000_000): pass"
    with usage.Watch(every=0.02) as watch:
        alone = usage.tree(os.getpid())[os.getpid()].resident
        subprocess.run([sys.executable, "-c", program], check=True)
    found = watch.figures
    assert found["resident bytes"] > alone + 150e6
    # It waited, and the child worked: that counts only if the child's time does.
    assert found["cores"] * found["seconds"] > 0.05
    assert found["core utilisation"] == found["cores"] / (os.cpu_count() or 1)
    share = found["resident bytes"] / found["memory utilisation"]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert share == pytest.approx(memory)


def test_a_cell_of_the_study(monkeypatch):
    stage = counting_stage(monkeypatch)
    case = input_study.Case("tiny", 8, memes=20, epochs=2, threads=1)
    found = input_study.cell(case)
    assert (found["devices"], found["platform"], found["mode"]) == (4, "cpu", "jit")
    # A CPU has no allocator of its own.
    assert found["device bytes"] == [None] * 4
    assert (found["batch"], found["workers"], found["steps"]) == (8, 0, 2)
    assert len(found["epoch seconds"]) == 2
    assert 0 < sum(found["epoch seconds"]) <= found["seconds"]
    # Of 20 memes two batches an epoch, on all devices; the first epoch warms up.
    assert stage.devices == [4]
    assert [len(rows) for rows in stage.batches] == [8] * 6
    assert len(set(sum(stage.batches[:2], []))) == 16
    with pytest.raises(ValueError, match="4 memes in batches of 8"):
        input_study.cell(dataclasses.replace(case, memes=4))


def test_the_studys_rows_by_hand():
    one = {
        "batch": 4,
        "workers": 2,
        "steps": 10,
        "epoch seconds": [2.0, 4.0, 3.0],
        "core utilisation": 0.5,
        "resident bytes": 3e9,
        "gpus": [],
        "device bytes": [None, None],
    }
    # What nvidia-smi sees in use is what JAX reserved.
    cards = [{"utilisation": 0.2, "bytes": 8e9}, {"utilisation": 0.4, "bytes": 9e9}]
    held = {"device bytes": [1e9, 2e9]}
    rows = input_study.rows([one, one | {"gpus": cards} | held])
    assert rows[0] == {
        "batch": 4,
        "workers": 2,
        "s/epoch": 3.0,
        "memes/s": pytest.approx(40 / 3),
        "cores %": 50.0,
        "GB": 3.0,
        "GPU %": None,
        "GPU GB": None,
    }
    assert rows[1]["GPU %"] == pytest.approx(30.0)
    assert rows[1]["GPU GB"] == pytest.approx(2.0)


def test_weights_are_torchvisions():
    """Names and shapes, with one block a stage, as the reader wants them."""
    shapes = detector.shapes((1, 1, 1, 1))
    tensors = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    # Raises if one were missing, too many or of another shape.
    variables = maskrcnn_variables(tensors, sizes={"stage_sizes": (1, 1, 1, 1)})
    assert sum(x.size for x in jax.tree.leaves(variables)) == sum(
        x.size for x in tensors.values()
    )
    # The published file.
    published = detector.shapes()
    assert len(published) == 307
    affine = [name for name in published if name.endswith("running_mean")]
    channels = sum(published[name][0] for name in affine)
    # Frozen BatchNorms: none of their four vectors is a parameter.
    values = sum(int(np.prod(shape)) for shape in published.values())
    assert (channels, values - 4 * channels) == (26_560, 44_401_393)
    assert MaskRCNN().stage_sizes == detector.STAGES


def test_random_weights_keep_the_scale():
    found = detector.random_tensors(
        {"a.conv.weight": (64, 32, 3, 3), "bn3.weight": (1000,)}
    )
    # He's variance, 2 / (32 * 9), and a last BatchNorm around 0.4.
    assert found["a.conv.weight"].std() == pytest.approx(np.sqrt(2 / 288), rel=0.02)
    assert found["bn3.weight"].mean() == pytest.approx(0.4, abs=0.02)
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
    picture = detector.make_picture(50)
    assert picture.shape == (50, 50, 3) and picture.dtype == np.uint8


def test_boxes_are_matched():
    ours = {"boxes": np.array([[0, 0, 5, 5], [1, 1, 2, 2]], np.float32)}
    theirs = {"boxes": [[0.0, 0.05, 5.0, 5.0], [9.0, 9.0, 10.0, 10.0]]}
    assert detector.matched(ours, theirs) == 1
    assert detector.matched(ours, {"boxes": []}) == 0


def test_a_peer_answers():
    program = """
import json, sys
threads = 0
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    name, *more = line.split()
    threads = int(more[0]) if more else threads
    if name == "leave":
        sys.exit(3)
    # The slower, the more threads.
    print(json.dumps({"seconds": threads, "threads": threads}), flush=True)
"""
    with Peer([sys.executable, "-c", program]) as peer:
        assert peer.about == {"ready": 1}
        assert peer.request("threads 5") == {"seconds": 5, "threads": 5}
        assert peer.best_threads() == 1
        assert peer.request("run")["threads"] == 1
        with pytest.raises(RuntimeError, match="the peer ended with 3"):
            peer.request("leave")
    with pytest.raises(RuntimeError, match="the peer ended with 0"):
        Peer([sys.executable, "-c", ""])


def test_no_peer_without_torchvision(tmp_path):
    nowhere = str(tmp_path / "python")
    assert detector.start_peer(nowhere, {}, np.zeros(1), {}, str(tmp_path)) is None
    assert not list(pathlib.Path(tmp_path).iterdir())
