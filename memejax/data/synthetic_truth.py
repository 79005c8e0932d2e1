"""Latent variables of built-in memes on disk, by id, and where they are shown.

For studies that know what a classifier should look at.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from memejax.data import synthetic_pictures
from memejax.data.synthetic_memes import KEYWORDS, Meme, memes, numbered, picture_rng

Box = tuple[float, float, float, float]


class Truth(NamedTuple):
    """Latent variables of a meme, and the places of its picture that show them.

    Attributes:
        meme: its latent variables.
        keyword: the word of its caption that the label depends on.
        pattern: box of the patch that shows the concept: left, top, right and bottom
            in sides of the picture; None without a decoy.
        decoy: box of the decoy, likewise.
    """

    meme: Meme
    keyword: str
    pattern: Box | None
    decoy: Box | None


def read(root: str | os.PathLike[str], split: str) -> dict[str, Truth]:
    """Derive the truth of a split from the knobs that it was written with.

    Args:
        root: folder that `synthetic_memes.write` made.
        split: one of its splits.

    Returns:
        id -> Truth.

    Raises:
        ValueError: if the folder holds no built-in memes.
    """
    facts = Path(root) / "bayes.json"
    if not facts.is_file():
        raise ValueError(f"{root} holds no built-in memes: there is no bayes.json")
    knobs = json.loads(facts.read_text(encoding="utf-8"))["knobs"]
    sizes, seed, decoy = knobs.pop("sizes"), knobs["seed"], knobs.pop("decoy", False)
    del knobs["size"]
    drawn = memes(split, sizes[split], **knobs)
    rows = list(numbered(sizes, split, seed=seed))
    found: list[tuple[Box | None, Box | None]] = [(None, None)] * len(rows)
    if decoy:
        rngs = [picture_rng(drawn[at], split, seed=seed) for _, at in rows]
        pattern, second = synthetic_pictures.boxes(rngs)
        found = [
            (_box(one), _box(other)) for one, other in zip(pattern, second, strict=True)
        ]
    return {
        str(number): Truth(drawn[at], KEYWORDS[drawn[at].keyword], *both)
        for (number, at), both in zip(rows, found, strict=True)
    }


def _box(row) -> Box:
    left, top, right, bottom = row.tolist()
    return left, top, right, bottom
