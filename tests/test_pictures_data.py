"""Built-in labelled pictures: balance, determinism, splits, what the label is."""

import numpy as np
import pytest

from memejax.data import synthetic_pictures
from memejax.data.pictures import pictures

KNOBS = dict(train=70, test=30, size=24, concepts=4, seed=3)


@pytest.fixture(scope="module")
def drawn():
    return pictures(**KNOBS)


def same(a, b):
    return np.array_equal(a, b)


def test_shapes_and_balance(drawn):
    assert list(drawn) == ["train", "test"]
    for split, n in (("train", 70), ("test", 30)):
        assert drawn[split].images.shape == (n, 24, 24, 3)
        assert drawn[split].images.dtype == np.uint8
        assert drawn[split].labels.dtype == np.int32
        counts = np.bincount(drawn[split].labels, minlength=4)
        assert len(counts) == 4 and counts.max() - counts.min() <= 1


def test_a_picture_is_its_own(drawn):
    # Other sizes of the splits (and so other batches) change no picture.
    fewer = pictures(**KNOBS | dict(train=37, test=41))
    assert same(fewer["train"].images, drawn["train"].images[:37])
    assert same(fewer["train"].labels, drawn["train"].labels[:37])
    assert same(fewer["test"].images[:30], drawn["test"].images)


def test_no_two_pictures_agree(drawn):
    every = np.concatenate([drawn["train"].images, drawn["test"].images])
    other = pictures(**KNOBS | dict(seed=4))
    every = np.concatenate([every, other["train"].images, other["test"].images])
    assert len(np.unique(every.reshape(200, -1), axis=0)) == 200


def test_the_label_is_the_concept(drawn):
    """The same generator draws the same picture under the label's concept only."""
    for split, number in (("train", 0), ("test", 1)):
        for i in (0, 1, 2, 3, 29):
            fits = []
            for concept in range(4):
                rng = np.random.default_rng(
                    np.random.SeedSequence(3, spawn_key=(number, i))
                )
                cue = rng.integers(2)
                (image,) = synthetic_pictures.draw(
                    np.array([concept]), np.array([cue]), rngs=[rng], size=24
                )
                fits.append(same(image, drawn[split].images[i]))
            assert np.flatnonzero(fits).tolist() == [drawn[split].labels[i]]


def test_the_badge_does_not_tell():
    """Warm or cold, under each class about as often."""
    split = pictures(train=400, test=8, size=16, concepts=2, seed=0)["train"]
    warm, cold = (np.round(tint * 255) for tint in synthetic_pictures.CUE_TINTS)
    corners = [split.images[:, i, j].astype(float) for i in (1, 14) for j in (1, 14)]
    # Per picture, over its corners: how near the nearest is to either tint.
    distance = [
        np.min([np.linalg.norm(corner - tint, axis=1) for corner in corners], axis=0)
        for tint in (warm, cold)
    ]
    is_cold = distance[1] < distance[0]
    for label in (0, 1):
        # 200 coins: 0.5 +- 4 x 0.035.
        assert 0.36 < is_cold[split.labels == label].mean() < 0.64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(concepts=1), "concepts 1: expected 2 to 8"),
        (dict(concepts=9), "concepts 9"),
        (dict(seed=-1), "seed -1"),
        (dict(size=15), "size 15"),
        (dict(train=3), "3 pictures of train"),
        (dict(test=0), "0 pictures of test"),
    ],
)
def test_arguments_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        pictures(**KNOBS | change)
