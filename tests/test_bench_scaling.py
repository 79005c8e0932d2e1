"""Scaling: the models by hand, and a small measurement."""

import argparse
import json

import pytest
from bench_support import counting_stage

from memejax.bench import pretraining, scaling, scaling_paper, tables
from memejax.bench.scaling_model import (
    LINKS,
    Link,
    efficiency,
    fixed_part,
    master_seconds,
    nodes_seconds,
    predicted,
    ring_seconds,
)

# 1 GB/s and no latency: bytes in GB are seconds.
SLOW = Link(1e9)


def test_ring_by_hand():
    # Each of 4 devices sends 3 quarters twice.
    assert ring_seconds(2e9, 4, link=SLOW) == pytest.approx(2 * 3 / 4 * 2)
    assert ring_seconds(2e9, 1, link=SLOW) == 0
    # Six messages on top.
    late = Link(1e9, 0.1)
    assert ring_seconds(2e9, 4, link=late) == pytest.approx(3.0 + 0.6)
    # However many there are, never more than twice the array.
    assert ring_seconds(1e9, 1000, link=SLOW) == pytest.approx(2 * 0.999)


def test_nodes_by_hand():
    fast = Link(8e9)
    # 8 GB in nodes of 4: 2 * 3/4 * 8 / 8 s inside, then 2 GB a device between 2 nodes.
    found = nodes_seconds(8e9, 8, inside=fast, across=SLOW, node=4)
    assert found == pytest.approx(1.5 + 2 * 1 / 2 * 2)
    # One node needs nothing between nodes.
    one = nodes_seconds(8e9, 4, inside=fast, across=Link(1e-9), node=4)
    assert one == pytest.approx(1.5)
    with pytest.raises(ValueError, match="got 6 devices in nodes of 4"):
        nodes_seconds(1.0, 6, inside=fast, across=SLOW, node=4)


def test_master_by_hand():
    # Parameters out and gradients in, for each of three others.
    assert master_seconds(1e9, 4, link=SLOW) == pytest.approx(6.0)
    # The paper's 960 MB over PCIe 3: 5.76 GB at 12 GB/s.
    found = master_seconds(960e6, 4, link=Link(12e9))
    assert found == pytest.approx(0.48)


def test_predicted_by_hand():
    common = dict(devices=4, link=SLOW)
    assert predicted(2.0, 1e9, **common) == pytest.approx(2 + 1.5)
    # 0.4 s stay, 1.6 are shared.
    strong = predicted(2.0, 1e9, kind="strong", fixed_seconds=0.4, **common)
    assert strong == pytest.approx(0.4 + 0.4 + 1.5)
    # Half of 2 s hides 1 of the 1.5 s; all of it hides everything.
    assert predicted(2.0, 1e9, overlap=0.5, **common) == pytest.approx(2.5)
    assert predicted(2.0, 1e9, overlap=1.0, **common) == pytest.approx(2.0)
    assert predicted(2.0, 1e9, method="master", **common) == pytest.approx(2 + 6)
    two_nodes = predicted(2.0, 1e9, devices=4, link=Link(2e9), across=SLOW, node=2)
    assert two_nodes == pytest.approx(2 + 0.5 + 0.5)


def test_efficiency_by_hand():
    # The paper's: 531 s an epoch on one, 304.8 on four: 1.742 times.
    found = efficiency(531.0, 304.8, devices=4, kind="strong")
    assert found == pytest.approx(1.742 / 4, abs=1e-4)
    assert efficiency(2.0, 2.5, devices=4, kind="weak") == pytest.approx(0.8)
    assert efficiency(2.0, 0.5, devices=4, kind="strong") == pytest.approx(1.0)


