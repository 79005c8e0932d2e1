"""The study of classifiers that read pixels."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from memejax.bench.explain.figures import Found, inside, shuffled
from memejax.data import synthetic_truth
from memejax.data.records import Meme
from memejax.predict.explain import Explainer, make_explainer
from memejax.predict.explain.explanation import GRAD_CAM, INTEGRATED
from memejax.predict.explain.scoring import DEFAULTS, Settings
from memejax.restored import Restored

# Random orders per meme.
ORDERS = 3
# Parts of a picture's cells that a deletion curve covers, one after the other.
PARTS = 10
Truth = synthetic_truth.Truth


def distinct(
    memes: Iterable[Meme], truth: Mapping[str, Truth], count: int
) -> list[tuple[Meme, Truth]]:
    """Return the first meme of each quad with its truth, `count` at most.

    Raises:
        ValueError: if the memes have no decoy.
    """
    found: dict[int, tuple[Meme, Truth]] = {}
    for meme in memes:
        known = truth[meme.id]
        if known.pattern is None:
            raise ValueError(
                "the memes have no decoy, so that a constant map could win: write them "
                "with python -m memejax.data.synthetic_memes FOLDER --decoy"
            )
        found.setdefault(known.meme.quad, (meme, known))
    return list(found.values())[:count]


def study(
    restored: Restored,
    memes: Sequence[tuple[Meme, Truth]],
    *,
    settings: Settings = DEFAULTS,
) -> dict[str, Any]:
    """Explain memes by a run, and by the same run with shuffled weights.

    Args:
        restored: a run on built-in memes with a decoy.
        memes: n memes with their truths.
        settings: of the attributions.

    Returns:
        "memes"; "found", rows of shares with exact 95 % intervals; "deletion", rows of
        areas with bootstrap intervals; and "completeness" of integrated gradients.
    """
    trained = make_explainer(restored, settings=settings)
    random = make_explainer(shuffled(restored), settings=settings)
    found = Found()
    for number, (meme, known) in enumerate(memes):
        picture = trained.read([meme])[0]
        case = Case(trained, picture, meme.text, known)
        regions(found, case)
        words(found, case)
        without_explaining(found, case)
        permuted(found, case, memes[(number + 1) % len(memes)][0].text)
        case = dataclasses.replace(case, explainer=random, curves=False)
        regions(found, case, suffix=", shuffled weights")
        words(found, case, suffix=", shuffled weights")
    return found.figures()


@dataclasses.dataclass(frozen=True)
class Case:
    """A meme and who explains it.

    Attributes:
        explainer: of a run.
        picture: uint8 `[s, s, 3]`.
        caption: its text.
        known: what it shows, and where.
        curves: whether to compute deletion curves.
    """

    explainer: Explainer
    picture: np.ndarray
    caption: str
    known: Truth
    curves: bool = True

    @functools.cached_property
    def sign(self) -> float:
        """1 if the call is hateful, else -1."""
        score = self.explainer.functions.score
        return 1.0 if score(self.picture[None], [self.caption])[0] >= 0 else -1.0

    def inside(self, at: np.ndarray) -> tuple[bool, bool]:
        """Whether a place (x, y) lies in the pattern's box, and in the decoy's."""
        return inside(at, self.known.pattern), inside(at, self.known.decoy)

    def cells(self, order: np.ndarray) -> float:
        """Return the area under P(call) as cells get the mean colour, in an order."""
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        side = math.isqrt(len(order))
        cell = len(self.picture) // side
        pixels = rank.reshape(side, side).repeat(cell, 0).repeat(cell, 1)
        steps = np.linspace(0, len(order), PARTS + 1)
        mean = np.round(self.picture.mean((0, 1))).astype(np.uint8)
        covered = pixels[None, ..., None] < steps[:, None, None, None]
        pictures = np.where(covered, mean, self.picture)
        return self.area(pictures, [self.caption] * len(steps))

    def words(self, order: np.ndarray) -> float:
        """Return the area under P(call) as words are left out, in an order."""
        texts, captions = self.caption.split(), []
        for count in range(len(texts) + 1):
            out = set(order[:count].tolist())
            captions.append(" ".join(w for i, w in enumerate(texts) if i not in out))
        shape = (len(captions), *self.picture.shape)
        return self.area(np.broadcast_to(self.picture, shape), captions)

    def area(self, pictures: np.ndarray, captions: Sequence[str]) -> float:
        """Return the area under a curve of P(call), on an axis from 0 to 1."""
        logits = self.sign * self.explainer.functions.score(pictures, captions)
        proba = 1 / (1 + np.exp(-logits.astype(float)))
        return float((proba[1:] + proba[:-1]).mean() / 2)


def regions(found: Found, case: Case, *, suffix: str = "") -> None:
    """Compare the maps of a meme with the pattern's box."""
    made = case.explainer.regions(case.picture, case.caption, sign=case.sign)
    if made is None:
        return
    for name, values in made.maps.items():
        towards = values if name.startswith(GRAD_CAM) else case.sign * values
        place = np.array(np.unravel_index(np.argmax(towards), towards.shape))
        at = (place[::-1] + 0.5) / len(towards)
        found.hit(f"pattern: {name}{suffix}", *case.inside(at))
        if case.curves and towards.size >= PARTS:
            order = np.argsort(-towards, axis=None, kind="stable")
            random = random_area(case.cells, towards.size, case)
            found.area(f"cells: {name}", case.cells(order), random)
    if case.curves:
        found.gaps.setdefault("pixels", []).append(made.gap)


