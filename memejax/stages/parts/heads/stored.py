"""A feature store's columns as the data of a head; extraction within a run."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import datasets, frozen
from memejax.errors import UserError
from memejax.models.feature_heads import ensemble_prompts
from memejax.stages.parts.choices import choose
from memejax.stages.parts.features import facts_of, open_features
from memejax.stages.parts.heads.kinds import HEADS
from memejax.store.read import Store
from memejax.store.write import OtherStoreError

# Of a run that extracts its own features.
OWN = "features"


@dataclasses.dataclass(frozen=True)
class HeadData(datasets.Data):
    """Features of memes, and what a head starts from.

    Attributes:
        start: text features of the prompts of class 0 and 1, float32 `[2, d]`, that a
            MemeCLIP starts from; None of other heads.
        zero_shot: their features in the space shared with pictures; likewise.
        similarity: factor and offset of the cosine in a logit, see `extract.sources`.
    """

    start: np.ndarray | None = None
    zero_shot: np.ndarray | None = None
    similarity: tuple[float, float] | None = None


def load(config: ConfigDict, folder: pathlib.Path) -> HeadData:
    """Load a head's features, extracting them if no store is named.

    The run's own store is `folder`/features, which a repeated start completes.

    Raises:
        ValueError: if the store is damaged, lacks a split, or lacks what the
            head needs.
    """
    # Here, as the extraction uses other parts of the stages.
    from memejax.extract.extraction import extract

    path = config.features
    if path is None:
        path = folder / OWN
        try:
            extract(config, path)
        except OtherStoreError as error:
            raise UserError(
                f"{error}\nThe features are those of an earlier start in this folder: "
                "choose another --workdir, or delete them"
            ) from error
    store = open_features(config, path)
    columns = columns_of(config, store)
    splits = {}
    for name, split in store.splits.items():
        source: Any = {
            "image": split.column(columns["image"]),
            "text": split.column(columns["text"]),
            "label": np.asarray(split.labels, np.int32),
        }
        splits[name] = datasets.Split(
            name, source, split.ids, source["label"], split.captions
        )
    own = splits["train"].source
    widths = [own[name].shape[1] for name in ("image", "text")]
    facts = facts_of(config, store, widths=widths)
    facts["encoders"] = dict(store.facts["encoders"])
    use = HEADS[config.heads.head].prompts
    pooled, shared = class_prompts(store, use) if use else (None, None)
    return HeadData(
        splits,
        config.data.dev,
        0,
        facts,
        start=pooled if use == "start" else None,
        zero_shot=shared if use == "zero_shot" else None,
        similarity=store.facts.get("similarity"),
    )


def columns_of(config: ConfigDict, store: Store) -> dict[str, str]:
    """Return the columns of a store that a head takes pictures and captions from.

    Raises:
        ValueError: for an unknown head, or one that these encoders cannot serve.
    """
    kind = choose(HEADS, config.heads.head, "heads.head")
    columns = {"image": kind.image, "text": "text"}
    missing = set(columns.values()) - set(store.facts["columns"])
    if missing or (kind.prompts and not store.facts.get("prompts")):
        raise ValueError(
            f"heads.head={config.heads.head!r} needs encoders that share a space, such "
            f"as a CLIP's towers, and prompts; the features in {store.folder} are of "
            f"{' and '.join(store.facts['encoders'].values())}"
        )
    return columns


def class_prompts(store: Store, use: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompts of both classes, averaged over the templates.

    Args:
        store: of towers that share a space.
        use: of the prompts.

    Returns:
        Pooled and projected features of class 0 and 1, float32 `[2, d]` and `[2, e]`.
    """
    from memejax.extract import prompts

    found = prompts.read(store, use)
    pair = []
    for columns in (found.text, found.shared):
        # Classes may have different numbers of templates.
        rows = [ensemble_prompts(columns[name][:, None])[0] for name in prompts.CLASSES]
        pair.append(np.stack([np.asarray(row) for row in rows]))
    return pair[0], pair[1]


def keep_encoders(config: ConfigDict, folder: pathlib.Path) -> None:
    """Give a run the encoders of its features, so that it can score new memes."""
    store = folder / OWN if config.features is None else pathlib.Path(config.features)
    frozen.link(store, folder)
