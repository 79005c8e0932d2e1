"""A small store of features, and configs that train on it."""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file
from support import ROOT

from memejax.config import load_config
from memejax.store import read
from memejax.store.shards import columns, digest_of
from memejax.store.write import StoreWriter

SIZES = {"train": 48, "dev_seen": 16, "test_unseen": 16, "test_seen": 8}
TINY = {
    "graph.network": "gat",
    "graph.width": 8,
    "graph.epochs": 3.0,
    "graph.batch": 12,
    "graph.eval_every": 4,
    "graph.optimizer.warmup": 2,
    "checkpoint.every": 4,
    "log.every": 4,
}


def tiny(store, kind="stored", **changes):
    config = load_config(str(ROOT / f"configs/graph.py:kind={kind}"))
    config.update_from_flattened_dict(TINY | {"features": str(store)} | changes)
    return config


def write_store(where: pathlib.Path, *, sizes=None, k=3, without=(), root=None):
    """Memes whose label is the sign of picture times caption; none has skill alone.

    The first meme of every split has no entities. `without` are splits whose labels
    are unknown.
    """
    sizes = SIZES if sizes is None else sizes
    rng = np.random.default_rng(0)
    n = sum(sizes.values())
    names = [name for name, count in sizes.items() for _ in range(count)]
    picture, caption = np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (n, 1))[:n].T
    labels = (picture * caption > 0).astype(int)
    image = rng.normal(0, 0.1, (n, 6)) + picture[:, None]
    entities = rng.normal(0, 0.1, (n, k, 6)) + picture[:, None, None]
    there = rng.random((n, k)) < 0.7
    there[[names.index(name) for name in sizes]] = False
    boxes = np.tile([2.0, 4.0, 30.0, 20.0], (n, k, 1))
    memes = [
        {
            "id": f"{i:05}",
            "split": name,
            "caption": f"caption {i}",
            "label": -1 if name in without else int(label),
            "image": f"img/{i:05}.png",
        }
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    writer = StoreWriter(
        where,
        parts={"model": "none"},
        columns=columns(image=6, text=4, entities=6, k=k),
        chunk=32,
        memes=memes,
        facts={
            "root": root,
            "preset": "demo",
            "encoders": {"image_encoder": "one", "text_encoder": "another"},
        },
    )
    values = {
        "image": image.astype(np.float32),
        "text": (rng.normal(0, 0.1, (n, 4)) + caption[:, None]).astype(np.float32),
        "entities": np.where(there[..., None], entities, 0).astype(np.float32),
        "where": there,
        "boxes": np.where(there[..., None], boxes, 0).astype(np.float32),
        "sizes": np.tile(np.array([[32, 40]], np.int32), (n, 1)),
        "classes": np.zeros((n, k), np.int32),
        "scores": there.astype(np.float32),
        "hash": np.arange(n, dtype=np.uint64),
    }
    for shard in range(writer.count):
        rows = writer.rows(shard)
        writer.write(
            shard, {name: x[rows.start : rows.stop] for name, x in values.items()}
        )
    return where


def reseal(where):
    """Writes the digests of a store that a test has changed."""
    for path in sorted((where / "shards").iterdir()):
        arrays = load_file(path)
        arrays.pop("digest", None)
        digest = np.frombuffer(digest_of(arrays), np.uint8)
        save_file(arrays | {"digest": digest}, path)
    facts = json.loads((where / "store.json").read_text())
    memes = (where / "memes.jsonl").read_text("utf-8")
    facts["memes_digest"] = read.digest_of(memes)
    facts["digest"] = read.seal(facts)
    (where / "store.json").write_text(json.dumps(facts))
    return where
