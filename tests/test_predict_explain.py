"""Why a finished run scored memes as it did, and the pages of it."""

import dataclasses
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from support import without_data

from memejax import explain, predict
from memejax.bench.explain import pixels as bench
from memejax.data import synthetic_memes, synthetic_truth, text
from memejax.data.records import read_jsonl
from memejax.models.clip import ClipText
from memejax.models.distilbert import DistilBert
from memejax.models.encoders import ImageEncoder, TextEncoder
from memejax.models.siglip import SiglipText
from memejax.models.words import AveragedWords
from memejax.predict.explain import load_explainer, make_explainer, write_pages
from memejax.predict.explain.scoring import BATCH, Settings, cell_size
from memejax.restored import restore
from memejax.stages.parts import meme_logits

SPLIT = "dev_seen"
# Few points: these networks are tiny.
FAST = Settings(steps=BATCH, pixel_steps=BATCH)


@pytest.fixture(scope="module")
def memes(finished):
    return records(finished[0] / "memes", SPLIT)


def records(root, split):
    path = root / f"{split}.jsonl"
    return read_jsonl(path, root=root, split=split)[0]


@pytest.fixture(scope="module")
def explainer(finished):
    return load_explainer(finished[0], settings=FAST)


@pytest.fixture(scope="module")
def found(explainer, memes):
    return explainer.explain(memes[:3])


def inputs(restored, memes, pictures):
    pixels = jnp.asarray(pictures, jnp.float32) / 255
    tokens = text.encode(
        restored.tokenizer,
        [m.text for m in memes],
        length=restored.config.data.text_length,
    )
    return pixels, jnp.asarray(tokens.input_ids), jnp.asarray(tokens.attention_mask)


@pytest.mark.parametrize("arm", ["average", "cnn", "vit"])
def test_the_logit_is_that_of_the_probability(finished, memes, arm):
    predictor = predict.load_predictor(finished[0], arm=arm)
    pictures, _ = predictor.read([m.image for m in memes])
    proba = predictor.predict(pictures, [m.text for m in memes])
    restored = restore(finished[0], arm=arm)
    vocabulary = text.vocabulary_size(restored.tokenizer)
    logit = meme_logits.make_logit(restored.config, vocabulary, arm=arm)
    found = logit(restored.variables, *inputs(restored, memes, pictures))
    np.testing.assert_allclose(jax.nn.sigmoid(found), proba, rtol=1e-4, atol=1e-6)


def test_the_logit_of_embeddings_is_that_of_the_tokens(finished, explainer, memes):
    restored = explainer.restored
    pixels, ids, mask = inputs(restored, memes[:3], explainer.read(memes[:3]))
    tables = meme_logits.word_tables(restored.variables)
    # A table for each arm's own text encoder.
    assert sorted(path[1] for path in tables) == ["arms_cnn", "arms_vit"]
    rows = {path: jnp.asarray(table)[ids] for path, table in tables.items()}
    embedded = meme_logits.make_embedded_logit(restored.config, tokens=ids.size)
    logit = meme_logits.make_logit(
        restored.config, text.vocabulary_size(restored.tokenizer)
    )
    expected = logit(restored.variables, pixels, ids, mask)
    found = embedded(restored.variables, pixels, rows, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    # What is not attended to has no influence, and what is has.
    slopes = jax.grad(lambda x: embedded(restored.variables, pixels, x, mask).sum())(
        rows
    )
    for slope in slopes.values():
        assert not np.any(np.asarray(slope)[np.asarray(mask) == 0])
        assert np.any(np.asarray(slope)[np.asarray(mask) == 1])


def test_one_row_stands_for_a_batch_of_equal_ones(explainer, memes):
    restored = explainer.restored
    logit = meme_logits.make_logit(
        restored.config, text.vocabulary_size(restored.tokenizer)
    )
    pixels, ids, mask = inputs(restored, memes[:3], explainer.read(memes[:3]))
    one = tuple(jnp.broadcast_to(x[:1], x.shape) for x in (pixels, ids, mask))
    cases = (
        (ImageEncoder, (one[0], ids, mask), 0),
        (TextEncoder, (pixels, *one[1:]), 1),
    )
    for kind, batch, which in cases:
        expected = logit(restored.variables, *batch)
        with meme_logits.same_inputs(kind):
            found = logit(restored.variables, *batch)
            # Only the first row is looked at.
            changed = list(batch)
            changed[which] = changed[which].at[1:].set(0)
            again = logit(restored.variables, *changed)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        if kind is ImageEncoder:
            np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-6)


def test_words(explainer, memes, found):
    predictor = predict.load_predictor(explainer.restored.folder)

    def logits(picture, captions):
        proba = predictor.predict(np.stack([picture] * len(captions)), captions)
        return np.log(proba) - np.log1p(-proba)

    for meme, one in zip(memes, found, strict=False):
        words = meme.text.split()
        assert list(one.words.texts) == words and one.words.read.all()
        left_out = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
        whole, *rest = logits(one.picture, [meme.text, *left_out])
        np.testing.assert_allclose(one.logit, whole, atol=1e-4)
        np.testing.assert_allclose(
            one.words.left_out, whole - np.array(rest), atol=1e-3
        )
        # Of a network of a dozen updates; `bench.explain` measures a trained one.
        assert one.words.gap < 0.1 and np.isfinite(one.words.integrated).all()


