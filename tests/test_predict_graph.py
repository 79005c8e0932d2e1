"""A network on graphs predicts new memes as its run scored them."""

import pathlib
import shutil

import numpy as np
import pytest
from support import ROOT, TINY, shrunk

from memejax import metrics, predict, train
from memejax.config import load_config
from memejax.data.hateful_memes import read_jsonl
from memejax.data.inputs import Item
from memejax.errors import UserError
from memejax.extract import extract


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
