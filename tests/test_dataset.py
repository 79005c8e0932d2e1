"""From a folder of memes to columns, through the config."""

import json

import numpy as np
import pytest
from PIL import Image
from support import tiny

from memejax import dataset
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


def load(root, workdir, **changes):
    workdir.mkdir(exist_ok=True)
    return dataset.load(tiny(**{"data.root": str(root)} | changes), workdir)


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
    data = dataset.load(tiny(**{"data.synthetic.label_noise": 0.1}), tmp_path)
    assert data.facts["bayes"]["both"]["auroc"] == pytest.approx(0.9)
    assert data.facts["bayes"]["image"]["auroc"] == 0.5
    assert (tmp_path / "memes/train.jsonl").exists()
