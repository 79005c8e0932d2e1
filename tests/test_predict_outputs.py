"""Rows of predictions in files."""

import csv
import json

import pytest

from memejax.predict.outputs import RowWriter
from memejax.predict.rows import FIELDS, Row

ROWS = [
    Row("1", 0.25, 1 / 3, "not hateful", 'two\nlines, "quoted" é'),
    Row("2", error="picture a.png is empty"),
    Row("3", 0.75, 0.9, "hateful", "", matched="k7"),
]


def write(path, **more):
    writer = RowWriter(path, made_by={"run": 1}, **more)
    writer.write(ROWS[:2])
    writer.write(ROWS[2:])
    return writer.finish()


def test_csv(tmp_path):
    counts = write(tmp_path / "a.csv")
    assert counts == {"hateful": 1, "not hateful": 1, "": 1}
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    assert header == list(FIELDS)
    assert found == [
        ["1", "0.25", repr(1 / 3), "not hateful", ROWS[0].caption, "", ""],
        ["2", "", "", "", "", "", "picture a.png is empty"],
        ["3", "0.75", "0.9", "hateful", "", "k7", ""],
    ]


def test_jsonl(tmp_path):
    write(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [Row(**json.loads(line)) for line in lines] == ROWS


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert [Row(**row) for row in table.to_pylist()] == ROWS
    assert table.schema.field("proba").type == "double"


def test_a_part_is_gone_on_with(tmp_path):
    path = tmp_path / "a.jsonl"
    RowWriter(path, made_by={"run": 1}).write(ROWS[:2])
    with open(f"{path}.part", "ab") as part:
        part.write(b'{"id": "3"')
    again = RowWriter(path, made_by={"run": 1})
    assert again.ids == ["1", "2"]
    again.write(ROWS[2:])
    again.finish()
    lines = path.read_text("utf-8").splitlines()
    assert [Row(**json.loads(line)) for line in lines] == ROWS
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_part_of_another_run_is_begun_again(tmp_path):
    path = tmp_path / "a.jsonl"
    RowWriter(path, made_by={"run": 1}).write(ROWS[:2])
    other = RowWriter(path, made_by={"run": 2})
    assert other.ids == []
    other.write(ROWS[:1])
    other.finish()
    assert len(path.read_text("utf-8").splitlines()) == 1
