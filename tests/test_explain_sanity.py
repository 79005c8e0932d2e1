"""Attributions of a classifier whose reasons are known, on memes with a decoy.

The classifier is written by hand: the energy of a picture along x less that along y,
times the parity of the caption's keyword, which is what the memes' label is. So its
reasons are the pattern and the keyword, and nothing else. Two sanity checks: with
shuffled weights nothing of them is found (Adebayo et al., arXiv 1810.03292), and with
another meme's caption the regions turn to the other side (compare the perceptual score,
Gat et al., arXiv 2110.14375, which permutes a modality).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from memejax import explain
from memejax.data import synthetic_memes, synthetic_pictures

N, SIZE, CELL, WINDOW = 40, 48, 4, 4
WORDS = (
    *synthetic_memes.KEYWORDS,
    *synthetic_memes.CUE_WORDS,
    *synthetic_memes.DISTRACTORS,
)


def params():
    """Differences along x and y as filters [3, 3, 1, 2], and a worth for each word."""
    ramp = np.array([-1.0, 0.0, 1.0])
    smooth = np.array([0.25, 0.5, 0.25])
    filters = np.stack([np.outer(smooth, ramp), np.outer(ramp, smooth)], -1)
    worth = np.zeros(len(WORDS))
    # Concept 1, stripes upright, has its energy along x; label = (c + k) mod 2.
    worth[:2] = 3.0, -3.0
    return {"filters": filters[:, :, None], "worth": worth}


def picture_logit(params, pixels_bhwc):
    grey = pixels_bhwc.mean(-1, keepdims=True)
    filters = jnp.asarray(params["filters"], jnp.float32)
    found = jax.lax.conv_general_dilated(
        grey, filters, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    energy = jnp.square(found).mean((1, 2))
    return 100 * (energy[:, 0] - energy[:, 1])


def logit(params, pixels_bhwc, one_hot_btv):
    """[b, h, w, 3] and one-hot words [b, t, v] to logits [b]."""
    words = (one_hot_btv @ jnp.asarray(params["worth"], jnp.float32)).sum(1)
    return picture_logit(params, pixels_bhwc) * words


def shuffled(seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.permutation(leaf.reshape(-1)).reshape(leaf.shape)
        for name, leaf in params().items()
    }


@pytest.fixture(scope="module")
def memes():
    quads = synthetic_memes.memes("dev_seen", 2 * N, concepts=2)
    # Both pictures of a quad, with its captions in turn: as many of either label.
    rows = [
        i
        for q in range(N // 2)
        for i in ((4 * q, 4 * q + 3), (4 * q + 1, 4 * q + 2))[q % 2]
    ]
    drawn = [quads[i] for i in rows]
    rngs = [synthetic_memes.picture_rng(m, "dev_seen", seed=0) for m in drawn]
    boxes, decoys = synthetic_pictures.boxes(rngs)
    pictures = synthetic_pictures.draw(
        np.array([m.concept for m in drawn]),
        np.zeros(N, int),
        rngs=rngs,
        size=SIZE,
        decoy=True,
    )
    return drawn, jnp.asarray(pictures, jnp.float32) / 255, boxes, decoys


def one_hot(caption):
    ids = [WORDS.index(word) for word in caption.split()]
    return jnp.eye(len(WORDS))[jnp.array(ids)]


@jax.jit
def maps(params, picture, worth):
    """Occlusion and integrated gradients of one picture [g, g], and the score."""

    def score(x):
        return picture_logit(params, x) * worth

    filling = explain.mean_colour(picture)
    covered = explain.occlusion(
        score, picture, filling_hwc=filling, window=WINDOW * CELL, stride=CELL
    )
    found = explain.integrated_gradients(score, picture, baseline=filling)
    cells = explain.patch_sums(found.values, CELL)
    return {
        "occlusion": covered,
        "integrated": explain.smoothed(cells, WINDOW),
    }, found


def worth_of(params, caption):
    return (one_hot(caption) @ jnp.asarray(params["worth"], jnp.float32)).sum()


def pointed(values, box):
    """Whether the largest value of a map lies in a box."""
    row, column = np.unravel_index(np.argmax(values), values.shape)
    x, y = (column + 0.5) / len(values), (row + 0.5) / len(values)
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def all_maps(weights, memes, captions=None):
    drawn, pictures, _, _ = memes
    captions = captions or [m.text for m in drawn]
    found = []
    for picture, caption in zip(pictures, captions, strict=True):
        values, integrated = maps(weights, picture, worth_of(weights, caption))
        assert integrated.gap < 0.01
        sign = np.sign(integrated.score)
        found.append({name: sign * np.asarray(v) for name, v in values.items()})
    return found


@pytest.fixture(scope="module")
def known(memes):
    return all_maps(params(), memes)


def test_the_classifier_is_right(memes):
    drawn, pictures, _, _ = memes
    scores = [
        logit(params(), picture[None], one_hot(m.text)[None])[0]
        for m, picture in zip(drawn, pictures, strict=True)
    ]
    calls = np.array(scores) > 0
    # Lines of the background mislead it now and then.
    assert (calls == [m.label for m in drawn]).mean() >= 0.9


@pytest.mark.parametrize("name", ["occlusion", "integrated"])
def test_the_pattern_is_found_and_the_decoy_is_not(memes, known, name):
    _, _, boxes, decoys = memes
    at = [pointed(m[name], box) for m, box in zip(known, boxes, strict=True)]
    off = [pointed(m[name], box) for m, box in zip(known, decoys, strict=True)]
    assert np.mean(at) >= 0.95 and np.mean(off) <= 0.05


def test_no_constant_map_finds_it(memes):
    """The best cell of all, chosen knowing every box, is in a quarter of them."""
    _, _, boxes, _ = memes
    shares = []
    for cell in np.ndindex(12, 12):
        constant = np.zeros((12, 12))
        constant[cell] = 1
        shares.append(np.mean([pointed(constant, box) for box in boxes]))
    assert max(shares) < 0.5


@pytest.mark.parametrize("name", ["occlusion", "integrated"])
def test_with_shuffled_weights_the_map_is_another(memes, known, name):
    """Shuffled filters see no direction: the pattern and the decoy are as likely."""
    _, _, boxes, _ = memes
    rates, ranks = [], []
    for seed in range(3):
        weights = params() | {"filters": shuffled(seed)["filters"]}
        random = all_maps(weights, memes)
        rates.append(
            np.mean([pointed(m[name], b) for m, b in zip(random, boxes, strict=True)])
        )
        ranks += [
            stats.spearmanr(one[name].ravel(), other[name].ravel()).statistic
            for one, other in zip(known, random, strict=True)
        ]
    assert np.mean(rates) < 0.5
    assert abs(np.nanmean(ranks)) < 0.3


def words_of(weights, memes):
    """Integrated gradients, and leave one out, of each meme's words [t]."""
    drawn, pictures, _, _ = memes
    found = []
    for m, picture in zip(drawn, pictures, strict=True):
        hot = one_hot(m.text)
        integrated = explain.integrated_gradients(
            lambda x, p=picture: logit(weights, jnp.stack([p] * len(x)), x),
            hot,
            baseline=jnp.zeros_like(hot),
            steps=2,
        )
        spans, start = [], 0
        for word in m.text.split():
            spans.append((start, start + len(word)))
            start += len(word) + 1

        def score(texts, p=picture):
            return np.array(
                [logit(weights, p[None], one_hot(t)[None])[0] for t in texts]
            )

        left_out = explain.leave_one_out(score, m.text, spans=spans)
        by_word = explain.word_sums(integrated.values, jnp.eye(len(hot)))
        # The score is linear in the words: both methods agree, and are exact.
        np.testing.assert_allclose(by_word, left_out, rtol=1e-3, atol=1e-4)
        found.append((m.text.split(), np.asarray(by_word), float(integrated.score)))
    return found


