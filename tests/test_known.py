"""A list of known memes: matching, its file, and the command."""

import csv
import json
import threading

import numpy as np
import pytest
from known_support import flipped, slow_pairs, tiles
from PIL import Image
from support import refused

from memejax.bench import known as bench
from memejax.data import images, known_file, known_memes, pdq, synthetic_memes
from memejax.data.known_file import HEADER, KnownMeme
from memejax.data.known_memes import ADDED, PRESENT, RELABELLED, KnownMemes, Match
from memejax.data.records import BadRecordsError
from memejax.errors import UserError
from memejax.known.__main__ import main

RNG = np.random.default_rng(0)
ZERO = np.zeros(32, np.uint8)


def meme(name, bits=ZERO, *, quality=100, caption="", label="hateful", **more):
    return KnownMeme(name, pdq.to_hex(bits), quality, caption, label, **more)


def test_the_nearest_known_meme():
    bits = RNG.integers(0, 256, 32, np.uint8)
    known = KnownMemes(
        [
            meme("far", flipped(bits, *range(31))),
            meme("near", flipped(bits, 0, 1), label="benign"),
            meme("plain", bits, quality=49),
        ]
    )
    other = flipped(bits, *range(60, 160))
    hashes = np.stack([bits, other, flipped(bits, 0, 1, 200), bits])
    expected = [Match("near", 2, "benign"), None, Match("near", 1, "benign"), None]
    assert known.match(hashes, qualities=[50, 100, 100, 49]) == expected
    assert known.match(hashes[:1], max_distance=1) == [None]
    assert known.match(np.zeros((0, 32), np.uint8)) == []
    assert KnownMemes().match(hashes) == [None] * 4


def test_at_one_distance():
    """An equal caption, then the label hateful, then the first."""
    known = KnownMemes(
        [
            meme("a", caption="one", label="benign"),
            meme("b", caption="two"),
            meme("c", caption="three"),
            meme("d", caption="four", label="benign"),
        ]
    )
    hashes = np.zeros((1, 32), np.uint8)
    assert known.match(hashes) == [Match("b", 0, "hateful")]
    assert known.match(hashes, ["FOUR"]) == [Match("d", 0, "benign")]
    assert known.match(hashes, ["five"]) == [Match("b", 0, "hateful")]
    assert known.match(hashes, ["five"], same_words=True) == [None]


def test_matching_by_words_too():
    text = "when you wash your hands for the 57th time today"
    known = KnownMemes(
        [
            meme("other words", caption="the same template, other words"),
            meme("same", flipped(ZERO, 5, 6), caption=text, label="benign"),
            meme("none", flipped(ZERO, 7), label="benign"),
        ]
    )
    hashes = np.zeros((3, 32), np.uint8)
    captions = [text.upper().replace("57", "5T"), "quite another", ""]
    got = known.match(hashes, captions, same_words=True)
    assert got == [Match("same", 2, "benign"), None, Match("none", 1, "benign")]
    assert known.match(hashes, captions, same_words=True, max_edits=0)[0] is None
    by_hash = known.match(hashes, captions)
    assert [match and match.id for match in by_hash] == ["other words"] * 3


def test_matching_refuses():
    known, hashes = KnownMemes([meme("a")]), np.zeros((2, 32), np.uint8)
    with pytest.raises(ValueError, match="same_words takes captions"):
        known.match(hashes, same_words=True)
    with pytest.raises(ValueError, match="2 hashes and 1 captions"):
        known.match(hashes, ["a"])
    with pytest.raises(ValueError, match="2 hashes and 3 qualities"):
        known.match(hashes, qualities=[1, 2, 3])
    with pytest.raises(ValueError, match=r"max_edits is 1\.0"):
        known.match(hashes, max_edits=1.0)


def test_matching_agrees_with_a_slow_search_over_chunks(monkeypatch):
    monkeypatch.setattr(known_memes, "_CHUNK", 5)
    rows = RNG.integers(0, 256, (30, 32), np.uint8)
    queries = np.stack(
        [flipped(rows[i % 30], *RNG.choice(256, i, False)) for i in range(45)]
    )
    got = KnownMemes(meme(str(i), row) for i, row in enumerate(rows)).match(queries)
    for i, match in enumerate(got):
        near = slow_pairs(queries[i : i + 1], rows, 31)
        best = min(near, key=lambda one: one[2]) if near else None
        assert match == (best and Match(str(best[1]), best[2], "hateful"))
    assert [match is None for match in got] == [i > 31 for i in range(45)]


