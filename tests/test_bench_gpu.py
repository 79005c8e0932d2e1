"""Parts of the GPU benchmark: their limits, and what is left of those that fail."""

import json
import time

import pytest

from memejax.bench import gpu
from memejax.bench.gpu import PARTS, Part

WRITES = "import json; json.dump(dict(a=3), open('{out}', 'w'))"
STARTS = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, file=open('{out}', 'w'), flush=True); time.sleep(60)"
)


def part(program, seconds=30):
    def read(path):
        return json.loads(path.read_text())

    return Part(seconds, ["-c", program], ["-c", program], read)


def test_all_parts_take_eight_minutes_at_most():
    assert sum(one.seconds for one in PARTS.values()) <= 8 * 60
    names = "step trace remat accumulate pmap seeds cifar10 detector"
    assert list(PARTS) == names.split()


def test_a_part_gives_its_figures_and_its_seconds(tmp_path):
    found = gpu.run(part(WRITES), tmp_path / "a", places={})
    assert found.pop("seconds") >= 0 and found == {"a": 3}


def test_a_part_that_fails_leaves_its_last_lines(tmp_path):
    found = gpu.run(part("raise SystemExit('no such thing')"), tmp_path, places={})
    assert found["failed"] == ["no such thing"]


def test_a_part_is_ended_with_all_that_it_has_started(tmp_path):
    began = time.monotonic()
    found = gpu.run(part(STARTS, seconds=3), tmp_path / "pid", places={})
    assert found == {"ended after": 3} and time.monotonic() - began < 20
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the child of the part goes on")


def test_every_part_is_saved_as_soon_as_it_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "PARTS", {"one": part(WRITES), "two": part("1 / 0")})
    out = tmp_path / "gpu.json"
    seen, write = [], gpu.pairs.write

    def watched(name, figures, path):
        write(name, figures, path)
        seen.append(sorted(figures))

    monkeypatch.setattr(gpu.pairs, "write", watched)
    monkeypatch.setattr("sys.argv", ["gpu", f"--out={out}", "--part", "one", "two"])
    gpu.main()
    assert seen == [["one"], ["one", "two"]]
    found = json.loads(out.read_text())
    assert found["one"]["a"] == 3 and "ZeroDivisionError" in found["two"]["failed"][-1]
    table = capsys.readouterr().out
    assert "one" in table and "failed ZeroDivisionError" in table


def test_rows_have_the_main_figures():
    figures = {
        "step": {
            "cass_mm": {
                "unit": "images/s",
                "ours": [2.0, 4.0, 3.0],
                "ratio": 1.5,
                "share": {"datasheet": {"ours": 0.4}},
            },
            "seconds": 3.0,
        },
        "trace": {
            "warm": {"steps": 2, "seconds": 0.5},
            "flops": 1e9,
            "peak": 8e9,
            "memory": {"code": 1e9, "temporaries": 5e9},
            "seconds": 9.0,
        },
        "seeds": {"ended after": 40},
        "cifar10": {"left out": "no --cifar10"},
        "detector": {"failed": ["a", "b"], "seconds": 1.0},
    }
    assert [row["figures"] for row in gpu.rows(figures)] == [
        "3 images/s; 1.50 times the peer; 40% of the datasheet rate",
        "250 ms per step; 50% of the measured rate; 5.0 GB at most",
        "ended after 40",
        "left out no --cifar10",
        "failed b",
    ]
    assert [row["seconds"] for row in gpu.rows(figures)] == [3.0, 9.0, 40, 0, 1.0]
