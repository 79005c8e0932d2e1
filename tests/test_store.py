"""Feature stores: what is read is what was written, and nothing else's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from memejax import graphs
from memejax.store import read
from memejax.store.read import different_parts, open_store, store_key
from memejax.store.shards import columns, digest_of
from memejax.store.write import OtherStoreError, StoreWriter

K, T = 3, 4
PARTS = {"data": "a digest", "image": {"size": 24, "dtype": "float32"}}
SIZES = {"train": 5, "dev_seen": 3, "test_unseen": 2}
WIDTHS = dict(image=6, text=5, entities=6, k=K, tokens=(T, 5))


def memes(sizes):
    """Captions with what ends a line elsewhere than in JSON."""
    return [
        {
            "id": f"{split}{i}",
            "split": split,
            "caption": f"a\u2028b\x85c\n{i}",
            "label": i % 3 - 1,
            "image": f"img/{i}.png",
        }
        for split, n in sizes.items()
        for i in range(n)
    ]


def values(n, *, dtype="float32", seed=0):
    """Random columns of n memes, by their definition and not by `columns`."""
    rng = np.random.default_rng(seed)

    def floats(*shape):
        return rng.normal(size=(n, *shape)).astype(dtype)

    return {
        "image": floats(6),
        "text": floats(5),
        "entities": floats(K, 6),
        "where": rng.random((n, K)) < 0.5,
        "boxes": floats(K, 4).astype("float32"),
        "sizes": rng.integers(1, 99, (n, 2)).astype("int32"),
        "classes": rng.integers(0, 91, (n, K)).astype("int32"),
        "scores": rng.random((n, K)).astype("float32"),
        "hash": rng.integers(0, 2**64, n, dtype="uint64"),
        "tokens": floats(T, 5),
        "token_where": rng.random((n, T)) < 0.5,
        "box_features": floats(K, 7),
        "masks": rng.integers(0, 256, (n, K, 28, 28)).astype("uint8"),
    }


def writer(folder, *, sizes=SIZES, chunk=4, parts=PARTS, dtype="float32", **more):
    expected = columns(**WIDTHS, dtype=dtype, box_features=7, masks=True)
    return StoreWriter(
        folder,
        parts=parts,
        columns=expected,
        chunk=chunk,
        memes=memes(sizes),
        facts={"preset": "demo"},
        **more,
    )


def write(folder, *, shards=None, **options):
    """All shards, or some, of the same columns."""
    made = writer(folder, **options)
    whole = values(made.rows(made.count - 1).stop)
    for shard in made.missing() if shards is None else shards:
        rows = made.rows(shard)
        made.write(shard, {k: v[rows.start : rows.stop] for k, v in whole.items()})
    return made, whole


def same(opened, whole, sizes):
    start = 0
    assert list(opened.splits) == list(sizes)
    for name, n in sizes.items():
        split, rows = opened.splits[name], slice(start, start + n)
        start += n
        lines = [meme for meme in memes(sizes) if meme["split"] == name]
        assert len(split) == n
        assert split.ids == tuple(meme["id"] for meme in lines)
        assert split.captions == tuple(meme["caption"] for meme in lines)
        assert split.images == tuple(meme["image"] for meme in lines)
        np.testing.assert_array_equal(split.labels, [m["label"] for m in lines])
        assert split.labels.dtype == np.int32
        for column, values_ in whole.items():
            source = split.features if hasattr(split.features, column) else split
            attribute = {"hash": "hashes"}.get(column, column)
            got = getattr(source, attribute)
            expected = values_[rows]
            if expected.dtype == np.float16:
                expected = expected.astype(np.float32)
            np.testing.assert_array_equal(got, expected, err_msg=column, strict=True)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    chunk=st.integers(1, 9),
)
def test_read_is_what_was_written(sizes, chunk):
    named = dict(zip(SIZES, sizes, strict=False))
    with tempfile.TemporaryDirectory() as folder:
        made, whole = write(folder, sizes=named, chunk=chunk)
        assert made.count == -(-sum(sizes) // chunk)
        same(open_store(folder, key=made.facts["key"]), whole, named)


def test_of_one_shard_nothing_is_copied(tmp_path):
    write(tmp_path, chunk=5)
    splits = open_store(tmp_path).splits
    for name in ("image", "entities", "masks", "where"):
        of_file = splits["train"].parts[0][0][name]
        assert np.shares_memory(splits["train"].column(name), of_file)
        assert not of_file.flags.writeable
    # Graphs can be made of it.
    graph = graphs.batch(splits["train"].features, [4, 0])
    assert np.isfinite(graph.nodes["features"]).all()


def test_half_floats(tmp_path):
    made = writer(tmp_path, dtype="float16", chunk=20)
    whole = values(10)
    made.write(0, whole)
    split = open_store(tmp_path).splits["train"]
    np.testing.assert_array_equal(
        split.features.entities, whole["entities"][:5].astype("f2").astype("f4")
    )
    assert split.features.entities.dtype == np.float32
    assert split.parts[0][0]["boxes"].dtype == np.float32
    size = (tmp_path / "shards" / "00000.safetensors").stat().st_size
    with pytest.raises(ValueError, match=r"image has NaN .*65504.* in 1 of 10.*train1"):
        made.write(
            0, whole | {"image": np.float32([[0] * 6, [1e5] * 6] + [[1] * 6] * 8)}
        )
    # What was there still is.
    assert (tmp_path / "shards" / "00000.safetensors").stat().st_size == size


def test_without_what_is_optional(tmp_path):
    plain = columns(image=6, text=5, entities=6, k=0)
    made = StoreWriter(
        tmp_path, parts={}, columns=plain, chunk=9, memes=memes({"test": 2}), facts={}
    )
    some = values(2)
    none = {k: v[:, :0] if v.shape[1:2] == (K,) else v for k, v in some.items()}
    made.write(0, {name: none[name] for name in plain})
    split = open_store(tmp_path).splits["test"]
    assert split.masks is None and split.box_features is None
    assert split.features.tokens is None and split.features.entities.shape == (2, 0, 6)
    with pytest.raises(ValueError, match="no column 'masks', it has boxes, classes"):
        split.column("masks")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from memejax.store import shards
from test_store import write

whole, calls = shards.save, []

def half(tensors):
    data = whole(tensors)
    calls.append(data)
    if len(calls) == 2:
        part = os.path.join(sys.argv[1], "shards")
        (name,) = [n for n in os.listdir(part) if n.endswith(".part")]
        with open(os.path.join(part, name), "wb") as file:
            file.write(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return data

shards.save = half
write(sys.argv[1])
"""