def test_fixed_part_by_hand():
    # 1 + 0.25 b.
    assert fixed_part({32: 9.0, 4: 2.0}) == pytest.approx(1.0)
    # A line that meets 0 below it, and one that falls.
    assert fixed_part({1: 1.0, 2: 3.0}) == 0.0
    assert fixed_part({1: 2.0, 2: 1.0}) == 2.0


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(kind="both"), "got kind='both'"),
        (dict(method="tree"), "method='tree'"),
        (dict(step_seconds=0.0), "expected"),
        (dict(fixed_seconds=3.0), "fixed_seconds=3.0"),
        (dict(overlap=1.5), "overlap=1.5"),
        (dict(overlap=0.5, method="master"), "overlap=0.5 for 'master'"),
        (dict(across=SLOW, method="master"), "one node"),
        (dict(devices=0), "0 devices"),
        (dict(gradient_bytes=-1.0), "-1.0 bytes"),
    ],
)
def test_predicted_refuses(change, message):
    given = dict(step_seconds=2.0, gradient_bytes=1e9, devices=4, link=SLOW) | change
    step, nbytes = given.pop("step_seconds"), given.pop("gradient_bytes")
    with pytest.raises(ValueError, match=message):
        predicted(step, nbytes, **given)


def test_other_refusals():
    with pytest.raises(ValueError, match="bandwidth"):
        Link(0.0)
    with pytest.raises(ValueError, match="'both'"):
        efficiency(1.0, 1.0, devices=2, kind="both")
    with pytest.raises(ValueError, match="expected two"):
        fixed_part({4: 1.0})


def test_the_papers_machine():
    rows = {(row["batch"], row["kind"]): row for row in scaling_paper.paper_rows()}
    assert rows[4, "weak"]["paper"] == pytest.approx(1.742 / 4, abs=1e-3)
    assert rows[32, "weak"]["paper"] == pytest.approx(3.053 / 4, abs=1e-3)
    # 531 s an epoch are 0.3124 s a step of 4, and 0.48 s go over PCIe's link.
    assert rows[4, "weak"]["master, pcie3"] == pytest.approx(
        0.31235 / (0.31235 + 0.48006), abs=1e-4
    )
    # 406 s are 1.9106 s a step of 32.
    assert rows[32, "weak"]["master, pcie3"] == pytest.approx(
        1.91059 / (1.91059 + 0.48006), abs=1e-4
    )


def test_rows_to_many_devices():
    rows = scaling_paper.rows(
        1.0, 1e9, devices=[1, 8, 64], link=LINKS["nvlink4"], across=LINKS["infiniband"]
    )
    found = {(row["kind"], row["devices"]): row for row in rows}
    assert len(rows) == 6
    for kind in ("strong", "weak"):
        assert found[kind, 1]["speed-up"] == pytest.approx(1.0)
    # 2 * 7/8 * 1 / 450 s and 14 messages of 3 us.
    inside = 1.75 / 450 + 14 * 3e-6
    eight = found["strong", 8]
    assert eight["seconds"] == pytest.approx(1 / 8 + inside)
    assert eight["speed-up"] == pytest.approx(1 / (1 / 8 + inside))
    # And 2 * 7/8 of an eighth over 50 GB/s, and 14 messages of 15 us.
    across = 1.75 / 8 / 50 + 14 * 15e-6
    many = found["weak", 64]
    assert many["efficiency"] == pytest.approx(1 / (1 + inside + across))
    assert many["hidden seconds"] == pytest.approx(1.0)


