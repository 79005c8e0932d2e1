"""Explanations as values.

Shape suffixes: `s` side of a picture, `g` cells along a side of a map, `w` words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from memejax.data.records import Meme
from memejax.explain import Modalities
from memejax.predict.explain.neighbours import Neighbour

# Names of maps and of attributions of words, the default first.
OCCLUSION, INTEGRATED, GRAD_CAM = "occlusion", "integrated gradients", "Grad-CAM"


@dataclasses.dataclass(frozen=True)
class WordScores:
    """Attributions of a caption's w words, in logits: positive towards hateful.

    Attributes:
        texts: the words.
        spans: their characters in the caption.
        left_out: drop of the logit when a word is left out, `[w]`.
        integrated: integrated gradients of its tokens' embeddings, `[w]`; None if the
            classifier has no gradient by them.
        gap: relative error of their total, see `explain.Integrated`.
        read: whether a word has a token among those that the classifier reads, `[w]`.
    """

    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    left_out: np.ndarray
    integrated: np.ndarray | None
    gap: float
    read: np.ndarray


@dataclasses.dataclass(frozen=True)
class RegionScores:
    """Attributions of a picture's regions.

    Attributes:
        maps: name -> `[g, g]`, the default first, in logits, positive towards hateful;
            but Grad-CAM's are at least 0, and towards the call. Those that need
            gradients are left out if the classifier has none by pixels.
        gap: relative error of the total of integrated gradients.
    """

    maps: Mapping[str, np.ndarray]
    gap: float


@dataclasses.dataclass(frozen=True)
class EntityScores:
    """Attributions of the k entities of a picture, in logits.

    Attributes:
        boxes: `[k, 4]`, (x1, y1, x2, y2) in pixels of the picture.
        size: height and width of the picture.
        names: of their classes.
        scores: the detector's confidence, `[k]` in [0, 1].
        covered: drop of the logit when an entity's box is covered in the picture,
            `[k]`.
        left_out: drop when only its node is left out of the graph, `[k]`.
        all_left_out: drop when all entities are.
    """

    boxes: np.ndarray
    size: tuple[int, int]
    names: Sequence[str]
    scores: np.ndarray
    covered: np.ndarray
    left_out: np.ndarray
    all_left_out: float

    def map(self, size: tuple[int, int]) -> np.ndarray:
        """Return `covered` on its boxes, float64 `[h, w]`, 0 elsewhere.

        Where boxes overlap, it is the drop of largest absolute value.

        Args:
            size: h and w.
        """
        found = np.zeros(size)
        scale = np.tile(np.divide(size, self.size)[::-1], 2)
        for row in np.argsort(np.abs(self.covered), kind="stable"):
            left, top, right, bottom = np.round(self.boxes[row] * scale).astype(int)
            found[top:bottom, left:right] = self.covered[row]
        return found


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One meme explained.

    Attributes:
        meme: its record.
        picture: as the classifier saw it, uint8 `[s, s, 3]`; of a network on graphs
            `[h, w, 3]` in its own proportions.
        proba: P(hateful).
        logit: ln(p / (1 - p)).
        words: of the caption; None if the classifier reads none.
        regions: of the picture; None if the classifier sees none, or entities instead.
        modalities: in logits; None without reference memes.
        references: number of reference memes behind them.
        neighbours: nearest training memes, the nearest first.
        note: a sentence on the training memes.
        entities: of the picture; None if the classifier is none on graphs.
    """

    meme: Meme
    picture: np.ndarray
    proba: float
    logit: float
    words: WordScores | None
    regions: RegionScores | None
    modalities: Modalities | None
    references: int
    neighbours: Sequence[Neighbour]
    note: str
    entities: EntityScores | None = None


class References(NamedTuple):
    """Memes whose pictures and captions stand for others.

    Attributes:
        pictures: uint8 `[r, s, s, 3]`.
        captions: r texts.
        scores: logits of each picture (row) with each caption, `[r, r]`.
    """

    pictures: np.ndarray
    captions: Sequence[str]
    scores: np.ndarray

    def only(self, kept: Sequence[int]) -> References:
        """Return some of them."""
        captions = [self.captions[i] for i in kept]
        return References(
            self.pictures[kept], captions, self.scores[np.ix_(kept, kept)]
        )
