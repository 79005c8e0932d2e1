"""From a folder of memes to columns, through the config."""

import json
import struct

import numpy as np
import pytest
from PIL import Image
from support import ROOT, shrunk, tiny

from memejax import datasets
from memejax.config import load_config
from memejax.data import hateful_memes, plans
from memejax.data.pipeline import stream

WORDS = "one two three four five six seven eight".split()


def write(root, split, count, *, first=0, labelled=True, colour=0):
    (root / "img").mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(first, first + count):
        Image.new("RGB", (30 + i, 40), (colour, i, 0)).save(root / f"img/{i:05}.png")
        row = {
            "id": i,
            "img": f"img/{i:05}.png",
            "text": f"{WORDS[i % 8]} {WORDS[i // 8 % 8]}",
        }
        if labelled:
            row["label"] = i % 2
        lines.append(json.dumps(row))
    (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def memes(tmp_path):
    root = tmp_path / "memes"
    write(root, "train", 20)
    write(root, "dev_seen", 6, first=20)
    write(root, "test_unseen", 5, first=26, labelled=False)
    return root


def named(name, **changes):
    config = tiny(**changes)
    config.data.name = name
    return config


def load(root, workdir, **changes):
    workdir.mkdir(exist_ok=True)
    return datasets.load(named("memes", **{"data.root": str(root)} | changes), workdir)


def test_columns_are_the_memes(memes, tmp_path):
    data = load(memes, tmp_path / "run")
    assert {n: len(s.ids) for n, s in data.splits.items()} == {
        "train": 20,
        "dev_seen": 6,
        "test_unseen": 5,
    }
    dev = data.splits["dev_seen"]
    assert dev.ids == [str(i) for i in range(20, 26)]
    plan = plans.sequential(6, batch=6)
    (batch,) = stream(dev.source, plan)
    assert batch["image"].shape == (6, 24, 24, 3)
    np.testing.assert_array_equal(batch["image"][:, 5, 5, 1], np.arange(20, 26))
    np.testing.assert_array_equal(batch["label"], np.arange(20, 26) % 2)
    assert batch["input_ids"].shape == (6, 16) and batch["input_ids"].dtype == np.int32
    assert np.all(batch["attention_mask"].sum(1) >= 3)
    assert dev.labelled and not data.splits["test_unseen"].labelled
    assert data.vocabulary == data.facts["vocabulary"] <= 2000
    assert data.classes == 2 and data.facts["name"] == "memes"
    assert (tmp_path / "run/tokenizer/tokenizer.json").exists()
    assert "bayes" not in data.facts


def test_the_vocabulary_is_of_the_training_captions(memes, tmp_path):
    before = load(memes, tmp_path / "a").vocabulary
    lines = (memes / "dev_seen.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"text": "xylophone xylophone quiz"} for line in lines]
    (memes / "dev_seen.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load(memes, tmp_path / "b").vocabulary == before


def test_validation_is_held_out_by_caption(memes, tmp_path):
    data = load(memes, tmp_path / "run", **{"data.dev": "validation"})
    train, held = data.splits["train"], data.splits["validation"]
    assert len(train.ids) + len(held.ids) == 20 and 2 <= len(held.ids) <= 6
    assert set(train.ids).isdisjoint(held.ids) and "dev_seen" in data.splits
    tokens = [{tuple(x) for x in s.source["input_ids"]} for s in (train, held)]
    assert tokens[0].isdisjoint(tokens[1])


def test_cut_captions_are_counted(memes, tmp_path):
    assert load(memes, tmp_path / "a").facts["truncated_captions"] == 0
    cut = load(memes, tmp_path / "b", **{"data.text_length": 3})
    assert cut.facts["truncated_captions"] == 31
    assert cut.splits["train"].source["input_ids"].shape == (20, 3)


def test_bad_records_stop_the_start_or_are_left_out(memes, tmp_path):
    (memes / "img/00003.png").write_bytes(b"")
    with (memes / "dev_seen.jsonl").open("a") as file:
        file.write("no json\n")
    with pytest.raises(hateful_memes.BadRecordsError) as caught:
        load(memes, tmp_path / "a")
    message = str(caught.value)
    assert "train.jsonl:4" in message and "dev_seen.jsonl:7" in message
    data = load(memes, tmp_path / "b", **{"data.on_bad_record": "skip"})
    assert data.facts["bad_records"] == 2
    assert {n: len(s.ids) for n, s in data.splits.items()} == {
        "train": 19,
        "dev_seen": 6,
        "test_unseen": 5,
    }
    rows = (tmp_path / "b/bad_records.jsonl").read_text().splitlines()
    assert [json.loads(row)["line"] for row in rows] == [4, 7]


def test_a_split_that_is_not_there(memes, tmp_path):
    with pytest.raises(ValueError, match=r"data\.dev=dev_unseen"):
        load(memes, tmp_path / "run", **{"data.dev": "dev_unseen"})


def test_built_in_memes_bring_their_bayes_scores(tmp_path):
    noise = {"data.synthetic.label_noise": 0.1}
    data = datasets.load(
        shrunk(load_config(str(ROOT / "configs/supervised.py")), **noise), tmp_path
    )
    assert data.facts["bayes"]["both"]["auroc"] == pytest.approx(0.9)
    assert data.facts["bayes"]["image"]["auroc"] == 0.5
    assert (tmp_path / "memes/train.jsonl").exists()


# --- labelled pictures


def write_mnist(root, images, labels):
    """The same pictures as training and test split."""
    root.mkdir()
    n, h, w = images.shape
    for split in ("train", "t10k"):
        content = struct.pack(">4B3I", 0, 0, 8, 3, n, h, w) + images.tobytes()
        (root / f"{split}-images-idx3-ubyte").write_bytes(content)
        content = struct.pack(">4BI", 0, 0, 8, 1, n) + bytes(labels)
        (root / f"{split}-labels-idx1-ubyte").write_bytes(content)


@pytest.fixture
def digits(tmp_path):
    """A ramp from left to right, one from top to bottom, and an even grey."""
    ramp = np.tile(8 * np.arange(28, dtype=np.uint8), (28, 1))
    images = np.stack([ramp, ramp.T, np.full_like(ramp, 77)])
    write_mnist(tmp_path / "mnist", images, [4, 9, 0])
    return tmp_path / "mnist", images


def test_built_in_pictures(tmp_path):
    changes = {"data.synthetic.concepts": 3, "data.synthetic.train": 30}
    data = datasets.load(named("pictures", **changes), tmp_path)
    assert {n: len(s.ids) for n, s in data.splits.items()} == {"train": 30, "test": 16}
    assert (data.dev, data.classes, data.vocabulary) == ("test", 3, 0)
    assert data.facts["name"] == "pictures" and data.facts["root"] is None
    assert data.facts["sizes"] == {"train": 30, "test": 16}
    test = data.splits["test"]
    assert test.labelled and test.ids == [str(i) for i in range(16)]
    (batch,) = stream(test.source, plans.sequential(16, batch=16))
    assert set(batch) == {"image", "label", "index", "weight", "draw"}
    assert batch["image"].shape == (16, 24, 24, 3) and batch["image"].dtype == np.uint8
    np.testing.assert_array_equal(batch["label"], test.labels)
    assert np.bincount(test.labels).tolist() == [6, 5, 5]
    other = datasets.load(named("pictures", seed=1, **changes), tmp_path).splits["test"]
    rows = np.arange(16)
    assert np.any(other.source["image"][rows] != batch["image"])
    # Nothing is written beside a run that reads nothing.
    assert not list(tmp_path.iterdir())


def test_mnist_as_it_is_in_three_channels(digits, tmp_path):
    root, images = digits
    config = named("mnist", **{"data.root": str(root), "data.image_size": 28})
    data = datasets.load(config, tmp_path)
    assert (data.dev, data.classes, data.vocabulary) == ("test", 10, 0)
    assert data.facts["sizes"] == {"train": 3, "test": 3}
    assert data.facts["root"] == str(root)
    for split in data.splits.values():
        got = split.source["image"][np.arange(3)]
        assert got.shape == (3, 28, 28, 3)
        for channel in range(3):
            np.testing.assert_array_equal(got[..., channel], images)
        assert split.labels.tolist() == [4, 9, 0] and split.labelled


def test_pictures_are_resized(digits, tmp_path):
    root, _ = digits
    config = named("mnist", **{"data.root": str(root), "data.image_size": 14})
    got = datasets.load(config, tmp_path).splits["train"].source["image"][np.arange(3)]
    assert got.shape == (3, 14, 14, 3) and got.dtype == np.uint8
    # Pixel j lies midway between pixels 2j and 2j + 1; borders see half a filter.
    inner = np.arange(1, 13)
    ramp = np.broadcast_to(16 * inner + 4, (12, 12))
    np.testing.assert_array_equal(got[0, 1:-1, 1:-1, 0], ramp)
    np.testing.assert_array_equal(got[1, 1:-1, 1:-1, 2], ramp.T)
    np.testing.assert_array_equal(got[2], np.full((14, 14, 3), 77))


def test_cifar10_keeps_its_colours(tmp_path):
    root = tmp_path / "cifar"
    root.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for label, name in enumerate(names):
        planes = b"".join(bytes([value]) * 1024 for value in (10 + label, 20, 30))
        (root / f"{name}.bin").write_bytes(bytes([label]) + planes)
    config = named("cifar10", **{"data.root": str(root), "data.image_size": 48})
    data = datasets.load(config, tmp_path)
    assert (data.dev, data.classes) == ("test", 10)
    image, label = (data.splits["train"].source[k] for k in ("image", "label"))
    assert len(image) == 5 and label[np.arange(5)].tolist() == [0, 1, 2, 3, 4]
    expected = np.array([[10 + i, 20, 30] for i in range(5)], np.uint8)
    for corner in ((0, 0), (47, 20)):
        got = image[np.arange(5)][:, corner[0], corner[1]]
        np.testing.assert_array_equal(got, expected)
    # One test picture: of one class.
    assert not data.splits["test"].labelled


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("imagenet", None, "expected one of memes, pictures, mnist, cifar10"),
        ("mnist", None, "data.name='mnist' needs data.root"),
        ("cifar10", None, "data.name='cifar10' needs data.root"),
        ("pictures", "somewhere", "built in: expected no data.root"),
        ("mnist", "nowhere", "train-images-idx3-ubyte"),
    ],
)
def test_names_and_roots_are_checked(tmp_path, name, root, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(named(name, **{"data.root": root}), tmp_path)


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [
        ([0, 1, 1], True),
        ([2, 0, 1], True),
        ([7, 3], True),
        ([2, 0, -1], False),
        ([1, 1], False),
        ([], False),
    ],
)
def test_a_split_is_labelled_if_there_is_something_to_tell_apart(labels, labelled):
    split = datasets.Split("x", {}, [], np.array(labels, np.int32))
    assert split.labelled is labelled