def test_adding():
    known = KnownMemes()
    assert known.add(meme("a", caption="Some  WORDS")) == ADDED
    assert known.add(meme("b", caption="some words")) == PRESENT
    assert known.match(ZERO[None]) == [Match("a", 0, "hateful")]
    changed = meme("b", caption="some words", label="benign", note="seen again")
    assert known.add(changed) == RELABELLED
    assert known.match(ZERO[None]) == [Match("a", 0, "benign")]
    assert [(one.id, one.note) for one in known] == [("a", "seen again")]
    assert known.add(meme("b", caption="other words")) == ADDED
    with pytest.raises(UserError, match="id 'a' is that of another meme"):
        known.add(meme("a", flipped(ZERO, 1)))
    with pytest.raises(ValueError, match="label is 'bad', expected benign or hateful"):
        known.add(meme("c", label="bad"))
    assert known.summary() == {
        "memes": 2,
        "benign": 1,
        "hateful": 1,
        "too plain to match": 0,
        "without a caption": 0,
    }


def test_the_file_comes_back(tmp_path):
    path = tmp_path / "list.jsonl"
    (tmp_path / "link.jsonl").symlink_to(path)
    memes = [
        meme("a", caption="größe \u2028 x", note="n", added="2026-11-30T00:00:00"),
        meme("b", flipped(ZERO, 3), quality=3, label="benign"),
    ]
    with known_memes.changing(tmp_path / "link.jsonl") as known:
        for one in memes:
            known.add(one)
    assert (tmp_path / "link.jsonl").is_symlink()
    loaded = list(KnownMemes.load(path))
    assert loaded[1] == memes[1] and loaded[0].note == "n"
    # Folded: U+2028 is a space, and ß is ss.
    assert loaded[0].caption == "grösse x"
    lines = path.read_text("utf-8").splitlines()
    assert json.loads(lines[0]) == HEADER and len(lines) == 3
    assert set(json.loads(lines[2])) == {"id", "pdq", "quality", "caption", "label"}
    before = path.read_bytes()
    with pytest.raises(RuntimeError), known_memes.changing(path) as known:
        known.add(meme("c", flipped(ZERO, 4)))
        raise RuntimeError
    assert path.read_bytes() == before


def test_changes_at_once_are_all_kept(tmp_path):
    path = tmp_path / "list.jsonl"

    def add(i):
        with known_memes.changing(path) as known:
            known.add(meme(str(i), flipped(ZERO, i)))

    threads = [threading.Thread(target=add, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.id for one in KnownMemes.load(path)) == list("01234567")
    assert [one.name for one in tmp_path.iterdir()] == ["list.jsonl"]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("", "list.jsonl:1: is not the header"),
        ('{"img": "a.png"}', "list.jsonl:1: is not the header"),
        ("\x00\x01", "list.jsonl:1: is not the header"),
        (
            json.dumps(HEADER | {"version": 2}),
            "list.jsonl:1: version of the list is 2, and this memejax reads 1",
        ),
        (
            json.dumps(HEADER | {"hash": "md5"}),
            "list.jsonl:1: hash of the list is 'md5', and this memejax reads 'pdq'",
        ),
    ],
)
def test_another_format(tmp_path, first, message):
    path = tmp_path / "list.jsonl"
    path.write_text(first + "\n", "utf-8")
    with pytest.raises(UserError, match=message):
        KnownMemes.load(path)
    with pytest.raises(UserError, match="no list of known memes"):
        KnownMemes.load(tmp_path / "none")


