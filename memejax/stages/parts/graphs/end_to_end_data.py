"""Memes as networks take them whose encoders are trained along: streamed columns."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from memejax import datasets, graphs
from memejax.data import canvases, text
from memejax.graphs.stacked import stack
from memejax.models import crops
from memejax.stages.parts.encoders import encoders_config
from memejax.stages.parts.graphs.supervised import facts_of, open_features
from memejax.store.read import SplitFeatures, Store

# Columns of a meme's graph begin with this.
SLOT = "graph/"


def load(config: ConfigDict) -> datasets.Data:
    """The memes of a store, as columns that are streamed.

    A split's source has `picture`, uint8 `[n, c, c, 3]`, decoded when asked for; `box`,
    float32 `[n, 1 + k, 4]`, of the picture and its entities on it (of the picture alone
    with masks, which have `mask` and `span`); `where`; `input_ids`, `attention_mask`,
    `label`; and the fields of a meme's graph.

    Raises:
        ValueError: as `open_features` and `encoders_config` do; if the memes of the
            data are not those of the store; for relations that its memes cannot have;
            for entities cut out along masks that the store has not kept.
    """
    store = open_features(config)
    theirs, tokenizer = encoders_config(config, store)
    if theirs.data.resize != "square":
        raise ValueError(
            f"data.resize={theirs.data.resize!r}: encoders that are trained along see "
            "pictures as squares, extract with data.resize=square"
        )
    paths, facts = _paths(config, store)
    longest = config.graph.trained.longest
    sizes = {
        name: canvases.canvas_sizes(split.features.sizes, longest=longest)
        for name, split in store.splits.items()
    }
    side = max(int(x.max(initial=1)) for x in sizes.values())
    splits, cut = {}, 0
    for name, split in store.splits.items():
        tokens = text.encode(tokenizer, split.captions, length=theirs.data.text_length)
        cut += tokens.truncated
        labels = np.asarray(split.labels, np.int32)
        source: dict[str, Any] = {
            "picture": canvases.Canvases(
                paths[name], sizes[name], side, config.data.max_pixels
            ),
            "where": split.features.where,
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "label": labels,
        }
        source |= _entities(split, sizes[name], store, size=theirs.data.image_size)
        source |= _slots(config, split)
        splits[name] = datasets.Split(name, source, split.ids, labels)
    # Tokens are nodes where a relation has them.
    kinds = 4 if any("token" in name for name in config.graph.relations) else 3
    widths = graphs.widths(store.splits["train"].features)[:kinds]
    facts = facts_of(config, store, widths=widths) | {
        "vocabulary": tokenizer.get_vocab_size(),
        "truncated_captions": cut,
        "bad_records": facts["bad_records"],
    }
    return datasets.Data(splits, config.data.dev, facts["vocabulary"], facts)


def _paths(
    config: ConfigDict, store: Store
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The picture of every meme, and what there is to say of the data."""
    read = copy.deepcopy(config).unlock()
    read.data.root = config.data.root or store.facts["root"]
    if read.data.root is None:
        raise ValueError(
            f"the store in {store.folder} does not say where its memes are: set "
            "data.root to their folder"
        )
    root, memes, facts = datasets.read_memes(read, store.folder)
    for name, split in store.splits.items():
        mine = list(zip(split.ids, split.captions, split.labels.tolist(), strict=True))
        theirs = [(m.id, m.text, m.label) for m in memes.get(name, [])]
        if mine != theirs:
            pairs = enumerate(zip(mine, theirs, strict=False))
            what = next(
                (
                    f"meme {i} is {a} here and {b} there"
                    for i, (a, b) in pairs
                    if a != b
                ),
                f"{len(mine)} memes here and {len(theirs)} there",
            )
            raise ValueError(
                f"the store in {store.folder} is not of the memes in {root}: of {name} "
                f"{what}; set data.root, data.dev and seed as they were extracted "
                "with, or extract anew to another folder"
            )
    return {name: [meme.image for meme in memes[name]] for name in store.splits}, facts


def _entities(
    split: SplitFeatures, sizes: np.ndarray, store: Store, *, size: int
) -> dict[str, np.ndarray]:
    """What is cut out of each picture as it lies on its canvas."""
    features = split.features
    edges = np.tile(sizes[:, None, ::-1], (1, 1, 2)).astype(np.float32)
    scale = np.tile(
        (sizes / features.sizes).astype(np.float32)[:, None, ::-1], (1, 1, 2)
    )
    whole = edges * np.array([0, 0, 1, 1], np.float32)
    by_mask = store.facts["parts"]["entities"].get("crop") == "mask"
    if not by_mask:
        boxes = np.minimum(features.boxes * scale, edges)
        return {"box": np.concatenate([whole, boxes], axis=1)}
    if split.masks is None:
        raise ValueError(
            f"the store in {store.folder} has entities cut out along masks and has not "
            "kept these: extract anew to another folder with extract.masks=True"
        )
    # Masks are laid over the picture stretched to a square.
    square = np.float32(size) / features.sizes.astype(np.float32)
    boxes = features.boxes * np.tile(square[:, None, ::-1], (1, 1, 2))
    spans = crops.mask_spans(boxes, side=split.masks.shape[-1])
    return {"box": whole, "mask": split.masks, "span": spans}


def _slots(config: ConfigDict, split: SplitFeatures) -> dict[str, np.ndarray]:
    """The fields of a meme's graph but for its features, as columns."""
    c, memes = config.graph, split.features
    empty = {
        name: getattr(memes, name)[..., :0]
        for name in ("image", "text", "entities", "tokens")
        # Edges may be chosen by what entities are like.
        if not (name == "entities" and "similar" in c.relations)
        and getattr(memes, name) is not None
    }
    slots = stack(
        dataclasses.replace(memes, **empty),
        relations=tuple(c.relations),
        overlap=c.overlap,
        similar=c.similar,
    ).slots._asdict()
    del slots["nodes"]["features"]
    flat = traverse_util.flatten_dict(slots, sep="/")
    return {f"{SLOT}{name}": column for name, column in flat.items()}
