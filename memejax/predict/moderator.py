"""From memes to rows: known memes found, words read, probability, decision."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from memejax.data import images, known_file, pdq
from memejax.data.inputs import Item
from memejax.data.known_memes import KnownMemes, Match
from memejax.data.ocr import CaptionReader
from memejax.decisions import HATEFUL, NOT_HATEFUL, Decision
from memejax.errors import printable
from memejax.metrics.calibration import shift_prior
from memejax.predict.graph_predictor import GraphPredictor
from memejax.predict.predictor import Predictor
from memejax.predict.rows import Row

# Memes per call: their pictures are in memory together, 10 MB at 224 pixels.
CHUNK = 64


class Prepared(NamedTuple):
    """Items whose pictures and captions are read.

    Attributes:
        items: n, with captions and errors.
        matches: the known meme of each; None for none.
        places: of the m among them that the network has to score.
        pictures: of those, `[m, ...]`, as the predictor has read them.
    """

    items: list[Item]
    matches: list[Match | None]
    places: list[int]
    pictures: np.ndarray


@dataclasses.dataclass(frozen=True)
class Known:
    """A list of known memes, and how it is used.

    Attributes:
        memes: the list.
        same_words: whether a match has the same caption too.
        decides: whether a match is decided by its label, and the network is not run.
    """

    memes: KnownMemes
    same_words: bool = False
    decides: bool = False

    def match(self, items: Sequence[Item], max_pixels: int) -> list[Match | None]:
        """Return the known meme of each item, None for one without."""
        hashes, qualities, _ = pdq.compute_all(
            # An empty path is a picture that cannot be read.
            [item.picture or "" for item in items],
            max_pixels=max_pixels,
        )
        return self.memes.match(
            hashes,
            [item.caption or "" for item in items],
            qualities=qualities,
            same_words=self.same_words,
        )


@dataclasses.dataclass(frozen=True)
class Moderator:
    """A classifier with everything that surrounds it.

    Attributes:
        predictor: of a finished run.
        decision: calibration and threshold; None: raw probabilities, decided at 0.5.
        reader: of captions that are missing.
        known: memes that pictures are looked up among.
        prevalence: share of hateful memes where it is used; None: as in the split
            that calibrated.
    """

    predictor: Predictor | GraphPredictor
    decision: Decision | None
    reader: CaptionReader
    known: Known | None = None
    prevalence: float | None = None

    def for_many(self) -> Moderator:
        """Return the moderator whose batches are of one size, the last one too.

        So that one program is compiled.
        """
        return dataclasses.replace(self, predictor=self.predictor.filled())

    def rows(self, items: Sequence[Item]) -> list[Row]:
        """Return a row for each item; an item that cannot be scored has its error."""
        return self.score(self.prepare(items))

    def prepare(self, items: Sequence[Item]) -> Prepared:
        """Read pictures, and captions off them where they are missing."""
        found, matches = self._matched(items)
        good = [
            i
            for i, item in enumerate(found)
            if item.error is None and not self._is_decided(matches[i])
        ]
        pictures, errors = self.predictor.read([_picture(found[i]) for i in good])
        for place, error in errors.items():
            found[good[place]] = _with_error(found[good[place]], error)
        kept = [i for i in range(len(good)) if i not in errors]
        return Prepared(found, matches, [good[i] for i in kept], pictures[kept])

    def score(self, prepared: Prepared) -> list[Row]:
        """Return a row for each item of `prepare`."""
        captions = [prepared.items[i].caption or "" for i in prepared.places]
        raw = self.predictor.predict(prepared.pictures, captions)
        scores = dict(zip(prepared.places, raw.tolist(), strict=True))
        return [
            self._row(item, prepared.matches[i], scores.get(i))
            for i, item in enumerate(prepared.items)
        ]

    def errors(self, items: Sequence[Item]) -> dict[str, str]:
        """Return id -> reason of each item that cannot be read to its end."""
        found = [item for item in items if item.error is None]
        wrong = images.check_all(
            [_picture(item) for item in found], max_pixels=self.predictor.max_pixels
        )
        unreadable = [_with_error(found[i], error) for i, error in wrong.items()]
        return {
            item.id: item.error or ""
            for item in (*items, *unreadable)
            if item.error is not None
        }

    def _matched(self, items: Sequence[Item]) -> tuple[list[Item], list[Match | None]]:
        """Return the items with their captions, and the known meme of each."""
        if self.known is None:
            return [self._captioned(item) for item in items], [None] * len(items)
        if self.known.same_words:
            found = [self._captioned(item) for item in items]
            return found, self.known.match(found, self.predictor.max_pixels)
        # Words need not be read off a picture that is decided by its hash.
        matches = self.known.match(items, self.predictor.max_pixels)
        return [
            item if self._is_decided(match) else self._captioned(item)
            for item, match in zip(items, matches, strict=True)
        ], matches

    def _captioned(self, item: Item) -> Item:
        """Return the item with its caption read off the picture if it has none."""
        if item.error is not None or item.caption is not None:
            return item
        if self.predictor.modalities == "image":
            return dataclasses.replace(item, caption="")
        try:
            reading = self.reader.read(
                _picture(item), max_pixels=self.predictor.max_pixels
            )
        except images.ImageError as error:
            return _with_error(item, error)
        return dataclasses.replace(item, caption=reading.caption)

    def _is_decided(self, match: Match | None) -> bool:
        """Whether a match makes the network superfluous."""
        return match is not None and self.known is not None and self.known.decides

    def _row(self, item: Item, match: Match | None, raw: float | None) -> Row:
        row = Row(
            item.id,
            caption=item.caption or "",
            matched="" if match is None else match.id,
            error=printable(item.error or ""),
        )
        if row.error:
            return row
        if match is not None and self._is_decided(match):
            decided = HATEFUL if match.label == known_file.HATEFUL else NOT_HATEFUL
            return dataclasses.replace(row, decision=decided)
        if raw is None or not np.isfinite(raw):
            # Weights are finite, or they would not have been restored.
            reason = "the network gives it no finite probability"
            return dataclasses.replace(row, error=reason)
        (proba,), (decision,) = self.judge(np.array([raw]))
        return dataclasses.replace(
            row, proba=float(proba), raw_proba=raw, decision=str(decision)
        )

    def judge(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return calibrated probabilities and decisions, each `[n]`, of raw ones."""
        if self.decision is None:
            return raw, np.where(raw > 0.5, HATEFUL, NOT_HATEFUL)
        proba = self.decision.calibration.apply(raw)
        # A shift keeps the order, so that the threshold's place among the memes stays.
        decided = self.decision.decide(proba)
        if self.prevalence is not None:
            old = self.decision.prevalence
            proba = shift_prior(proba, old=old, new=self.prevalence)
        return proba, decided


def stream(moderator: Moderator, items: Iterable[Item]) -> Iterator[list[Row]]:
    """Yield the rows of items, some at a time, in their order.

    The next pictures are read while the network is at work.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for part in batched(items):
            following = pool.submit(moderator.prepare, part)
            if waiting is not None:
                yield moderator.score(waiting.result())
            waiting = following
        if waiting is not None:
            yield moderator.score(waiting.result())


def batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items, CHUNK at a time."""
    rest = iter(items)
    while part := list(itertools.islice(rest, CHUNK)):
        yield part


def _picture(item: Item) -> images.Picture:
    if item.picture is None:
        raise ValueError(f"{item.id} has no picture: {item.error}")
    return item.picture


def _with_error(item: Item, error: images.ImageError) -> Item:
    name = "" if isinstance(item.picture, bytes) else f" {error.path}"
    return dataclasses.replace(item, error=f"picture{name} {error.reason}")
