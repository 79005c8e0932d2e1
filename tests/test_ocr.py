"""Words on pictures, their order, and what is remembered of them."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from memejax import metrics
from memejax.bench import ocr as bench_ocr
from memejax.data import images, ocr


def picture(*words, size=(640, 320), mode="RGB", kind="PNG"):
    """A white picture with words at the places given: ((x, y), text)."""
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(36)
    for place, text in words:
        draw.text(place, text, fill="black", font=font)
    file = io.BytesIO()
    image.convert(mode).save(file, kind)
    return file.getvalue()


MEME = (((20, 20), "when the test"), ((390, 24), "suite runs"), ((20, 230), "AT LAST"))


@pytest.fixture
def reader(tmp_path):
    pytest.importorskip("rapidocr")
    return ocr.CaptionReader(cache=tmp_path / "captions.jsonl", threads=1)


def test_lines_from_top_to_bottom_and_left_to_right():
    def box(left, top, right, bottom):
        return [[left, top], [right, top], [right, bottom], [left, bottom]]

    boxes = [
        box(10, 200, 90, 220),  # the last line
        box(300, 14, 400, 36),  # right of the first, a little lower
        box(10, 10, 200, 30),
        box(10, 40, 200, 60),  # the second line
    ]
    assert ocr.reading_order(np.array(boxes, float)) == [[2, 1], [3], [0]]
    assert ocr.reading_order(np.zeros((0, 4, 2))) == []


@pytest.mark.parametrize("mode, kind", [("RGB", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")])
def test_words_of_a_picture(reader, mode, kind):
    found = reader.read(picture(*MEME, mode=mode, kind=kind))
    assert found.caption == "when the test suite runs AT LAST"
    assert [line.text for line in found.lines] == [
        "when the test suite runs",
        "AT LAST",
    ]
    assert 0.8 < found.confidence <= min(line.confidence for line in found.lines)


def test_no_words(reader):
    for size in ((1, 1), (64, 64)):
        found = reader.read(picture(size=size))
        assert (found.lines, found.caption, found.confidence) == ((), "", 1.0)


def test_a_picture_is_read_once(reader, tmp_path, monkeypatch):
    content = picture(*MEME)
    first = reader.read(content)
    path = tmp_path / "meme.png"
    path.write_bytes(content)

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(ocr.CaptionReader, "_recognize", never)
    assert reader.read(os_path := str(path)) == first
    again = ocr.CaptionReader(cache=tmp_path / "captions.jsonl")
    assert again.read(os_path) == first
    with pytest.raises(AssertionError, match="read again"):
        again.read(picture(((20, 20), "another")))


def test_a_cut_file_and_another_version_are_read_again(reader, tmp_path):
    content = picture(*MEME)
    first = reader.read(content)
    path = tmp_path / "captions.jsonl"
    (row,) = map(json.loads, path.read_text("utf-8").splitlines())
    other = {**row, "reader": "rapidocr 0.0", "lines": [["nonsense", 1.0]]}
    path.write_text(json.dumps(other) + "\n" + json.dumps(row)[:40], "utf-8")
    again = ocr.CaptionReader(cache=path, threads=1)
    assert again.read(content) == first
    # What was cut does not spoil the line after it.
    assert ocr.CaptionReader(cache=path)._known.keys() == {row["sha256"]}


def test_damaged_pictures_are_refused(reader, tmp_path):
    content = picture(*MEME)
    for bad, reason in (
        (b"", "empty"),
        (b"no picture", "not an image"),
        (content[: len(content) // 2], "truncated|cannot be read"),
        (str(tmp_path / "none.png"), "missing"),
    ):
        with pytest.raises(images.ImageError, match=reason):
            reader.read(bad)
    with pytest.raises(images.ImageError, match="too large"):
        reader.read(content, max_pixels=100)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(ocr, "PACKAGES", ("rapidocr_of_nowhere",))
    with pytest.raises(ValueError, match=r"rapidocr_of_nowhere.*memejax\[ocr\]"):
        ocr.CaptionReader().read(picture())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    pytest.importorskip("rapidocr")
    (tmp_path / "file").touch()
    lines = []
    reader = ocr.CaptionReader(
        cache=tmp_path / "file" / "captions.jsonl", threads=1, say=lines.append
    )
    for words in ("once", "twice"):
        found = reader.read(picture(((20, 20), words)))
        assert found.caption == words
    (line,) = lines
    assert line.startswith("captions that are read are not kept")


def test_common_words_by_hand():
    found = ocr.common_words("So, I order THIS mask mask", "so I order\nthat mask.")
    assert found == (4, 6, 5)


def test_what_reading_costs_by_hand():
    """One pair of memes is put in the wrong order by the captions that are read."""
    labels = np.array([1, 1, 0, 0])
    given = np.array([4.0, 3.0, 2.0, 1.0])
    read = np.array([4.0, 2.0, 3.0, 1.0])
    found = bench_ocr.compare(np.array([[given, read]]), labels)
    assert (found["given"], found["read"], found["cost"]) == (1.0, 0.75, 0.25)
    assert found["cost_low"] == 0.0 and 0.25 < found["cost_high"] <= 1.0


def test_memes_are_scored_by_heads_that_have_not_seen_them():
    """A caption of its own tells the label in train only: without skill on others."""
    rng = np.random.default_rng(0)
    n = 60
    labels = np.tile([0, 1], n // 2)
    text = rng.normal(size=(n, 40)).astype(np.float32)
    columns = {
        "image": np.tile(rng.normal(size=(n, 3)).astype(np.float32), (2, 1)),
        "text": np.concatenate([text, text + 3 * labels[:, None]]).astype(np.float32),
    }
    captions = [f"caption {i // 2}" for i in range(n)]
    scores = bench_ocr.cross_validated(
        "linear", columns, labels, captions=captions, repeats=2
    )
    assert scores.shape == (2, 2, n)
    areas = [[metrics.auroc(s, labels) for s in pair] for pair in scores]
    assert np.abs(np.array(areas)[:, 0] - 0.5).max() < 0.25
