"""Memes to predict: what each kind of input gives, and what is wrong with it."""

import csv
import io
import json
import os

import pytest

from memejax.data import inputs
from memejax.data.hateful_memes import BadRecordsError, read_jsonl
from memejax.data.inputs import Item
from memejax.errors import UserError


def items(path, **more):
    source = inputs.open_source(os.fspath(path), **more)
    found = list(source.items())
    assert source.total == len(found)
    # A second pass gives the same.
    assert list(source.items()) == found
    return found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"text": "a"}', "img is None"),
        ('{"img": 3, "text": "a"}', "img is 3"),
        ('{"img": "a.png", "text": 3}', "text is 3"),
        ('{"img": "a.png", "text": "\\ud800"}', "half a surrogate pair"),
        ('{"img": "\\ud800.png", "text": "a"}', "half a surrogate pair"),
        ('{"img": "a.png", "text": "", "id": "\\ud800"}', "id is not valid Unicode"),
        ('{"img": "", "text": "a"}', "img is ''"),
        ('{"img": "a\\u0000", "text": "a"}', "expected the path of a picture"),
        ('{"img": "a.png", "text": "", "img": "b.png"}', "has 'img' twice"),
        ('"\xff"', "is not UTF-8: .* at byte 1"),
    ],
)
def test_bad_lines_have_their_error(tmp_path, line, reason):
    file = tmp_path / "memes.jsonl"
    good = '{"img": "b.png", "text": ""}'
    file.write_bytes(f"{good}\n\n{line}\n{good}".encode("latin-1"))
    first, bad, last = items(file)
    assert first == last == Item("b.png", str(tmp_path / "b.png"), "")
    assert bad.picture is None
    with pytest.raises(BadRecordsError, match=reason):
        inputs.refuse({bad.id: bad.error}, "memes.jsonl")
    assert bad.id in ("line 3", "\ud800")


def test_ids_and_paths_are_taken_as_they_are(tmp_path):
    """Where a data set's records would be refused."""
    file = tmp_path / "memes.jsonl"
    file.write_text(
        '{"img": "../a.png", "text": "", "id": 2.5, "label": [7]}\n'
        '{"image": "/b.png", "caption": "x", "id": true, "label": "1"}\n'
        '{"path": "c.png", "text": null, "id": null}\n'
    )
    assert items(file) == [
        Item("2.5", str(tmp_path.parent / "a.png"), ""),
        Item("True", "/b.png", "x", label=1),
        Item("c.png", str(tmp_path / "c.png"), None),
    ]
    assert len(read_jsonl(file, root=tmp_path, split="a")[1]) == 3


def test_csv(tmp_path):
    file = tmp_path / "memes.csv"
    rows = [
        {"id": "1", "img": "a.png", "text": 'two\nlines, "quoted"', "other": "x"},
        {"id": "", "img": "b.png", "text": ""},
        {"id": "3", "img": "", "text": "no picture"},
    ]
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, ["id", "img", "text", "other"])
        writer.writeheader()
        writer.writerows(rows)
    found = items(file)
    assert found[:2] == [
        Item("1", str(tmp_path / "a.png"), 'two\nlines, "quoted"'),
        Item("b.png", str(tmp_path / "b.png"), ""),
    ]
    assert found[2].id == "3" and "img is None" in found[2].error
    # Without a column of captions they are missing, and not empty.
    file.write_text("image,id\na.png,7\n")
    assert items(file) == [Item("7", str(tmp_path / "a.png"), None)]
    file.write_bytes(b"image,text\na.png,\xff\n")
    assert "not valid Unicode" in items(file)[0].error
    for text, message in [
        ("id,text\n1,a\n", "has the columns id, text: expected img or image or path"),
        ("", r"has the columns \(none\)"),
        ("img,text\n", "holds no memes"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            inputs.open_source(str(file))


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "memes.parquet"

    def write(**columns):
        parquet.write_table(arrow.table(columns), file)

    write(id=[1, None], path=["a.png", "b.png"], text=["x", None], label=[1, 0])
    assert items(file) == [
        Item("1", str(tmp_path / "a.png"), "x", label=1),
        Item("b.png", str(tmp_path / "b.png"), None, label=0),
    ]
    # Contents, and the two together as Hugging Face's data sets have them.
    write(image=[b"content", None])
    one, none = items(file)
    assert one == Item("row 1", b"content", None)
    assert none.id == "row 2" and "img is None" in none.error
    write(
        image=[{"bytes": b"content", "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    )
    assert items(file) == [
        Item("a.png", b"content", None),
        Item("b.png", str(tmp_path / "b.png"), None),
    ]
    write(picture=["a.png"])
    with pytest.raises(UserError, match="has the columns picture: expected img"):
        inputs.open_source(str(file))
    file.write_bytes(b"PAR1 and nothing")
    with pytest.raises(UserError, match="is no parquet file, or is damaged"):
        inputs.open_source(str(file))


def test_a_pipe(tmp_path, monkeypatch):
    given = b'/a.png\n\n{"img": "/b.png", "text": "t", "id": 3}\n{"img"\n/\xff.png\r\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    found = items("-")
    assert found[:2] == [Item("/a.png", "/a.png", None), Item("3", "/b.png", "t")]
    assert [item.id for item in found[2:]] == ["line 4", "line 5"]
    assert "not JSON" in found[2].error and "not valid Unicode" in found[3].error


def test_a_folder(tmp_path, capsys):
    for name in ("a.png", "b.JPG", "b.heic", "without", b"c\xff.png"):
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "more").mkdir()
    lines = [{"img": "a.png", "text": "1"}, {"img": "a.png", "text": "2"}]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    one, other, bad = items(tmp_path)
    assert one == Item("a.png", str(tmp_path / "a.png"), "2")
    assert other == Item("b.JPG", str(tmp_path / "b.JPG"), None)
    assert "not printable UTF-8: rename it" in bad.error
    shown = capsys.readouterr().out
    assert "left out 3 that are no pictures: b.heic, more/, without" in shown
    assert "second caption for 1 pictures" in shown
    # The same captions from elsewhere, one path of them absolute.
    words = tmp_path / "more" / "words.jsonl"
    lines = [{"img": "b.JPG", "text": "b"}, {"img": f"{tmp_path}/a.png", "text": "a"}]
    words.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = items(tmp_path, captions=str(words))
    assert [item.caption for item in found[:2]] == ["a", "b"]
    words.write_text('{"img": 3}')
    with pytest.raises(BadRecordsError, match=r"words\.jsonl, line 1: img is 3"):
        inputs.open_source(str(tmp_path), captions=str(words))
    with pytest.raises(UserError, match="no pictures"):
        inputs.open_source(str(tmp_path / "more"))


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no file"):
        inputs.open_source(str(tmp_path / "other"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no memes"):
        inputs.open_source(str(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="--captions goes with a folder"):
        inputs.open_source(str(tmp_path / "empty.jsonl"), captions="a")
