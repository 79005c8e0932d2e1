"""Rows by a pool of Ray actors, one of which is killed."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
from support import refused, without_data

from memejax.data.hateful_memes import read_jsonl
from memejax.predict import __main__ as command
from memejax.predict import ray_pool

# In a process of its own: Ray forks, and tests have JAX in theirs.
SCRIPT = """
import os, signal, sys
from memejax.predict import __main__ as command, moderator, ray_pool

moderator.CHUNK = 4
stream, killed = ray_pool.stream, []


def actors():
    for folder in os.listdir("/proc"):
        if folder.isdecimal():
            with open(f"/proc/{folder}/cmdline", "rb") as file:
                if file.read().startswith(b"ray::MapWorker"):
                    yield int(folder)


def killing(*arguments, **more):
    for rows in stream(*arguments, **more):
        if not killed:
            killed.append(min(actors()))
            os.kill(killed[0], signal.SIGKILL)
        yield rows


if __name__ == "__main__":
    ray_pool.stream = killing
    command.main(sys.argv[1:])
    print("killed", len(killed))
"""


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    return without_data(finished[0], tmp_path_factory.mktemp("ray") / "run")


def test_every_row_once_though_an_actor_is_killed(run, finished, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    root = finished[0] / "memes"
    memes, _ = read_jsonl(root / "dev_seen.jsonl", root=root, split="dev_seen")
    lines = [{"img": m.image, "text": m.text, "id": m.id} for m in memes]
    # One by its content, and one that is broken.
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    for line in lines:
        line["image"] = {"bytes": None, "path": line.pop("img")}
    lines[2]["image"]["bytes"] = pathlib.Path(memes[2].image).read_bytes()
    lines[5]["image"]["bytes"] = b"broken"
    file = tmp_path / "memes.parquet"
    parquet.write_table(arrow.Table.from_pylist(lines), file)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    given = [f"--workdir={run}", f"--input={file}"]
    out = tmp_path / "ray.csv"
    done = subprocess.run(
        [sys.executable, str(script), *given, f"--output={out}", "--ray", "--actors=2"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "killed 1" in done.stdout
    alone = tmp_path / "alone.csv"
    command.main([*given, f"--output={alone}"])
    with open(out, newline="") as one, open(alone, newline="") as other:
        found, expected = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert [row["id"] for row in found] == [meme.id for meme in memes]
    for row, same in zip(found, expected, strict=True):
        a, b = (float(r.pop("raw_proba") or -1) for r in (row, same))
        assert a == pytest.approx(b, abs=1e-6)
        row.pop("proba"), same.pop("proba")
    assert found == expected and "not an image" in found[5]["error"]


def test_ray_that_is_not_there(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "memes.jsonl"
    file.write_text(json.dumps({"img": "a.png", "text": ""}))
    monkeypatch.setattr(ray_pool.importlib.util, "find_spec", lambda _: None)
    with refused(capsys, r"--ray takes Ray Data: pip install 'memejax\[ray\]'"):
        command.main(
            [
                f"--workdir={run}",
                f"--input={file}",
                f"--output={tmp_path}/a.csv",
                "--ray",
            ]
        )