def test_killed_while_writing(tmp_path):
    """What is there is whole, and only what is missing is written again."""
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), here])
    assert done.returncode == -signal.SIGKILL
    first = tmp_path / "shards" / "00000.safetensors"
    before = first.stat().st_mtime_ns
    with pytest.raises(
        ValueError, match="2 of 3 shards are missing or broken: run its extraction"
    ):
        open_store(tmp_path)
    assert writer(tmp_path).missing() == [1, 2]
    _, whole = write(tmp_path)
    same(open_store(tmp_path), whole, SIZES)
    assert first.stat().st_mtime_ns == before
    assert sorted(p.name for p in tmp_path.rglob("*.part")) == []


def reseal(path, tensors):
    """Writes a shard with the digest of its arrays."""
    rest = {name: array for name, array in tensors.items() if name != "digest"}
    digest = np.frombuffer(digest_of(rest), np.uint8)
    save_file(rest | {"digest": digest}, path)


def test_damaged_shards(tmp_path):
    made, whole = write(tmp_path / "one")
    other, _ = write(tmp_path / "other", parts=PARTS | {"image": {"size": 48}})
    paths = [read.shard_path(made.folder, i) for i in range(3)]
    os.truncate(paths[0], paths[0].stat().st_size - 10)
    paths[1].unlink()
    paths[2].write_bytes(read.shard_path(other.folder, 2).read_bytes())
    with pytest.raises(ValueError) as error:
        open_store(made.folder)
    for said in ("3 of 3", "truncated", "no shard", "shard of another store"):
        assert said in str(error.value)
    assert made.missing() == [0, 1, 2]
    write(tmp_path / "one")
    same(open_store(made.folder), whole, SIZES)
    # Columns of another shape under the same key.
    tensors = load_file(paths[2])
    reseal(paths[2], tensors | {"image": np.zeros((2, 7), "f4")})
    with pytest.raises(
        ValueError, match=r"not match its store.json in the columns image$"
    ):
        open_store(made.folder)


def test_values_that_are_not_finite(tmp_path):
    made, whole = write(tmp_path)
    last = {k: v[8:] for k, v in whole.items()}
    for name, value in (("entities", np.nan), ("boxes", np.inf), ("tokens", -np.inf)):
        bad = last[name].copy()
        bad[1].flat[3] = value
        with pytest.raises(ValueError, match=f"column {name} has NaN or infinity in 1"):
            made.write(2, last | {name: bad})
    # And in a file that something else wrote.
    path = read.shard_path(tmp_path, 2)
    bad = last["text"].copy()
    bad[:] = np.nan
    reseal(path, load_file(path) | {"text": bad})
    opened = open_store(tmp_path)
    assert np.isfinite(opened.splits["train"].features.text).all()
    with pytest.raises(
        ValueError,
        match="text of test_unseen has NaN.* 2 of 2 memes: test_unseen0, test_unseen1",
    ):
        _ = opened.splits["test_unseen"].features


