"""Captions for a folder of bare pictures, and the command that writes them."""

import json

import pytest
from PIL import Image

from memejax.data import captions, images, meme_check, ocr
from memejax.errors import UserError


class Reader:
    """A reader that names a picture's width, and counts."""

    def __init__(self):
        self.read_now = []

    def read(self, path, *, max_pixels):
        width = images.load(path, max_pixels=max_pixels).shape[1]
        self.read_now.append(width)
        return ocr.Reading((ocr.Line(f"width {width}", 0.5), ocr.Line("é", 0.75)))


@pytest.fixture
def folder(tmp_path):
    for width in (3, 1, 2):
        Image.new("RGB", (width, 5)).save(tmp_path / f"{width}.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def rows(folder):
    text = (folder / "captions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_per_picture(folder, capsys):
    reader = Reader()
    assert captions.caption_folder(folder, reader=reader) == {}
    assert reader.read_now == [1, 2, 3]
    assert rows(folder)[0] == {"img": "1.PNG", "text": "width 1 é", "confidence": 0.5}
    assert "3 captions read" in capsys.readouterr().out


def test_captions_that_are_there_stay(folder):
    path = folder / "captions.jsonl"
    mine = '{"img": "2.PNG", "text": "mine"}'
    # The line after it was cut by an interrupt.
    path.write_text(mine + '\n{"img": "1.PNG", "te', "utf-8")
    reader = Reader()
    captions.caption_folder(folder, reader=reader)
    assert reader.read_now == [1, 3]
    assert [row["img"] for row in rows(folder)] == ["2.PNG", "1.PNG", "3.PNG"]
    assert rows(folder)[0]["text"] == "mine"
    # A last line without its end is whole.
    path.write_text(mine, "utf-8")
    captions.caption_folder(folder, reader=reader)
    assert [row["img"] for row in rows(folder)] == ["2.PNG", "1.PNG", "3.PNG"]


def test_unreadable_pictures_are_named_and_the_rest_is_read(folder):
    (folder / "0.jpg").write_text("no picture")
    errors = captions.caption_folder(folder, reader=Reader())
    assert list(errors) == ["0.jpg"]
    assert len(rows(folder)) == 3


def test_refusals(folder, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        captions.caption_folder(folder / "none", reader=Reader())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no pictures.*\*\.png"):
        captions.caption_folder(tmp_path / "empty", reader=Reader())
    (folder / "captions.jsonl").write_text('{"img": "1.PNG"}\n["2.PNG"]\n')
    with pytest.raises(UserError, match=r"captions.jsonl:2"):
        captions.caption_folder(folder, reader=Reader())


def test_the_command(folder, monkeypatch, capsys):
    monkeypatch.setattr(meme_check, "CaptionReader", Reader)
    target = folder / "other.jsonl"
    assert meme_check.main(["caption", str(folder), "--output", str(target)]) == 0
    assert len(target.read_text("utf-8").splitlines()) == 3
    (folder / "0.jpg").write_text("no picture")
    assert meme_check.main(["caption", str(folder)]) == 1
    assert f"{folder}/0.jpg: is not an image" in capsys.readouterr().err
    assert meme_check.main(["caption", str(folder / "none")]) == 2
    assert "error: no folder" in capsys.readouterr().err