def test_the_keyword_is_found_and_not_with_shuffled_weights(memes):
    def rate(weights):
        firsts = [
            words[int(np.argmax(np.sign(score) * values))]
            for words, values, score in words_of(weights, memes)
        ]
        drawn = memes[0]
        keys = [synthetic_memes.KEYWORDS[m.keyword] for m in drawn]
        return np.mean([a == b for a, b in zip(firsts, keys, strict=True)])

    assert rate(params()) == 1.0
    assert rate(shuffled(0)) < 0.5


def test_with_permuted_captions_the_regions_change_sides(memes):
    """With a caption of the other parity, what spoke for hateful speaks against it."""
    drawn, pictures, boxes, _ = memes
    others = {k: next(m.text for m in drawn if m.keyword == k) for k in (0, 1)}
    sides, turned = [], []
    centre = (np.arange(SIZE // CELL) + 0.5) / (SIZE // CELL)
    for m, picture, box in zip(drawn, pictures, boxes, strict=True):
        inside = np.ix_(
            (box[1] <= centre) & (centre <= box[3]),
            (box[0] <= centre) & (centre <= box[2]),
        )
        own, other = (
            np.asarray(
                maps(params(), picture, worth_of(params(), text))[0]["occlusion"]
            )
            for text in (m.text, others[1 - m.keyword])
        )
        sides.append((own[inside].sum() > 0) == (m.label == 1))
        turned.append((other[inside].sum() > 0) == (m.label == 0))
    assert np.mean(sides) >= 0.9 and np.mean(turned) >= 0.9


def test_permuted_modalities_take_the_interaction_with_them(memes):
    """True pairs have an interaction on the label's side, permuted ones on either."""
    drawn, pictures, _, _ = memes
    both = np.array(
        [
            [
                picture_logit(params(), picture[None])[0] * worth_of(params(), m.text)
                for m in drawn
            ]
            for picture in pictures
        ]
    )
    labels = np.array([m.label for m in drawn])
    order = np.random.default_rng(0).permutation(N)

    def agreement(scores):
        found = []
        for i in range(N):
            rows = np.r_[i, np.delete(np.arange(N), i)]
            part = explain.modalities(scores[np.ix_(rows, rows)])
            # The additive parts are small: neither modality tells anything alone.
            found.append((float(part.interaction) > 0) == labels[i])
        return np.mean(found)

    assert agreement(both) >= 0.9
    assert 0.25 < agreement(both[:, order]) < 0.75
