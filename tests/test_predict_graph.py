"""A network on graphs predicts new memes as its run scored them."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import special
from support import ROOT, TINY, shrunk

from memejax import metrics, predict, train
from memejax.bench.explain import graphs
from memejax.bench.explain.pixels import distinct
from memejax.config import load_config
from memejax.data import synthetic_memes, synthetic_truth
from memejax.data.hateful_memes import read_jsonl
from memejax.data.inputs import Item
from memejax.data.records import Meme
from memejax.errors import UserError
from memejax.explain.words import without_span
from memejax.extract import extract
from memejax.predict.explain import load_explainer, sections, write_pages
from memejax.predict.explain.explanation import EntityScores, Explanation
from memejax.predict.explain.graph_explainer import make_graph_explainer
from memejax.predict.graph_predictor import graph_features
from memejax.restored import restore


def tiny(**changes):
    config = load_config(str(ROOT / "configs/graph.py"))
    parts = ("data", "model")
    sizes = {k: v for k, v in TINY.items() if k.split(".")[0] in parts}
    sizes |= {
        "extract.batch": 16,
        "extract.grid": 2,
        "graph.network": "gat",
        "graph.width": 8,
        "graph.epochs": 1.0,
        "graph.batch": 12,
        "graph.eval_every": 4,
        "graph.optimizer.warmup": 1,
        "checkpoint.every": 4,
    }
    return shrunk(config, sizes, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    config = tiny(seeds=2)
    extract(config, folder / "store")
    config.features = str(folder / "store")
    # What the network's own config says of the extraction is not what counts.
    config.extract.grid = 3
    train.run(config, folder / "run")
    moved = folder / "moved"
    shutil.copytree(folder / "run", moved)
    memes = folder / "store" / "memes"
    (folder / "store" / "shards").rename(folder / "gone")
    found, _ = read_jsonl(memes / "dev_seen.jsonl", root=memes, split="dev_seen")
    return moved, found


def scores(run, seed):
    path = pathlib.Path(run) / seed / "evaluate" / "predictions" / "dev_seen.csv"
    return metrics.read_predictions(path)[1]


def test_as_the_run_scored_them(trained):
    run, memes = trained
    memes = memes[:5]
    predictor = predict.load_predictor(run)
    pictures, errors = predictor.read([meme.image for meme in memes])
    assert errors == {} and predictor.modalities == "both"
    found = predictor.predict(pictures, [meme.text for meme in memes])
    np.testing.assert_allclose(found, scores(run, "0")[:5], rtol=0, atol=1e-5)
    # By content, and one alone.
    contents, _ = predictor.read([pathlib.Path(memes[3].image).read_bytes()])
    alone = predictor.predict(contents, [memes[3].text])
    np.testing.assert_allclose(alone, found[3:4], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="got 1 captions and 5 pictures"):
        predictor.predict(pictures, ["a"])
    with pytest.raises(UserError, match="unknown arm 'cnn': expected average or gat"):
        predict.load_predictor(run, arm="cnn")


def test_the_mean_of_seeds_with_rows_and_errors(trained):
    run, memes = trained
    moderator = predict.load_moderator(run, seed="all")
    items = [Item(meme.id, meme.image, meme.text) for meme in memes[:3]]
    items.insert(1, Item("gone", str(run / "gone.png"), "a"))
    rows = moderator.rows(items)
    assert "is missing" in rows[1].error and rows[1].proba is None
    expected = (scores(run, "0")[:3] + scores(run, "1")[:3]) / 2
    found = [row.raw_proba for row in rows if not row.error]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(scores(run, "0")[:3] - scores(run, "1")[:3]).max() > 1e-4


def test_without_encoders(trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(copy / "encoders")
    with pytest.raises(ValueError, match="keeps no encoders, and cannot score new"):
        predict.load_predictor(copy)


@pytest.fixture(scope="module")
def explained(trained):
    run, memes = trained
    explainer = load_explainer(run)
    return explainer, memes[:3], explainer.explain(memes[:3])


def logit(predictor, pictures, captions):
    read, _ = predictor.read(pictures)
    return special.logit(predictor.predict(read, captions))


def test_words_entities_and_modalities(explained, tmp_path):
    """Against predictions of changed memes, and graphs of fewer entities."""
    explainer, memes, found = explained
    predictor = explainer.predictor
    one, meme = found[0], memes[0]
    of = {"rtol": 0, "atol": 1e-4}
    np.testing.assert_allclose(
        one.logit, logit(predictor, [meme.image], [meme.text]), **of
    )
    shorter = [without_span(meme.text, span) for span in one.words.spans]
    changed = logit(predictor, [meme.image] * len(shorter), shorter)
    np.testing.assert_allclose(one.words.left_out, one.logit - changed, **of)
    assert one.words.integrated is None and one.regions is None

    features = graph_features(predictor.features([meme]))
    assert features.where.sum() == 4 and np.abs(one.entities.left_out).max() > 1e-5
    for number in range(4):
        kept = [i for i in range(4) if i != number]
        fewer = {
            name: getattr(features, name)[:, kept]
            for name in ("entities", "where", "boxes", "classes", "scores")
        }
        (without,) = predictor.logits(dataclasses.replace(features, **fewer))[0]
        drop = one.logit - without
        np.testing.assert_allclose(one.entities.left_out[number], drop, **of)
    none = dataclasses.replace(features, where=np.zeros((1, 4), bool))
    drop = one.logit - predictor.logits(none)[0, 0]
    np.testing.assert_allclose(one.entities.all_left_out, drop, **of)
    assert one.entities.names == ["tile"] * 4
    np.testing.assert_array_equal(one.entities.boxes, features.boxes[0])

    # Tiles do not overlap: covering one is covering it in a file.
    picture = np.asarray(Image.open(meme.image).convert("RGB")).copy()
    half = len(picture) // 2
    picture[:half, half:] = np.round(picture.mean((0, 1)))
    Image.fromarray(picture).save(path := tmp_path / "covered.png")
    drop = one.logit - logit(predictor, [str(path)], [meme.text])
    np.testing.assert_allclose(one.entities.covered[1], drop[0], **of)

    # The run's store has gone: the three memes stand for each other.
    assert one.references == 2 and not one.neighbours
    with_others = logit(
        predictor, [meme.image] * 2, [other.text for other in memes[1:]]
    )
    np.testing.assert_allclose(one.modalities.picture, with_others.mean(), **of)
    np.testing.assert_allclose(one.modalities.both, one.logit, **of)


def test_pages_of_graphs(explained, tmp_path):
    explainer, memes, _ = explained
    index = write_pages(tmp_path, explainer, memes=memes)
    pages = sorted(tmp_path.glob("0000*.html"))
    assert len(pages) == 3 and index.name == "index.html"
    page = pages[0].read_text("utf-8")
    for heading in ("Words", "Entities", "Picture and caption"):
        assert f"<h2>{heading}</h2>" in page
    assert "feature store is not there any more" in page.replace("&#39;", "'")
    assert "There are no gradients by words" in page


def test_references_and_neighbours_of_the_store(trained, explained, tmp_path):
    _, memes, _ = explained
    store = tmp_path / "store"
    shutil.copytree(trained[0].parent / "store", store)
    shutil.copytree(trained[0].parent / "gone", store / "shards")
    restored = restore(trained[0], graphs=True)
    with (config := restored.config.copy_and_resolve_references()).unlocked():
        config.features = str(store)
    explainer = make_graph_explainer(dataclasses.replace(restored, config=config))
    train, _ = read_jsonl(
        store / "memes/train.jsonl", root=store / "memes", split="train"
    )
    # One that is a reference itself, and one that is none.
    own = dataclasses.replace(train[0], image=explainer.training.memes[0].image)
    found = explainer.explain([own, memes[0]])
    assert [one.references for one in found] == [7, 8]
    assert own.id not in [one.meme.id for one in found[0].neighbours]
    cosines = [one.cosine for one in found[1].neighbours]
    assert len(cosines) == 4 and cosines == sorted(cosines, reverse=True)
    assert found[1].note == f"Of all {len(train)} training memes."
    rows = np.linspace(0, len(train) - 1, 8).astype(int)
    expected = logit(
        explainer.predictor, [memes[0].image] * 8, [train[row].text for row in rows]
    ).mean()
    np.testing.assert_allclose(found[1].modalities.picture, expected, atol=1e-4)


def test_maps_and_sections_of_entities():
    scores = EntityScores(
        boxes=np.array([[0, 0, 4, 4], [2, 0, 8, 2]], float),
        size=(4, 8),
        names=["cat", "tv"],
        scores=np.array([0.9, 0.5]),
        covered=np.array([1.0, -2.0]),
        left_out=np.array([0.5, 0.25]),
        all_left_out=-1.5,
    )
    np.testing.assert_array_equal(scores.map((2, 4)), [[1.0, -2, -2, -2], [1, 1, 0, 0]])
    found = Explanation(
        Meme("1", "x.png", "a", -1, "", "", 0),
        np.zeros((2, 4, 3), np.uint8),
        *(0.5, 0.0, None, None, None, 0, (), ""),
        entities=scores,
    )
    section = sections.entities(found)
    table = section.blocks[-1]
    assert [row[1] for row in table.rows] == ["cat", "tv", ""]
    assert [row[3] for row in table.rows] == ["+1.000", "-2.000", ""]
    assert [row[4] for row in table.rows] == ["+0.500", "+0.250", "-1.500"]
    none = dataclasses.replace(
        scores,
        boxes=np.zeros((0, 4)),
        names=[],
        scores=np.zeros(0),
        covered=np.zeros(0),
        left_out=np.zeros(0),
    )
    section = sections.entities(dataclasses.replace(found, entities=none))
    assert "No entity was found" in section.blocks[0].text
    assert sections.entities(dataclasses.replace(found, entities=None)) is None


def test_the_study_of_graphs(explained, tmp_path):
    """Of three memes; its figures are counted, and the run has learnt nothing."""
    restored = explained[0].restored
    size = restored.config.data.image_size
    synthetic_memes.write(tmp_path, train=16, dev=4, test=16, size=size, decoy=True)
    records, _ = read_jsonl(
        tmp_path / "test_unseen.jsonl", root=tmp_path, split="test_unseen"
    )
    truth = synthetic_truth.read(tmp_path, "test_unseen")
    figures = graphs.study(restored, distinct(records, truth, 3))
    assert figures["memes"] == 3 and not figures["deletion"]
    methods = ("keyword: leave one out", "pattern: entity covered")
    rows = {row["method"]: row for row in figures["found"]}
    for name in methods:
        assert 0 <= rows[name]["low"] <= rows[name]["found"] <= rows[name]["high"] <= 1
        assert f"{name}, shuffled weights" in rows
    covered = rows["pattern: entity covered"]
    assert covered["found"] + covered["decoy"] <= 1
