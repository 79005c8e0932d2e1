"""Features of prompts, for zero-shot classification and heads that start from them.

A store has them in prompts.safetensors, a shard whose rows are the prompts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from memejax.extract.encoders import Encoders
from memejax.store.read import Store
from memejax.store.shards import Column, read_shard, write_shard

FILE = "prompts.safetensors"
CLASSES = ("benign", "hateful")


class Prompts(NamedTuple):
    """Features of the prompts of both classes for one use.

    Attributes:
        text: class -> float32 `[p, d]`, of p prompts, pooled.
        shared: class -> float32 `[p, e]`, in the space shared with pictures.
    """

    text: Mapping[str, np.ndarray]
    shared: Mapping[str, np.ndarray]


def listed(section: ConfigDict) -> list[dict[str, str]]:
    """Return the prompts of the section `extract.prompts` as JSON, one per row."""
    return [
        {"use": use, "class": name, "text": prompt}
        for use, classes in section.items()
        for name in CLASSES
        for prompt in classes[name]
    ]


def write(
    folder: Path, encoders: Encoders, prompts: Sequence[Mapping[str, str]], *, key: str
) -> None:
    """Write the features of prompts into a store, unless they are there.

    Args:
        folder: of the store.
        encoders: with a shared space.
        prompts: from `listed`.
        key: of the store.
    """
    path = folder / FILE
    if path.exists():
        return
    texts = [prompt["text"] for prompt in prompts]
    found = encoders.text(texts)
    values = {"text": found.pooled, "text_shared": found.shared}
    write_shard(
        path,
        values,
        expected=_columns(encoders.tokens[1], encoders.shared_width),
        ids=texts,
        key=key,
    )


def read(store: Store, use: str) -> Prompts:
    """Read the features of a store's prompts for one use.

    Raises:
        ValueError: if the store has none for it, or the file is damaged.
    """
    rows = store.facts.get("prompts") or []
    chosen = {
        name: [
            i for i, row in enumerate(rows) if (row["use"], row["class"]) == (use, name)
        ]
        for name in CLASSES
    }
    columns: dict[str, Any] = store.facts["columns"]
    if not all(chosen.values()) or "text_shared" not in columns:
        raise ValueError(
            f"the store in {store.folder} has no prompts for {use!r}: only towers that "
            "share a space have them, such as a CLIP's"
        )
    found = read_shard(
        store.folder / FILE,
        expected=_columns(columns["text"][1][0], columns["text_shared"][1][0]),
        memes=len(rows),
        key=store.key,
    )
    return Prompts(
        {name: found["text"][index] for name, index in chosen.items()},
        {name: found["text_shared"][index] for name, index in chosen.items()},
    )


def _columns(text: int, shared: int) -> dict[str, Column]:
    return {
        "text": Column("float32", (text,)),
        "text_shared": Column("float32", (shared,)),
    }