def test_columns_of_another_kind(tmp_path):
    made = writer(tmp_path)
    four = values(4)
    wrong = {
        r"sizes, token_where, tokens, where, expected box_f": {
            k: v for k, v in four.items() if k != "text"
        },
        r"text float32 \(4, 4\), expected float32 \(4, 5\)": four
        | {"text": four["text"][:, :4]},
        r"image float32 \(3, 6\)": values(3),
        r"sizes int64": four | {"sizes": four["sizes"].astype(int)},
        r"image int32": four | {"image": four["image"].astype("i4")},
    }
    for said, columns_ in wrong.items():
        with pytest.raises(ValueError, match=said):
            made.write(0, columns_)
    with pytest.raises(
        ValueError, match="got dtype 'bfloat16', expected one of float32"
    ):
        columns(**WIDTHS, dtype="bfloat16")
    assert made.missing() == [0, 1, 2]


def test_another_store(tmp_path):
    made, _ = write(tmp_path)
    key = made.facts["key"]
    for change, said in (
        (
            {"image": {"size": 48, "dtype": "float32"}},
            "image.size: 24 there, 48 requested",
        ),
        ({"data": "else"}, "data: a digest there, else requested"),
    ):
        with pytest.raises(OtherStoreError, match=said):
            writer(tmp_path, parts=PARTS | change)
    for options, said in (
        (dict(chunk=5), "layout.chunk: 4 there, 5 requested"),
        (dict(dtype="float16"), "layout.columns:"),
    ):
        with pytest.raises(OtherStoreError, match=said):
            writer(tmp_path, **options)
    with pytest.raises(ValueError, match="has other data and image:"):
        open_store(
            tmp_path, key=key.replace("data:", "data:0").replace("image:", "image:0")
        )
    # Nothing of this changed what is there.
    assert open_store(tmp_path, key=key).key == key


def test_no_store(tmp_path):
    with pytest.raises(ValueError, match="no feature store in .*memejax.extract"):
        open_store(tmp_path / "nowhere")
    write(tmp_path)
    facts = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(facts | {"version": 2}))
    with pytest.raises(ValueError, match="has version 2, expected 1"):
        open_store(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(ValueError, match=r"store\.json is damaged"):
        open_store(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps(facts))
    lines = (tmp_path / "memes.jsonl").read_text().split("\n")
    (tmp_path / "memes.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(ValueError, match=r"memes\.jsonl is damaged.*does not match"):
        open_store(tmp_path)
    # The extraction puts it right.
    write(tmp_path)
    assert open_store(tmp_path).splits["train"].ids[0] == "train0"


def test_memes_that_make_no_store(tmp_path):
    plain = dict(parts={}, columns={}, facts={})
    for given_, chunk, said in (
        ([], 4, "got 0 memes in shards of 4"),
        (memes({"a": 1}), 0, "got 1 memes in shards of 0"),
        (memes({"a": 1}) + memes({"b": 1}) + memes({"a": 1}), 4, "'a' are not cont"),
    ):
        with pytest.raises(ValueError, match=said):
            StoreWriter(tmp_path, memes=given_, chunk=chunk, **plain)
    assert not list(tmp_path.iterdir())


def test_keys():
    one = store_key({"a": {"x": 1, "y": [2]}, "b": "text"})
    # SHA-256 of '{"x": 1, "y": [2]}' and of '"text"', worked out with sha256sum.
    assert one == "a:c4e7bb9c0f38ba63 b:1e1d0f251d3a76fa"
    assert one == store_key({"a": {"y": [2], "x": 1}, "b": "text"})
    assert different_parts(one, one) == []
    other = store_key({"a": {"x": 1, "y": [3]}, "c": None})
    assert different_parts(one, other) == ["a", "b", "c"]


@pytest.mark.parametrize("place", ["00000.safetensors", "memes.jsonl", "store.json"])
def test_every_flipped_bit_is_noticed(tmp_path, place):
    made, whole = write(tmp_path / "whole", chunk=5)
    rng = np.random.default_rng(0)
    for number in range(30):
        folder = tmp_path / str(number)
        shutil.copytree(made.folder, folder)
        path = folder / ("shards" if place[0] == "0" else "") / place
        data = bytearray(path.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|broken|has version"):
            open_store(folder)
        # The extraction computes what is damaged again.
        write(folder, chunk=5)
        same(open_store(folder), whole, SIZES)


def test_stores_of_before_are_read_with_a_warning(tmp_path):
    made, whole = write(tmp_path, chunk=20)
    path = read.shard_path(made.folder, 0)
    arrays = load_file(path)
    del arrays["digest"]
    save_file(arrays, path)
    facts = json.loads((tmp_path / "store.json").read_text())
    for name in ("digest", "memes_digest"):
        del facts[name]
    (tmp_path / "store.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match="has no digest"):
        same(open_store(tmp_path), whole, SIZES)
