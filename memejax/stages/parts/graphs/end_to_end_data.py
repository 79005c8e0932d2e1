"""Memes as streamed columns, for networks trained jointly with their encoders."""

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
from memejax.stages.parts.features import facts_of
from memejax.stages.parts.graphs.supervised import open_features
from memejax.store.read import SplitFeatures, Store

# Prefix of the columns of a meme's graph.
SLOT = "graph/"


def load(config: ConfigDict) -> datasets.Data:
    """Load the memes of a store as streamed columns.

    A split's source has `picture`, uint8 `[n, c, c, 3]`, decoded on access; `box`,
    float32 `[n, 1 + k, 4]`, of the picture and its entities (with masks, of the picture
    alone, and `mask` and `span` for the entities); `where`; `input_ids`,
    `attention_mask`, `label`; and the fields of a meme's graph.

    Raises:
        ValueError: see `open_features` and `encoders_config`; if the memes of the data
            are not those of the store; for relations that its memes cannot have; if
            entities were cut out along masks that the store lacks.
    """
    store = open_features(config)
    encoder_config, tokenizer = encoders_config(config, store)
    if encoder_config.data.resize != "square":
        raise ValueError(
            f"data.resize={encoder_config.data.resize!r}: jointly trained encoders "
            "take square pictures, extract with data.resize=square"
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
        tokens = text.encode(
            tokenizer, split.captions, length=encoder_config.data.text_length
        )
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
        source |= _entities(
            split, sizes[name], store, size=encoder_config.data.image_size
        )
        source |= _slots(config, split)
        splits[name] = datasets.Split(name, source, split.ids, labels)
    # Tokens are nodes only if a relation uses them.
    kinds = 4 if any("token" in name for name in config.graph.relations) else 3
    widths = graphs.widths(store.splits["train"].features)[:kinds]
    facts = facts_of(config, store, widths=widths) | {
        "vocabulary": text.vocabulary_size(tokenizer),
        "truncated_captions": cut,
        "bad_records": facts["bad_records"],
    }
    return datasets.Data(splits, config.data.dev, facts["vocabulary"], facts)


def _paths(
    config: ConfigDict, store: Store
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return the picture of every meme, and facts about the data."""
    read = copy.deepcopy(config).unlock()
    read.data.root = config.data.root or store.facts["root"]
    if read.data.root is None:
        raise ValueError(
            f"the store in {store.folder} does not record where its memes are: set "
            "data.root to their folder"
        )
    root, memes, facts = datasets.read_memes(read, store.folder)
    for name, split in store.splits.items():
        here = list(zip(split.ids, split.captions, split.labels.tolist(), strict=True))
        there = [(m.id, m.text, m.label) for m in memes.get(name, [])]
        if here != there:
            pairs = enumerate(zip(here, there, strict=False))
            what = next(
                (
                    f"meme {i} is {a} here and {b} there"
                    for i, (a, b) in pairs
                    if a != b
                ),
                f"{len(here)} memes here and {len(there)} there",
            )
            raise ValueError(
                f"the store in {store.folder} is not of the memes in {root}: of {name} "
                f"{what}; set data.root, data.dev and seed as for the "
                "extraction, or extract again to another folder"
            )
    return {name: [meme.image for meme in memes[name]] for name in store.splits}, facts


def _entities(
    split: SplitFeatures, sizes: np.ndarray, store: Store, *, size: int
) -> dict[str, np.ndarray]:
    """Return the boxes and masks to cut out of each picture, in canvas pixels."""
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
            f"the store in {store.folder} has entities cut out along masks but not the "
            "masks: extract again to another folder with extract.masks=True"
        )
    # Masks are relative to the picture stretched to a square.
    square = np.float32(size) / features.sizes.astype(np.float32)
    boxes = features.boxes * np.tile(square[:, None, ::-1], (1, 1, 2))
    spans = crops.mask_spans(boxes, side=split.masks.shape[-1])
    return {"box": whole, "mask": split.masks, "span": spans}


def _slots(config: ConfigDict, split: SplitFeatures) -> dict[str, np.ndarray]:
    """Return the fields of the memes' graphs, without features, as columns."""
    c, memes = config.graph, split.features
    empty = {
        name: getattr(memes, name)[..., :0]
        for name in ("image", "text", "entities", "tokens")
        # Edges of "similar" are chosen by the entities' features.
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