def test_a_step_is_read(tmp_path):
    file = tmp_path / "step.json"

    def read(**values):
        file.write_text(json.dumps(values))
        return scaling_paper.read_step(str(file))

    case = {"devices": 1, "input": "synthetic"}
    found = read(
        benchmark="scaling",
        parameters=10,
        cases=[
            {**case, "batch": 4, "seconds": [2.0, 2.0, 7.0]},
            {**case, "batch": 8, "devices": 2, "seconds": [9.0]},
            {**case, "batch": 4, "input": "real", "seconds": [5.0]},
        ],
    )
    assert found == {
        "batch": 4,
        "step_seconds": 2.0,
        "gradient_bytes": 40,
        "fixed_seconds": 0.0,
    }
    # A second batch on one device: 0.4 + 0.4 b.
    halves = [{**case, "batch": b, "seconds": [t]} for b, t in ((2, 1.2), (4, 2.0))]
    found = read(benchmark="scaling", parameters=10, cases=halves)
    assert found["fixed_seconds"] == pytest.approx(0.4)
    # 8 memes at 4 a second, of a training step beside PyTorch's.
    case = {"batch": 8, "ours": [4.0, 4.0, 1.0], "parameters": {"ours": 5, "peer": 5}}
    found = read(benchmark="train_step", cass_mm=case)
    assert (found["step_seconds"], found["gradient_bytes"]) == (2.0, 20)
    with pytest.raises(ValueError, match="without a step"):
        read(benchmark="loop", ours=[1.0])


def test_batches_and_summary_by_hand():
    assert scaling.batches(4, 8, ["strong", "weak"]) == {8, 32}
    assert scaling.batches(4, 8, ["weak"]) == {32}
    cases = [
        {"devices": n, "batch": b, "input": "synthetic", "seconds": [s, s, 99.0]}
        # The half batch on one device is for the fixed part alone.
        for n, b, s in ((1, 4, 0.7), (1, 8, 1.0), (4, 8, 0.5), (4, 32, 1.25))
    ]
    rows = scaling.summary(cases, batch=8, kinds=["strong", "weak"])
    found = {(row["kind"], row["devices"]): row for row in rows}
    assert found["strong", 4]["speed-up"] == pytest.approx(2.0)
    assert found["strong", 4]["efficiency"] == pytest.approx(0.5)
    assert found["strong", 4]["memes/s"] == pytest.approx(16.0)
    assert found["weak", 4]["batch"] == 32
    assert found["weak", 4]["efficiency"] == pytest.approx(0.8)
    assert found["weak", 4]["speed-up"] == pytest.approx(3.2)
    assert len(rows) == 4
    assert tables.text([{"a": 1.23456, "b": None}]).splitlines() == [
        "    a  b",
        "1.235  -",
    ]


def test_steps_are_timed_on_some_devices(monkeypatch):
    stage = counting_stage(monkeypatch)
    options = argparse.Namespace(
        kind=["strong", "weak"],
        input=["synthetic", "real"],
        size="tiny",
        batch=4,
        steps=3,
        rounds=2,
        threads=1,
    )
    found = scaling.measured([1, 2], options)
    # On two devices the batch of both kinds is another.
    assert [(c["devices"], c["batch"], c["input"]) for c in found["cases"]] == [
        (n, b, kind)
        for n, b in ((1, 2), (1, 4), (2, 4), (2, 8))
        for kind in ("synthetic", "real")
    ]
    assert all(len(c["seconds"]) == 2 and min(c["seconds"]) > 0 for c in found["cases"])
    assert found["parameters"] == 5
    assert stage.devices == [1, 1, 2, 2]
    # A round to warm up, and two: three steps each of four cases with two inputs.
    seen = stage.batches
    assert len(seen) == 3 * 3 * 4 * 2
    # The first case: its first batch over and over, and then three of the plan.
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len({tuple(rows) for rows in seen[3:6]}) == 3
    with pytest.raises(ValueError, match="cannot be split evenly over 3"):
        scaling.measured([3], options)


def test_sizes_of_the_step():
    found = pretraining.cass("paper", batch=4, steps=2, memes=8, workers=3)
    assert (found.data.image_size, found.data.text_length) == (384, 88)
    assert found.model.text.vocab_size == 30522
    assert (found.pipeline.cache, found.pipeline.workers) == ("none", 3)
    with pytest.raises(ValueError, match="got size 'huge'"):
        pretraining.cass("huge", batch=4, steps=2, memes=8)
