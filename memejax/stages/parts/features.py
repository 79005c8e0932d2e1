"""A run's feature store: opened with its splits checked, and its facts for results."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from memejax.store.read import Store, open_store


def open_features(config: ConfigDict, path: str | pathlib.Path) -> Store:
    """Open a feature store that has the splits to train on and to choose by.

    Args:
        config: the run's config.
        path: of the store.

    Raises:
        ValueError: if there is none, it is damaged, or it lacks the training or the dev
            split.
    """
    store = open_store(path)
    needed = {"train", config.data.dev}
    if not needed <= set(store.splits):
        raise ValueError(
            f"{path} has the splits {sorted(store.splits)}, but the config needs train "
            f"and data.dev={config.data.dev}"
        )
    return store


def facts_of(
    config: ConfigDict, store: Store, *, widths: Sequence[int]
) -> dict[str, Any]:
    """Return facts about the data for results.json: sizes, feature widths, origin."""
    return {
        "name": "memes",
        "features": str(config.features) if config.features else None,
        "sizes": {name: len(split.ids) for name, split in store.splits.items()},
        "widths": list(widths),
        "bad_records": 0,
        "truncated_captions": 0,
        "vocabulary": 0,
    } | _origin(config, store)


def extraction_of(store: Store) -> dict[str, Any]:
    """Return what it takes to extract the same features of new memes.

    Args:
        store: of the features.

    Returns:
        `extract`, leaves of that section of the config; `detector`, its file or None.
    """
    entities, columns = store.facts["parts"].get("entities", {}), store.facts["columns"]
    leaves = {"by": "entities", "most": "k"} | {
        name: name for name in ("grid", "score", "min_side", "max_side", "crop")
    }
    extract = {leaves[name]: v for name, v in entities.items() if name in leaves}
    extract |= {name: name in columns for name in ("tokens", "box_features", "masks")}
    return {"extract": extract, "detector": store.facts.get("detector")}


def _origin(config: ConfigDict, store: Store) -> dict[str, Any]:
    """Return the memes' root; for built-in memes, None and the best possible scores."""
    root = config.data.root or store.facts["root"]
    own = store.folder.absolute() / "memes"
    if root is None or pathlib.Path(root) != own:
        return {"root": root}
    # The extraction writes built-in memes into the store.
    made = own / "bayes.json"
    bayes = json.loads(made.read_text("utf-8"))["bayes"] if made.exists() else None
    return {"root": None} | ({"bayes": bayes} if bayes else {})
