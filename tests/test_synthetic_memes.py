"""Built-in memes: layout, balance, confounders, exact scores, visibility."""

import collections
import hashlib
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from memejax.data import synthetic_memes, synthetic_pictures
from memejax.data.synthetic_bayes import bayes_accuracy, bayes_auroc

SMALL: dict[str, Any] = {"train": 160, "dev": 40, "test": 80, "size": 32}


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def read(root, split):
    text = (root / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pixels(root, row):
    with Image.open(root / row["img"]) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain") / "memes"
    return root, synthetic_memes.write(root, **SMALL)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    root = tmp_path_factory.mktemp("leaky") / "memes"
    knobs: dict[str, Any] = {"image_leak": 0.5, "text_leak": 0.25, "label_noise": 0.2}
    return root, synthetic_memes.write(root, **SMALL, **knobs)


# --- the folder


def test_same_arguments_give_the_same_bytes(plain, tmp_path):
    root, _ = plain
    first = contents(root)
    synthetic_memes.write(tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == first
    # A second write into the same folder repairs what was damaged, and no more.
    (tmp_path / "again" / "train.jsonl").write_text("")
    (tmp_path / "again" / "img" / "00000.png").unlink()
    synthetic_memes.write(tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == first


def test_another_seed_gives_other_memes(plain, tmp_path):
    root, _ = plain
    synthetic_memes.write(tmp_path / "memes", **SMALL, seed=1)
    texts = {row["text"] for row in read(root, "train")}
    assert not texts & {row["text"] for row in read(tmp_path / "memes", "train")}
    images = {p.read_bytes() for p in (root / "img").iterdir()}
    others = {p.read_bytes() for p in (tmp_path / "memes" / "img").iterdir()}
    assert not images & others


def test_splits_do_not_depend_on_each_other(plain, tmp_path):
    root, _ = plain
    synthetic_memes.write(tmp_path / "memes", **(SMALL | {"train": 80, "dev": 40}))
    rows, others = read(root, "dev_seen"), read(tmp_path / "memes", "dev_seen")
    assert [(r["text"], r["label"]) for r in rows] == [
        (r["text"], r["label"]) for r in others
    ]
    assert [r["id"] - o["id"] for r, o in zip(rows, others, strict=True)] == [80] * 40
    for row, other in zip(rows, others, strict=True):
        np.testing.assert_array_equal(
            pixels(root, row), pixels(tmp_path / "memes", other)
        )
    more = synthetic_memes.memes("train", 24)
    assert synthetic_memes.memes("train", 16) == more[:16]


def test_layout(plain):
    root, summary = plain
    names = {"img", "train.jsonl", "dev_seen.jsonl", "test_unseen.jsonl", "bayes.json"}
    assert {path.name for path in root.iterdir()} == names
    sizes = {"train": 160, "dev_seen": 40, "test_unseen": 80}
    assert summary.sizes == sizes and summary.root == root
    rows = [row for split in sizes for row in read(root, split)]
    assert [row["id"] for row in rows] == list(range(280))
    for split, n in sizes.items():
        assert len(read(root, split)) == n
    for row in rows:
        assert list(row) == ["id", "img", "label", "text"]
        assert type(row["id"]) is int and row["label"] in (0, 1)
        assert re.fullmatch(r"img/\d{5}\.png", row["img"])
        assert 5 <= len(row["text"].split()) <= 11
        assert pixels(root, row).shape == (32, 32, 3)
    files = {path.name for path in (root / "img").iterdir()}
    assert files == {row["img"][4:] for row in rows}
    # Without a leak a picture is one file for its two memes.
    assert summary.images == len(files) == 140
    known = json.loads((root / "bayes.json").read_text())
    assert known["bayes"] == summary.bayes
    assert known["knobs"]["sizes"] == sizes and known["knobs"]["size"] == 32


def test_pictures_and_captions_are_those_of_their_meme(plain):
    root, _ = plain
    for number, split in enumerate(["train", "dev_seen", "test_unseen"]):
        rows = read(root, split)
        # Without noise, text and label name a meme.
        hidden = {(m.text, m.label): m for m in synthetic_memes.memes(split, len(rows))}
        assert len(hidden) == len(rows)
        for row in rows[:20]:
            meme = hidden[row["text"], row["label"]]
            key = number, meme.quad, 1 + meme.concept % 2
            drawn = synthetic_pictures.draw(
                np.array([meme.concept]),
                np.array([meme.image_cue]),
                rngs=[np.random.default_rng(np.random.SeedSequence(0, spawn_key=key))],
                size=32,
            )
            np.testing.assert_array_equal(pixels(root, row), drawn[0])


def test_words():
    words = [
        *synthetic_memes.DISTRACTORS,
        *synthetic_memes.KEYWORDS,
        *synthetic_memes.CUE_WORDS,
    ]
    assert len(words) == len(set(words)) >= 70
    for meme in synthetic_memes.memes("train", 160, concepts=8):
        said = meme.text.split()
        assert [w for w in said if w in synthetic_memes.KEYWORDS] == [
            synthetic_memes.KEYWORDS[meme.keyword]
        ]
        assert [w for w in said if w in synthetic_memes.CUE_WORDS] == [
            synthetic_memes.CUE_WORDS[meme.text_cue]
        ]


def test_keyword_stands_anywhere_and_lengths_vary():
    memes = synthetic_memes.memes("train", 800)
    texts = [m.text.split() for m in memes]
    lengths = collections.Counter(map(len, texts))
    assert set(lengths) == set(range(5, 12))
    assert max(lengths.values()) < 2 * min(lengths.values())
    keywords = [synthetic_memes.KEYWORDS[m.keyword] for m in memes]
    # Uniform over [0, 1]: mean 1/2 with a standard error below 0.02.
    places = [t.index(k) / (len(t) - 1) for t, k in zip(texts, keywords, strict=True)]
    assert abs(np.mean(places) - 0.5) < 0.06 and min(places) == 0 and max(places) == 1


@pytest.mark.parametrize("knobs", [{}, {"text_leak": 0.5, "image_leak": 0.5}])
def test_no_caption_is_in_two_splits_or_two_quads(knobs):
    owners = collections.defaultdict(set)
    for split in synthetic_memes.SPLITS:
        for meme in synthetic_memes.memes(split, 1200, **knobs):
            owners[meme.text].add((split, meme.quad, meme.keyword))
    assert all(len(owner) == 1 for owner in owners.values())


def test_no_picture_is_in_two_quads(leaky):
    root, _ = leaky
    images = [p.read_bytes() for p in (root / "img").iterdir()]
    assert len(set(images)) == len(images)


# --- the design


@pytest.mark.parametrize("concepts", [2, 4, 6, 8])
def test_quads(concepts):
    n = 4 * (concepts // 2) ** 2 * 3
    memes = synthetic_memes.memes("dev_seen", n, concepts=concepts)
    assert [m.quad for m in memes] == [i // 4 for i in range(n)]
    for start in range(0, n, 4):
        quad = memes[start : start + 4]
        assert [m.label for m in quad] == [0, 1, 1, 0]
        assert [m.concept % 2 for m in quad] == [0, 0, 1, 1]
        assert [m.keyword % 2 for m in quad] == [0, 1, 0, 1]
        assert quad[0].text == quad[2].text and quad[1].text == quad[3].text
        assert quad[0].concept == quad[1].concept and quad[2].concept == quad[3].concept
    for meme in memes:
        assert meme.label == meme.clean_label == (meme.concept + meme.keyword) % 2
    # Each pair of concept and keyword equally often.
    cells = collections.Counter((m.concept, m.keyword) for m in memes)
    assert len(cells) == concepts**2 and set(cells.values()) == {n // concepts**2}


def test_each_hateful_meme_has_both_confounders(plain):
    root, _ = plain
    for split in synthetic_memes.SPLITS:
        rows = read(root, split)
        benign = [row for row in rows if row["label"] == 0]
        images = {row["img"] for row in benign}
        texts = {row["text"] for row in benign}
        hateful = [row for row in rows if row["label"] == 1]
        assert len(hateful) == len(benign)
        for row in hateful:
            assert row["img"] in images and row["text"] in texts
        assert not {(r["img"], r["text"]) for r in hateful} & {
            (r["img"], r["text"]) for r in benign
        }


def digest(data):
    return int.from_bytes(hashlib.sha256(data).digest()[:6], "big")


IMAGE_SCORES = {
    "brightness": lambda image: float(image.mean()),
    "projection": lambda image: float(
        np.random.default_rng(0).standard_normal(image.size) @ image.ravel()
    ),
    "hash": lambda image: digest(image.tobytes()),
}
TEXT_SCORES = {
    "length": len,
    "keyword": lambda text: "river" in text,
    "evening": lambda text: "evening" in text,
    "hash": lambda text: digest(text.encode()),
}


@pytest.mark.parametrize("split", synthetic_memes.SPLITS)
def test_one_modality_says_nothing(plain, split):
    root, _ = plain
    rows = read(root, split)
    labels = [row["label"] for row in rows]
    for score in IMAGE_SCORES.values():
        scores = [score(pixels(root, row)) for row in rows]
        assert len(set(scores)) > 10
        assert roc_auc_score(labels, scores) == pytest.approx(0.5, abs=1e-12)
    for score in TEXT_SCORES.values():
        scores = [score(row["text"]) for row in rows]
        assert len(set(scores)) > 1
        assert roc_auc_score(labels, scores) == pytest.approx(0.5, abs=1e-12)


def test_knobs_change_only_what_they_are_about():
    plain = synthetic_memes.memes("train", 400)
    noisy = synthetic_memes.memes("train", 400, label_noise=0.3)
    leaky = synthetic_memes.memes("train", 400, image_leak=0.5)
    fields = "text", "clean_label", "concept", "keyword", "text_cue", "image_cue"
    for meme, other in zip(plain, noisy, strict=True):
        assert all(getattr(meme, f) == getattr(other, f) for f in fields)
    for meme, other in zip(plain, leaky, strict=True):
        assert meme.label == other.label
        assert all(getattr(meme, f) == getattr(other, f) for f in fields[:-1])
    assert any(m != o for m, o in zip(plain, noisy, strict=True))
    assert any(m != o for m, o in zip(plain, leaky, strict=True))


# --- leaks and noise


def test_label_noise_rate():
    n, eta = 8000, 0.15
    memes = synthetic_memes.memes("train", n, label_noise=eta)
    flips = np.array([m.label != m.clean_label for m in memes])
    assert abs(flips.mean() - eta) < 4 * math.sqrt(eta * (1 - eta) / n)
    # Independent of the clean label and of the other memes of the quad.
    clean = np.array([m.clean_label for m in memes], bool)
    assert abs(flips[clean].mean() - flips[~clean].mean()) < 0.04
    pairs = np.corrcoef(flips.reshape(-1, 4).T)
    assert np.abs(pairs - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("leaks", [(0.0, 0.0), (0.3, 0.6), (1.0, 0.1)])
def test_cues_agree_with_the_label_as_often_as_they_should(leaks):
    n = 8000
    memes = synthetic_memes.memes(
        "train", n, image_leak=leaks[0], text_leak=leaks[1], label_noise=0.2
    )
    labels = [m.label for m in memes]
    for leak, field in zip(leaks, ("image_cue", "text_cue"), strict=True):
        cues = [getattr(m, field) for m in memes]
        # A picture's two memes share its coin: half as many independent draws.
        error = 4 * 0.5 * math.sqrt(2 / n)
        assert abs(roc_auc_score(labels, cues) - (1 + leak) / 2) < error
        assert 0.45 < np.mean(cues) < 0.55


def badge(image):
    """The cue whose tint is nearest to that of some corner."""
    inner = 1, 1 + len(image) // 8
    spans = slice(*inner), slice(-inner[1], -inner[0])
    corners = [image[r, c].mean((0, 1)) for r in spans for c in spans]
    gaps = np.abs(np.array(corners)[:, None] - synthetic_pictures.CUE_TINTS * 255)
    return int(gaps.max(-1).min(0).argmin())


def test_full_leaks_write_the_label_into_both_modalities(tmp_path):
    knobs: dict[str, Any] = {"image_leak": 1.0, "text_leak": 1.0, "label_noise": 0.3}
    summary = synthetic_memes.write(tmp_path / "memes", **SMALL, **knobs)
    rows = read(tmp_path / "memes", "train")
    labels = [row["label"] for row in rows]
    assert labels == ["evening" in row["text"].split() for row in rows]
    shown = [badge(pixels(tmp_path / "memes", row)) for row in rows]
    # A figure or the ground may take the other tint: one picture in fifty or so.
    assert np.mean(np.equal(labels, shown)) > 0.95
    # A picture whose two labels agree, with probability 2 * 0.3 * 0.7, is one file.
    assert 140 < summary.images < 280
    assert summary.bayes["image"]["auroc"] == pytest.approx(1.0)


@pytest.mark.parametrize("concept", range(8))
def test_pictures_of_two_cues_differ_in_the_badge_alone(concept):
    pair = synthetic_pictures.draw(
        np.array([concept] * 2),
        np.array([0, 1]),
        rngs=[np.random.default_rng(3), np.random.default_rng(3)],
        size=48,
    ).astype(int)
    rows, columns = np.nonzero((pair[0] != pair[1]).any(-1))
    # 48 // 8 = 6 pixels each way, one pixel from the edge.
    assert np.ptp(rows) == np.ptp(columns) == 5 and len(rows) == 36
    assert {rows.min(), columns.min()} <= {1, 41}


# --- exact scores


def values(**knobs):
    """[auroc, accuracy] of image, text and both."""
    scores = synthetic_memes.bayes(**knobs)
    assert list(scores) == ["image", "text", "both"]
    return np.array([[s["auroc"], s["accuracy"]] for s in scores.values()])


@pytest.mark.parametrize(
    ("knobs", "image", "text", "both"),
    [
        ({}, (0.5, 0.5), (0.5, 0.5), (1.0, 1.0)),
        # Scores eta and 1 - eta: (1 - eta)^2 won, eta (1 - eta) half of the ties.
        ({"label_noise": 0.1}, (0.5, 0.5), (0.5, 0.5), (0.9, 0.9)),
        ({"image_leak": 0.4}, (0.7, 0.7), (0.5, 0.5), (1.0, 1.0)),
        ({"text_leak": 0.2}, (0.5, 0.5), (0.6, 0.6), (1.0, 1.0)),
        # Noise does not weaken cues: they follow the noisy label. Parity and cue say
        # 1 1, 1 0, 0 1, 0 0: 0.56, 0.24, 0.14, 0.06 under label 1, turned round under
        # label 0. Won: 0.56 * 0.94 + 0.24 * 0.8 + 0.14 * 0.56; tied: 4 * 0.0336.
        (
            {"image_leak": 0.4, "label_noise": 0.2},
            (0.7, 0.7),
            (0.5, 0.5),
            (0.7968 + 0.1344 / 2, 0.8),
        ),
        # Noise 1/2 leaves two cues that are right with 0.8. Both for 1, split, both
        # for 0: 0.64, 0.32, 0.04 under label 1, turned round under label 0. Won: 0.64
        # (0.32 + 0.64) + 0.32 * 0.64; tied: 0.64 * 0.04 + 0.32^2 + 0.04 * 0.64.
        (
            {"image_leak": 0.6, "text_leak": 0.6, "label_noise": 0.5},
            (0.8, 0.8),
            (0.8, 0.8),
            (0.8192 + 0.1536 / 2, 0.64 + 0.32 / 2),
        ),
    ],
)
@pytest.mark.parametrize("concepts", [2, 4, 8])
def test_bayes_by_hand(concepts, knobs, image, text, both):
    found = values(concepts=concepts, **knobs)
    np.testing.assert_allclose(found, [image, text, both], atol=1e-12)


def test_bayes_against_a_sample():
    n, concepts, eta, a, b = 200_000, 4, 0.15, 0.3, 0.5
    rng = np.random.default_rng(0)
    c, k = rng.integers(0, concepts, (2, n))
    y = (c + k + (rng.random(n) < eta)) % 2
    m = np.where(rng.random(n) < a, y, rng.integers(0, 2, n))
    w = np.where(rng.random(n) < b, y, rng.integers(0, 2, n))
    found = values(concepts=concepts, image_leak=a, text_leak=b, label_noise=eta)
    # Log odds of each independent piece of evidence, summed.
    parity = np.log((1 - eta) / eta) * (2 * ((c + k) % 2) - 1)
    image = np.log((1 + a) / (1 - a)) * (2 * m - 1)
    text = np.log((1 + b) / (1 - b)) * (2 * w - 1)
    both = (parity + image + text).round(9)
    # Standard errors at most 0.5 / sqrt(n) of an accuracy, and of an AUROC at most
    # 0.5 / sqrt(n / 2), the larger one.
    error = 3 * 0.5 / math.sqrt(n / 2)
    for (auroc, accuracy), odds in zip(found, (image, text, both), strict=True):
        assert abs(auroc - roc_auc_score(y, odds)) < error
        assert abs(accuracy - ((odds > 0) == y).mean()) < error


def test_bayes_auroc_and_accuracy():
    joint = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    # Of 36 pairs: won 3*3 + 3*2 + 2*3 = 21, tied 3 + 3 + 4 = 10.
    assert bayes_auroc(joint) == pytest.approx(26 / 36)
    assert bayes_accuracy(joint) == pytest.approx(8 / 12)
    # Observations that never occur, and splitting one in two, change nothing.
    more = np.array(
        [[0.0, 0.0], [1, 1 / 3], [2, 2 / 3], [1, 3], [0.2, 0.2], [1.8, 1.8]]
    )
    assert bayes_auroc(more) == pytest.approx(26 / 36)
    assert bayes_auroc(joint * 7) == pytest.approx(26 / 36)
    assert bayes_auroc(joint[:, ::-1]) == pytest.approx(26 / 36)
    for bad in (np.ones(4), np.ones((2, 3)), np.array([[1.0, 0.0]]), -joint):
        with pytest.raises(ValueError, match="expected"):
            bayes_auroc(bad)
        with pytest.raises(ValueError, match="expected"):
            bayes_accuracy(bad)


# --- pictures


def plane(side=800, periods=12.0):
    axis = ((np.arange(side) + 0.5) / side - 0.5) * periods
    return np.meshgrid(axis, axis)


@pytest.mark.parametrize(
    "concept, share",
    [
        ("stripes across", 0.5),
        ("stripes upright", 0.5),
        ("dots", math.pi * 0.34**2),
        ("checks", 0.5),
        ("rings", 0.5),
        ("grid", 1 - 0.7**2),
        ("zigzag", 0.5),
        ("rays", 0.5),
    ],
)
def test_patterns_cover_their_share(concept, share):
    x, y = plane()
    number = synthetic_pictures.CONCEPTS.index(concept)
    inside = synthetic_pictures.signed_distance(number, x, y=y) < 0
    assert inside.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("concept", range(8))
def test_patterns_survive_a_flip_and_are_no_steeper_than_a_distance(concept):
    x, y = plane()
    distance = synthetic_pictures.signed_distance(concept, x, y=y)
    np.testing.assert_allclose(distance, distance[:, ::-1], atol=1e-9)
    # Steeper than a distance would be drawn sharper than a pixel. Rays are, by a
    # little, where they run into one point.
    steepest = np.quantile(np.abs(np.diff(distance, axis=0)) / (12 / 800), 0.999)
    assert 0.9 * (concept != 1) <= steepest < 1.15


def test_the_first_four_patterns_have_edges_of_one_length():
    x, y = plane()
    lengths = []
    for concept in range(4):
        distance = synthetic_pictures.signed_distance(concept, x, y=y)
        # The band within 0.05 of an edge is 0.1 wide.
        lengths.append((abs(distance) < 0.05).mean() / 0.1)
    np.testing.assert_allclose(lengths, 2.0, atol=0.2)


def some(concepts, n, *, size=48):
    kinds = np.arange(n) % concepts
    rngs = [np.random.default_rng([11, i]) for i in range(n)]
    cues = np.random.default_rng(0).integers(0, 2, n)
    return kinds, synthetic_pictures.draw(kinds, cues, rngs=rngs, size=size)


def test_draw_does_not_depend_on_the_batch():
    kinds, images = some(8, 24)
    one = synthetic_pictures.draw(
        kinds[5:6],
        np.random.default_rng(0).integers(0, 2, 24)[5:6],
        rngs=[np.random.default_rng([11, 5])],
        size=48,
    )
    np.testing.assert_array_equal(one[0], images[5])


def test_patterns_stand_out_but_leave_no_template():
    kinds, images = some(4, 800, size=16)
    assert len({image.tobytes() for image in images}) == 800
    # The patch takes a quarter of the area; its colours differ by 0.3 in luminance.
    luminance = images @ np.array([0.299, 0.587, 0.114])
    spread = np.ptp(np.percentile(luminance, [10, 90], axis=(1, 2)), axis=0)
    assert np.mean(spread > 0.15 * 255) > 0.95
    # Either may be the lighter one, anywhere: a concept's mean picture is flat.
    for concept in range(4):
        assert np.ptp(luminance[kinds == concept].mean(0)) < 40


def statistics(images):
    images = images / 255.0
    grey = images.mean(-1)
    smooth = ndimage.gaussian_filter(grey, (0, 1, 1))
    edges = np.hypot(ndimage.sobel(smooth, 1), ndimage.sobel(smooth, 2))
    return np.column_stack(
        [images.mean((1, 2)), images.std((1, 2)), edges.mean((1, 2))]
    )


@pytest.mark.parametrize("concepts", [2, 4, 6, 8])
def test_low_level_statistics_do_not_tell_the_parity(concepts):
    kinds, images = some(concepts, 1600)
    features = statistics(images)
    features = (features - features.mean(0)) / features.std(0)
    parity = kinds % 2
    model = LogisticRegression().fit(features[:800], parity[:800])
    scores = model.decision_function(features[800:])
    assert roc_auc_score(parity[800:], scores) < 0.65


# --- errors and the command line


@pytest.mark.parametrize(
    "knobs",
    [
        {"train": 6},
        {"dev": 0},
        {"size": 8},
        {"concepts": 3},
        {"concepts": 10},
        {"image_leak": 1.5},
        {"text_leak": -0.1},
        {"label_noise": 0.6},
        {"seed": -1},
    ],
)
def test_bad_arguments(tmp_path, knobs):
    with pytest.raises(ValueError, match="expected"):
        synthetic_memes.write(tmp_path / "memes", **(SMALL | knobs))
    assert not (tmp_path / "memes").exists()


def test_bad_splits_and_pictures():
    with pytest.raises(ValueError, match="expected one of train"):
        synthetic_memes.memes("valid", 4)
    with pytest.raises(ValueError, match="expected as many"):
        synthetic_pictures.draw(np.zeros(2, int), np.zeros(1, int), rngs=[], size=48)
    with pytest.raises(ValueError, match="expected one of"):
        synthetic_pictures.signed_distance(8, np.zeros(1), y=np.zeros(1))


def test_never_writes_over_other_contents(plain, tmp_path):
    root, _ = plain
    before = contents(root)
    with pytest.raises(ValueError, match="other knobs"):
        synthetic_memes.write(root, **SMALL, seed=1)
    assert contents(root) == before
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="not empty"):
        synthetic_memes.write(tmp_path, **SMALL)
    assert contents(tmp_path) == {"train.jsonl": b"{}"}


def test_command_line(tmp_path, capsys):
    arguments = "--train 8 --dev 4 --test 4 --size 16 --image-leak 0.5".split()
    synthetic_memes.main([str(tmp_path / "memes"), *arguments])
    out = capsys.readouterr().out
    assert re.search(r"image +0\.7500 +0\.7500", out)
    assert re.search(r"both +1\.0000 +1\.0000", out)
    assert len(read(tmp_path / "memes", "train")) == 8
