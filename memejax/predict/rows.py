"""From memes to rows: words read, known memes found, probability, decision."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from memejax import decisions
from memejax.console import say
from memejax.data import images
from memejax.data.ocr import CaptionReader
from memejax.decisions import HATEFUL, NOT_HATEFUL, Decision
from memejax.errors import UserError, printable
from memejax.metrics import AVERAGE
from memejax.metrics.calibration import shift_prior
from memejax.metrics.thresholds import parse_rule
from memejax.predict.graph_predictor import GraphPredictor
from memejax.predict.inputs import Item
from memejax.predict.predictor import Predictor, load_predictor
from memejax.restored import seeds_of

# Memes per call: their pictures are in memory together, 10 MB at 224 pixels.
CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Row:
    """What is said of one meme.

    Attributes:
        id: of the meme.
        proba: P(hateful), calibrated if the run has been; None with an error.
        raw_proba: P(hateful) as the network has it; None with an error.
        decision: "hateful", "not hateful" or "review"; "" with an error.
        caption: the words that were used, given or read.
        matched: id of the known meme that it is; "" if it is none.
        error: reason why there is no probability; "" if there is one.
    """

    id: str
    proba: float | None = None
    raw_proba: float | None = None
    decision: str = ""
    caption: str = ""
    matched: str = ""
    error: str = ""


FIELDS = tuple(field.name for field in dataclasses.fields(Row))


class Prepared(NamedTuple):
    """Items whose pictures and captions are read.

    Attributes:
        items: n, with captions and errors.
        places: of the m that are usable among them.
        pictures: of those, `[m, ...]`, as the predictor has read them.
    """

    items: list[Item]
    places: list[int]
    pictures: np.ndarray


@dataclasses.dataclass(frozen=True)
class Moderator:
    """A classifier with everything that surrounds it.

    Attributes:
        predictor: of a finished run.
        decision: calibration and threshold; None: raw probabilities, decided at 0.5.
        reader: of captions that are missing.
        prevalence: share of hateful memes where it is used; None: as in the split
            that calibrated.
    """

    predictor: Predictor | GraphPredictor
    decision: Decision | None
    reader: CaptionReader
    prevalence: float | None = None

    def rows(self, items: Sequence[Item]) -> list[Row]:
        """Return a row for each item; an item that cannot be scored has its error."""
        return self.score(self.prepare(items))

    def prepare(self, items: Sequence[Item]) -> Prepared:
        """Read pictures, and captions off them where they are missing."""
        found = [self._captioned(item) for item in items]
        good = [i for i, item in enumerate(found) if item.error is None]
        pictures, errors = self.predictor.read([_picture(found[i]) for i in good])
        for place, error in errors.items():
            found[good[place]] = _with_error(found[good[place]], error)
        kept = [i for i in range(len(good)) if i not in errors]
        return Prepared(found, [good[i] for i in kept], pictures[kept])

    def score(self, prepared: Prepared) -> list[Row]:
        """Return a row for each item of `prepare`."""
        captions = [prepared.items[i].caption or "" for i in prepared.places]
        raw = self.predictor.predict(prepared.pictures, captions)
        scores = dict(zip(prepared.places, raw.tolist(), strict=True))
        return [self._row(item, scores.get(i)) for i, item in enumerate(prepared.items)]

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

    def _row(self, item: Item, raw: float | None) -> Row:
        caption = item.caption or ""
        if raw is None:
            return Row(item.id, caption=caption, error=printable(item.error or ""))
        if not np.isfinite(raw):
            # Weights are finite, or they would not have been restored.
            reason = "the network gives it no finite probability"
            return Row(item.id, caption=caption, error=reason)
        proba, decision = self.judge(np.array([raw]))
        return Row(item.id, float(proba[0]), raw, str(decision[0]), caption)

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


def load_moderator(
    workdir: str | os.PathLike[str],
    *,
    seed: str = "0",
    arm: str = AVERAGE,
    rule: str | None = None,
    certify: str | None = None,
    prevalence: float | None = None,
    captions_cache: str | os.PathLike[str] | None = None,
) -> Moderator:
    """Load the moderator of a finished run from its folder alone.

    Args:
        workdir: the run's folder.
        seed: one of its seeds, or "all", the mean of their probabilities.
        arm: one of its arms, or "average".
        rule: keeps this rule in place of the run's decision.json, see
            `decisions.make`.
        certify: split that the rule's threshold is found on.
        prevalence: see `Moderator`; takes a calibrated run.
        captions_cache: file of captions read before.

    Raises:
        ValueError: if the folder holds no finished run with that seed and arm; if the
            rule cannot be kept; if a prevalence is given for probabilities that are not
            calibrated.
    """
    decision = choose_decision(workdir, seed=seed, arm=arm, rule=rule, certify=certify)
    if prevalence is not None and decision is None:
        raise UserError(
            "a prevalence shifts calibrated probabilities, and this run is not "
            "calibrated for this seed and arm: run python -m memejax.decide, or give "
            "--rule"
        )
    return Moderator(
        load_predictor(workdir, seed=seed, arm=arm),
        decision,
        CaptionReader(cache=captions_cache, say=say),
        prevalence,
    )


def choose_decision(
    workdir: str | os.PathLike[str],
    *,
    seed: str,
    arm: str,
    rule: str | None = None,
    certify: str | None = None,
) -> Decision | None:
    """Return the decision by a rule, or the run's own if it is of this seed and arm."""
    if rule is not None:
        return decisions.make(
            workdir, parse_rule(rule), seed=seed, arm=arm, split=certify
        )
    saved = decisions.read(workdir)
    if saved is None:
        return None
    seeds = seeds_of(workdir, seed)
    if (saved.arm, saved.seeds) != (arm, seeds):
        say(
            f"the run's {decisions.FILE} is of {saved.arm} of seed "
            f"{', '.join(saved.seeds)}: not used"
        )
        return None
    return saved


def _picture(item: Item) -> images.Picture:
    if item.picture is None:
        raise ValueError(f"{item.id} has no picture: {item.error}")
    return item.picture


def _with_error(item: Item, error: images.ImageError) -> Item:
    name = "" if isinstance(item.picture, bytes) else f" {error.path}"
    return dataclasses.replace(item, error=f"picture{name} {error.reason}")