def words(found: Found, case: Case, *, suffix: str = "") -> None:
    """Compare the words of a meme with its keyword."""
    made = case.explainer.words(case.picture, case.caption)
    if made is None:
        return
    random = random_area(case.words, len(made.texts), case) if case.curves else 0.0
    values = {"leave one out": made.left_out, INTEGRATED: made.integrated}
    for name, value in values.items():
        if value is None:
            continue
        order = np.argsort(-case.sign * value, kind="stable")
        first = made.texts[order[0]] == case.known.keyword
        found.hit(f"keyword: {name}{suffix}", first)
        if case.curves:
            found.area(f"words: {name}", case.words(order), random)
    if case.curves:
        found.gaps.setdefault("words", []).append(made.gap)


def random_area(area: Callable[[np.ndarray], float], count: int, case: Case) -> float:
    """Return the mean area of random orders of some cells or words."""
    rng = np.random.default_rng(case.known.meme.quad)
    return float(np.mean([area(rng.permutation(count)) for _ in range(ORDERS)]))


def without_explaining(found: Found, case: Case) -> None:
    """Point at the largest contrast, and at a place that is always the same."""
    contrast = _contrast(case.picture)
    place = np.array(np.unravel_index(np.argmax(contrast), contrast.shape)[::-1])
    found.hit("pattern: largest contrast", *case.inside((place + 0.5) / len(contrast)))
    found.hit("pattern: a constant place", *case.inside(np.array([0.25, 0.25])))


def permuted(found: Found, case: Case, other: str) -> None:
    """Compare the call with the label, with the meme's caption and with another's."""
    names = ("its own caption", "another meme's caption")
    pictures = np.stack([case.picture] * 2)
    scores = case.explainer.functions.score(pictures, [case.caption, other])
    for name, score in zip(names, scores, strict=True):
        found.hit(f"label: {name}", (score >= 0) == case.known.meme.label)


def _contrast(picture: np.ndarray) -> np.ndarray:
    """Return the local variance of brightness: what stands out, whatever it means."""
    grey = picture.astype(float).mean(-1)
    around = len(picture) // 5
    rest = grey - ndimage.uniform_filter(grey, around)
    return ndimage.uniform_filter(rest**2, around)