def test_regions(explainer, found):
    for one in found:
        assert list(one.regions.maps) == [
            "occlusion",
            "integrated gradients",
            "Grad-CAM of cnn",
        ]
        shapes = {name: m.shape for name, m in one.regions.maps.items()}
        assert shapes["occlusion"] == (6, 6)
        assert shapes["integrated gradients"] == (12, 12)
        cam = one.regions.maps["Grad-CAM of cnn"]
        assert cam.min() >= 0 and cam.max() <= 1
        # The corner's four squares, by hand: of 1, 2, 2 and 4 cells of 4 pixels.
        covered = np.stack([one.picture] * 4)
        mean = one.picture.mean((0, 1))
        for row, (down, across) in enumerate([(4, 4), (4, 8), (8, 4), (8, 8)]):
            covered[row, :down, :across] = np.round(mean)
        score = explainer.functions.score(covered, [one.meme.text] * 4)
        expected = one.logit - score.mean()
        got = one.regions.maps["occlusion"][0, 0]
        # Rounded colours.
        np.testing.assert_allclose(got, expected, atol=0.02 * abs(one.logit) + 1e-3)


def test_grad_cam_agrees_with_that_of_its_features(finished, memes):
    """`explain.grad_cam` of the arm's classifier behind the mean of the last map."""
    restored = restore(finished[0], arm="cnn")
    pictures = make_explainer(restored, arm="cnn", settings=FAST).read(memes[:2])
    vocabulary = text.vocabulary_size(restored.tokenizer)
    batch = inputs(restored, memes[:2], pictures)
    signs = jnp.array([1.0, -1.0])
    cams = meme_logits.make_grad_cam(restored.config, vocabulary, arm="cnn")
    found = cams(restored.variables, *batch, signs)
    logit = meme_logits.make_logit(restored.config, vocabulary, arm="cnn")
    maps = []

    def keep(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "feature_maps":
            maps.append(result[-1])
        return result

    with nn.intercept_methods(keep):
        logit(restored.variables, *batch)

    def score(features):
        def replace(call, args, kwargs, context):
            own = context.method_name == "feature_maps"
            return [features[:, None, None]] if own else call(*args, **kwargs)

        with nn.intercept_methods(replace):
            return logit(restored.variables, *batch) * signs

    np.testing.assert_allclose(
        found["cnn"], explain.grad_cam(maps[0], score), rtol=1e-3, atol=1e-5
    )
    assert list(found) == ["cnn"]


def test_modalities_and_neighbours(explainer, memes, found):
    for one in found:
        parts = one.modalities
        np.testing.assert_allclose(parts.both, one.logit, atol=1e-5)
        total = parts.picture + parts.caption - parts.neither + parts.interaction
        np.testing.assert_allclose(total, parts.both, atol=1e-4)
        assert one.references == 8
        cosines = [n.cosine for n in one.neighbours]
        assert cosines == sorted(cosines, reverse=True) and len(cosines) == 4
    # A training meme is not its own neighbour.
    train = records(explainer.restored.folder / "memes", "train")
    (own,) = explainer.explain(train[:1])
    assert own.meme.id not in [n.meme.id for n in own.neighbours]
    assert own.note == f"Of {len(train)} of the {len(train)} training memes."


def test_pages(explainer, memes, tmp_path):
    index = write_pages(
        tmp_path / "why", explainer, memes=memes[:2], verdicts=["hateful by x", "no"]
    )
    html = index.read_text("utf-8")
    links = re.findall(r'href="([^"]+)"', html)
    assert links == [f"{i:05d}-{meme.id}.html" for i, meme in enumerate(memes[:2])]
    assert "hateful by x" in html and memes[0].text not in html
    page = (index.parent / links[0]).read_text("utf-8")
    for heading in (
        "Words",
        "Regions",
        "Picture and caption",
        "Nearest training memes",
    ):
        assert f"<h2>{heading}</h2>" in page
    # Every picture is covered, and nothing is loaded from elsewhere.
    assert len(re.findall("<img", page)) == len(re.findall('<img src="data:', page))
    assert page.count('class="cover') == 2 + 4 + 4
    assert not re.search(r'(src|href)="http', page)


def test_ids_and_captions_are_escaped(explainer, memes, tmp_path):
    hostile = dataclasses.replace(
        memes[0], id="../<b>x", text="<script>alert(1)</script> word"
    )
    index = write_pages(tmp_path, explainer, memes=[hostile])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000-b-x.html",
        "index.html",
    ]
    page = (tmp_path / "00000-b-x.html").read_text("utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>x" not in page + index.read_text("utf-8")


def test_without_the_training_memes(finished, memes, tmp_path):
    run = without_data(finished[0], tmp_path / "run")
    alone = load_explainer(run, settings=FAST)
    (one,) = alone.explain(memes[:1])
    assert not one.neighbours and one.modalities is None
    assert one.note == "The run's training memes are not there any more."
    index = write_pages(tmp_path / "why", alone, memes=memes[:1])
    page = next(index.parent.glob("00000*")).read_text("utf-8")
    assert one.note.replace("'", "&#39;") in page
    assert "There are no other memes to compare" in page
    # Two memes are references for each other.
    two = alone.explain(memes[:2])
    assert [o.references for o in two] == [1, 1]


def test_captions_without_words_and_broken_pictures(explainer, memes, tmp_path):
    empty = dataclasses.replace(memes[0], text="")
    (one,) = explainer.explain([empty])
    assert one.words.texts == () and one.words.integrated.shape == (0,)
    write_pages(tmp_path / "why", explainer, memes=[empty])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="broken.png"):
        explainer.explain([dataclasses.replace(empty, image=str(broken))])