def test_damaged_lines_are_all_named(tmp_path):
    path = tmp_path / "list.jsonl"
    good = {"id": "a", "pdq": "0" * 64, "quality": 9, "caption": "x", "label": "benign"}
    rows = [
        good,
        good | {"id": "b"},
        good | {"caption": "y"},
        good | {"id": "c", "pdq": "0" * 63},
        good | {"id": "d", "quality": 101},
        good | {"id": "e", "quality": True},
        good | {"id": "f", "label": 1},
        good | {"id": " "},
        good | {"id": "g", "colour": "red"},
        {"id": "h"},
        ["a"],
        good | {"id": "i", "caption": "\ud800"},
    ]
    expected = {
        3: "its meme is on line 2 already",
        4: "id a is on line 2 already",
        5: "a hash is ",
        6: "quality is 101",
        7: "quality is True",
        8: "label is 1",
        9: "id is empty",
        10: "has the unknown 'colour'",
        11: "has no caption, label, pdq, quality",
        12: "is a list",
        13: "is not valid Unicode",
        14: "is not JSON",
        16: "is not JSON",
    }
    lines = [HEADER, *rows]
    text = "\n".join(map(json.dumps, lines)) + '\n{"id": "a", "id": "b"}\n \n{"id": "z'
    path.write_text(text, "utf-8")
    with pytest.raises(BadRecordsError) as raised:
        KnownMemes.load(path)
    found = {record.line: record.reason for record in raised.value.records}
    assert found.keys() == expected.keys()
    for line, reason in expected.items():
        assert reason in found[line]
    assert "list.jsonl:3: its meme" in str(raised.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures whose hash is the number in their file, as if pdqhash were there."""

    def compute_all(pictures, **_):
        hashes, qualities, errors = [], [], {}
        for i, path in enumerate(pictures):
            with open(path, encoding="utf-8") as file:
                words = file.read().split()
            if words[0] == "broken":
                errors[i] = images.ImageError(path, "is broken")
                words = ["0", "0"]
            hashes.append(flipped(ZERO, *range(int(words[0]))))
            qualities.append(int(words[1]))
        return np.stack(hashes), np.array(qualities), errors

    monkeypatch.setattr(pdq, "compute_all", compute_all)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in {"a": "0 100", "b": "100 100", "c": "200 9"}.items():
        (folder / f"{name}.png").write_text(content, "utf-8")
    rows = [
        {"img": "a.png", "text": "first", "label": 1, "id": 7},
        {"img": "b.png", "label": 0},
        {"img": "c.png", "text": "plain", "label": 0},
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_the_command_adds_and_finds(folder, tmp_path, capsys):
    path = str(tmp_path / "list.jsonl")
    main(["add", f"--list={path}", f"--input={folder}", "--note=batch 1"])
    out = capsys.readouterr().out
    assert "3 added, 0 there already, 0 given the other label; 3 known memes" in out
    assert "1 of these pictures are too plain (quality below 50)" in out
    main(["add", f"--list={path}", f"--input={folder}/captions.jsonl"])
    assert "0 added, 3 there already" in capsys.readouterr().out
    given = [f"--image={folder}/a.png", "--text=First", "--label=benign"]
    main(["add", f"--list={path}", *given])
    assert "1 given the other label" in capsys.readouterr().out

    main(["info", path])
    out = capsys.readouterr().out
    assert "version 1, hash pdq" in out
    figures = [line.split(None, 1) for line in out.splitlines()[1:]]
    assert {name: int(count) for count, name in figures} == {
        "memes": 3,
        "benign": 3,
        "hateful": 0,
        "too plain to match": 1,
        "without a caption": 1,
    }

    (folder / "d.png").write_text("10 100", "utf-8")
    (folder / "e.png").write_text("broken", "utf-8")
    main(["match", f"--list={path}", f"--input={folder}"])
    found = rows_of(capsys.readouterr().out)
    assert [tuple(row.values()) for row in found] == [
        ("7", "7", "0", "benign", ""),
        ("b.png", "b.png", "0", "benign", ""),
        ("c.png", "", "", "", "too plain to match: quality 9"),
        ("d.png", "7", "10", "benign", ""),
        ("e.png", "", "", "", "is broken"),
    ]
    output = tmp_path / "found.csv"
    more = ["--same-words", f"--output={output}", "--max-distance=20"]
    main(["match", f"--list={path}", f"--input={folder}", *more])
    out = capsys.readouterr().out
    assert "2 of 5 known (2 benign, 0 hateful)" in out and "1 pictures cannot" in out
    assert [row["known"] for row in rows_of(output.read_text("utf-8"))] == [
        "7",
        "b.png",
        "",
        "",
        "",
    ]
    main(["match", f"--list={path}", f"--image={folder}/d.png"])
    (row,) = rows_of(capsys.readouterr().out)
    assert row["id"] == "d.png" and row["distance"] == "10"


def test_copies_within_an_input(folder, tmp_path, capsys):
    """Two labels of one meme count as hateful, whatever their order; a second call
    changes nothing."""
    file = folder / "more.jsonl"
    rows = [
        {"img": "b.png", "text": "X", "label": 0, "id": "1"},
        {"img": "b.png", "text": "x", "label": 1, "id": "2"},
        {"img": "b.png", "text": "x", "label": 0, "id": "3"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    path = str(tmp_path / "list.jsonl")
    for counts in ("1 added, 0 there already, 0", "0 added, 1 there already, 0"):
        main(["add", f"--list={path}", f"--input={file}", "--prefix=new-"])
        out = capsys.readouterr().out
        assert counts in out
        assert "2 pictures are copies" in out and "1 of them have both labels" in out
    (one,) = KnownMemes.load(path)
    assert (one.id, one.label) == ("new-1", "hateful")


def test_the_command_refuses(folder, tmp_path, capsys):
    path = str(tmp_path / "list.jsonl")
    add = ["add", f"--list={path}"]
    (folder / "d.png").write_text("10 100", "utf-8")
    with refused(capsys, "d.png: has no label: give --label"):
        main([*add, f"--input={folder}"])
    (folder / "d.png").write_text("broken", "utf-8")
    with refused(capsys, "d.png: picture .*is broken"):
        main([*add, f"--input={folder}", "--label=benign"])
    (folder / "d.png").unlink()
    with refused(capsys, "no file or folder"):
        main([*add, f"--input={tmp_path}/none", "--label=benign"])
    with refused(capsys, "is a folder, expected the name of a file"):
        main(["add", f"--list={tmp_path}", f"--input={folder}"])
    assert not (tmp_path / "list.jsonl").exists()
    main([*add, f"--input={folder}"])
    with refused(capsys, "id 'b.png' is that of another meme"):
        main([*add, f"--image={folder}/b.png", "--text=new", "--label=benign"])
    with refused(capsys, "max_edits is 2"):
        main(["match", f"--list={path}", f"--input={folder}", "--max-edits=2"])
    for wrong in (
        [*add, f"--image={folder}/b.png"],
        [*add, f"--input={folder}", "--text=x"],
        [*add, f"--input={folder}", "--id=x"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
    assert "--id goes with --image" in capsys.readouterr().err


def test_the_format_is_what_the_docstring_shows():
    header, shown, rest = (known_file.__doc__ or "").split("\n    ")[1:4]
    assert json.loads(header) == HEADER
    line = (shown + rest.split("\n")[0]).replace("d8f8...9b22", "d8f8" * 16)
    one = known_file.parse(line.encode())
    assert one.label == "hateful" and one.note


def test_a_picture_compressed_again_is_found(tmp_path, capsys):
    pytest.importorskip("pdqhash")
    Image.fromarray(tiles(300, 200, 0)).save(tmp_path / "a.png")
    Image.fromarray(tiles(300, 200, 0)).save(tmp_path / "b.jpg", quality=40)
    Image.fromarray(tiles(300, 200, 1)).save(tmp_path / "c.png")
    path = f"--list={tmp_path}/list.jsonl"
    main(["add", path, f"--image={tmp_path}/a.png", "--label=hateful", "--id=one"])
    capsys.readouterr()
    main(["match", path, f"--input={tmp_path}"])
    found = {row["id"]: row for row in rows_of(capsys.readouterr().out)}
    assert found["a.png"]["distance"] == "0"
    assert found["b.jpg"]["known"] == "one" and int(found["b.jpg"]["distance"]) <= 10
    assert found["c.png"]["known"] == ""


def test_the_benchmark(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pdqhash")
    synthetic_memes.write(tmp_path / "memes", train=24, dev=8, test=8, size=96)
    sizes = ["--memes=12", "--known=500", "--pairs=1"]
    out = tmp_path / "known.json"
    given = [f"--root={tmp_path}/memes", f"--out={out}", *sizes]
    monkeypatch.setattr("sys.argv", ["known", *given])
    monkeypatch.setattr(bench, "BATCH", 10)
    bench.main()
    figures = json.loads(out.read_text("utf-8"))
    for words in ("by hash", "by hash and words"):
        assert figures["itself"][words] == {"found": 12, "found as itself": 12}
        assert figures["mirror"][words]["found as itself"] < 12
    for name in ("jpeg", "half", "crop", "cut", "border", "recaption"):
        found = figures[name]
        assert found["of"] == 12
        assert found["by hash and words"]["found"] <= found["by hash"]["found"]
    shares = [one["others found"] for one in figures["words"].values()]
    assert shares == sorted(shares)
    assert all(rate > 0 for rates in figures["speed"].values() for rate in rates)
    monkeypatch.setattr("sys.argv", ["known", f"--root={tmp_path}/memes"])
    with refused(capsys, "give --memes=20"):
        bench.main()
