"""Built-in memes with a decoy: what the knob changes, and what the decoy says."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from memejax.data import synthetic_memes, synthetic_pictures, synthetic_truth

SMALL = {"train": 160, "dev": 40, "test": 80, "size": 32}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    where = tmp_path_factory.mktemp("decoys")
    for name, decoy in (("plain", False), ("decoy", True)):
        synthetic_memes.write(where / name, **SMALL, decoy=decoy)
    return where / "plain", where / "decoy"


def rows_of(root, split):
    text = (root / f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_without_it_every_byte_is_as_it_was(roots):
    """Digests of commit e87e7d6, before the knob."""
    digest = hashlib.sha256()
    for path in sorted(p for p in roots[0].rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(roots[0])).encode())
        if path.suffix == ".png":
            # Pixels: the same file may be compressed otherwise by another Pillow.
            digest.update(np.asarray(Image.open(path)).tobytes())
        else:
            digest.update(path.read_bytes())
    assert (
        digest.hexdigest()
        == "b2f9fdfcbef1e7267a9f877e2b9511bd6e2666b61e12c8b1bb068a85728cbd22"
    )


def test_only_pictures_differ(roots):
    plain, decoy = roots
    for split in synthetic_memes.SPLITS:
        assert rows_of(plain, split) == rows_of(decoy, split)
    knobs = [json.loads((root / "bayes.json").read_text()) for root in roots]
    assert knobs[0]["bayes"] == knobs[1]["bayes"]
    assert knobs[1]["knobs"] == knobs[0]["knobs"] | {"decoy": True}
    with pytest.raises(ValueError, match="other knobs"):
        synthetic_memes.write(plain, **SMALL, decoy=True)


def test_the_box_of_a_pattern_is_where_concepts_differ():
    n, size = 48, 96

    def drawn(concept):
        rngs = [np.random.default_rng([3, i]) for i in range(n)]
        kinds, cues = np.full(n, concept), np.zeros(n, int)
        images = synthetic_pictures.draw(kinds, cues, rngs=rngs, size=size, decoy=True)
        return images.astype(int)

    differ = np.any(drawn(0) != drawn(1), axis=-1)
    rngs = [np.random.default_rng([3, i]) for i in range(n)]
    patterns, decoys = synthetic_pictures.boxes(rngs)
    for row, (pattern, decoy) in enumerate(zip(patterns, decoys, strict=True)):
        down, across = (np.flatnonzero(differ[row].any(axis)) for axis in (1, 0))
        seen = [across[0], down[0], across[-1] + 1, down[-1] + 1]
        # Within the box and a blurred edge, and up to its sides but for a stripe.
        gap = (np.array(seen) / size - pattern) * [1, 1, -1, -1]
        assert (gap > -1.6 / size).all() and (gap < 0.15).all()
        assert 0 <= min(*pattern, *decoy) and max(*pattern, *decoy) <= 1
        apart = np.abs(pattern - decoy)[:2]
        assert apart.max() > 0.4
        # The middle of the picture is in neither.
        for left, top, right, bottom in (pattern, decoy):
            assert not (left < 0.5 < right and top < 0.5 < bottom)


def test_the_pattern_is_in_its_box_and_not_in_the_decoys():
    """Stripes across and upright differ by direction there, and blotches do not."""
    n, size = 400, 48
    kinds = np.arange(n) % 2
    rngs = [np.random.default_rng([5, i]) for i in range(n)]
    boxes = synthetic_pictures.boxes(rngs)
    images = synthetic_pictures.draw(
        kinds, np.zeros(n, int), rngs=rngs, size=size, decoy=True
    )
    grey = ndimage.gaussian_filter(images.mean(-1), (0, 0.7, 0.7))
    down, across = np.diff(grey, axis=1) ** 2, np.diff(grey, axis=2) ** 2
    for found, low, high in ((boxes[0], 0.97, 1.0), (boxes[1], 0.4, 0.6)):
        score = []
        for row, box in enumerate(found):
            left, top, right, bottom = np.round(box * (size - 1)).astype(int)
            parts = (
                m[row, top + 3 : bottom - 2, left + 3 : right - 2]
                for m in (down, across)
            )
            one, other = (part.mean() for part in parts)
            score.append(np.log(one / other))
        area = roc_auc_score(kinds == 0, score)
        assert low <= area <= high, area


def test_the_decoy_says_nothing():
    """Neither its place nor the pattern's, nor its looks, tell concept or label."""
    truth = {
        name: list(values.values())
        for name, values in (
            ("train", memes("train", 2000)),
            ("dev", memes("dev_seen", 400)),
        )
    }
    numbers = {
        name: np.array([[*t.pattern, *t.decoy] for t in found])
        for name, found in truth.items()
    }
    for of in (lambda m: m.concept % 2, lambda m: m.label):
        labels = {k: np.array([of(t.meme) for t in v]) for k, v in truth.items()}
        model = LogisticRegression().fit(numbers["train"], labels["train"])
        proba = model.predict_proba(numbers["dev"])[:, 1]
        # A standard error of 0.03; memes share pictures in pairs.
        assert abs(roc_auc_score(labels["dev"], proba) - 0.5) < 0.12
    places = np.round(numbers["train"][:, [0, 1, 4, 5]] > 0.4)
    pairs, counts = np.unique(places, axis=0, return_counts=True)
    # Twelve ordered pairs of different places, all about equally often.
    assert len(pairs) == 12 and counts.min() > 0.6 * 2000 / 12


def memes(split, n):
    """Truths of a split that nothing was drawn for."""
    drawn = synthetic_memes.memes(split, n)
    rngs = [synthetic_memes.picture_rng(m, split, seed=0) for m in drawn]
    pattern, decoy = synthetic_pictures.boxes(rngs)
    return {
        i: synthetic_truth.Truth(m, "", tuple(a), tuple(b))
        for i, (m, a, b) in enumerate(zip(drawn, pattern, decoy, strict=True))
    }


def test_truth_by_id(roots):
    for root, decoy in zip(roots, (False, True), strict=True):
        for split in synthetic_memes.SPLITS:
            truth = synthetic_truth.read(root, split)
            rows = rows_of(root, split)
            assert set(truth) == {str(row["id"]) for row in rows}
            for row in rows:
                known = truth[str(row["id"])]
                assert known.meme.text == row["text"]
                assert known.meme.label == row["label"]
                assert known.keyword in row["text"].split()
                assert (known.pattern is not None) == decoy == (known.decoy is not None)
    one, other = (synthetic_truth.read(roots[1], "train") for _ in range(2))
    assert one == other
    with pytest.raises(ValueError, match="no bayes.json"):
        synthetic_truth.read(roots[0] / "img", "train")


def test_a_picture_does_not_depend_on_the_batch():
    def one(rows):
        return synthetic_pictures.draw(
            np.array(rows) % 8,
            np.zeros(len(rows), int),
            rngs=[np.random.default_rng([2, i]) for i in rows],
            size=24,
            decoy=True,
        )

    np.testing.assert_array_equal(one([4, 5, 6])[1], one([5])[0])