def test_shuffled_weights_give_other_maps(explainer, memes, found):
    random = make_explainer(bench.shuffled(explainer.restored), settings=FAST)
    ranks = []
    for meme, one in zip(memes, random.explain(memes[:3]), strict=False):
        own = next(f for f in found if f.meme == meme)
        for name in ("occlusion", "integrated gradients"):
            pair = (own.regions.maps[name].ravel(), one.regions.maps[name].ravel())
            ranks.append(stats.spearmanr(*pair).statistic)
    # Of the same network they are 1.
    assert np.mean(ranks) < 0.5


def test_the_study(explainer, tmp_path):
    """Of three memes; its figures are counted, and the run has learnt nothing."""
    root = tmp_path / "memes"
    size = explainer.restored.config.data.image_size
    synthetic_memes.write(root, train=16, dev=4, test=16, size=size, decoy=True)
    truth = synthetic_truth.read(root, "test_unseen")
    chosen = bench.distinct(records(root, "test_unseen"), truth, 3)
    assert len({known.meme.quad for _, known in chosen}) == 3
    figures = bench.study(explainer.restored, chosen, settings=FAST)
    assert figures["memes"] == 3
    rows = {row["method"]: row for row in figures["found"]}
    assert set(rows) >= {
        "pattern: occlusion",
        "pattern: integrated gradients",
        "pattern: Grad-CAM of cnn",
        "pattern: a constant place",
        "keyword: leave one out",
        "keyword: integrated gradients, shuffled weights",
        "label: another meme's caption",
    }
    for row in rows.values():
        assert 0 <= row["low"] <= row["found"] <= row["high"] <= 1
    for row in figures["deletion"]:
        assert row["low"] <= row["difference"] <= row["high"]
        np.testing.assert_allclose(row["random"] - row["area"], row["difference"])
    json.dumps(figures)
    plain = tmp_path / "plain"
    synthetic_memes.write(plain, train=4, dev=4, test=4, size=size)
    with pytest.raises(ValueError, match="have no decoy"):
        bench.distinct(records(plain, "train"), synthetic_truth.read(plain, "train"), 3)


def test_deletion_curves_by_hand(explainer, memes):
    """The area is 1/2 (p0 + pn) / n + ...; the order decides what goes first."""

    class Functions:
        @staticmethod
        def score(pictures, captions):
            # The logit of how many of the words are left, or of the first pixel.
            del pictures
            return np.array([float(len(c.split())) for c in captions])

    fake = dataclasses.replace(explainer, functions=Functions())
    picture = np.zeros((24, 24, 3), np.uint8)
    case = bench.Case(fake, picture, "a b", None)
    proba = 1 / (1 + np.exp(-np.array([2.0, 1.0, 0.0])))
    expected = (proba[0] / 2 + proba[1] + proba[2] / 2) / 2
    np.testing.assert_allclose(case.words(np.array([1, 0])), expected, rtol=1e-6)


def test_cells():
    assert [cell_size(size, 12) for size in (24, 48, 224, 225, 7)] == [2, 4, 28, 25, 1]
    for size in (24, 224):
        assert size % cell_size(size, 12) == 0


@pytest.mark.parametrize(
    "encoder",
    [
        AveragedWords(30, hidden=8),
        DistilBert(30, hidden=8, layers=1, heads=2, mlp=8, max_length=6, dropout=0.0),
        ClipText(30, max_length=6, hidden=8, layers=1, heads=2, mlp=8, projection=4),
        SiglipText(30, max_length=6, hidden=8, layers=1, heads=2, mlp=8, projection=4),
    ],
    ids=lambda encoder: encoder.family,
)
def test_text_encoders_read_ids_by_their_table_alone(encoder):
    """So that a table with a row per token gives functions of embeddings."""
    ids = np.array([[2, 5, 9, 3, 0, 0], [2, 7, 7, 7, 7, 3]])
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    variables = encoder.init(jax.random.key(0), ids, mask, train=False)
    params = variables["params"]
    rows = jnp.asarray(params["words"])[ids.reshape(-1)]
    other = encoder.clone(vocab_size=ids.size).apply(
        {"params": {**params, "words": rows}},
        np.arange(ids.size).reshape(ids.shape),
        mask,
        train=False,
    )
    expected = encoder.apply(variables, ids, mask, train=False)
    np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-6)
