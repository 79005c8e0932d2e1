"""Why a classifier scored a meme as it did: words, regions, modalities, neighbours."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from memejax import explain
from memejax.data import images
from memejax.data.caption_words import caption_words
from memejax.data.records import Meme
from memejax.explain import Modalities
from memejax.metrics import AVERAGE
from memejax.predict.explain.neighbours import Neighbour, Neighbours, find_neighbours
from memejax.predict.explain.scoring import (
    DEFAULTS,
    Functions,
    Settings,
    make_functions,
)
from memejax.restored import Restored, restore

# Names of maps and of attributions of words, the default first.
OCCLUSION, INTEGRATED, GRAD_CAM = "occlusion", "integrated gradients", "Grad-CAM"
# Reference memes that stand for another picture and another caption.
REFERENCES = 8
# Neighbours shown.
NEAREST = 4


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
class Explanation:
    """One meme explained.

    Attributes:
        meme: its record.
        picture: as the classifier saw it, uint8 `[s, s, 3]`.
        proba: P(hateful).
        logit: ln(p / (1 - p)).
        words: of the caption; None if the classifier reads none.
        regions: of the picture; None if the classifier sees none.
        modalities: in logits; None without reference memes.
        references: number of reference memes behind them.
        neighbours: nearest training memes, the nearest first.
        note: a sentence on the training memes.
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


@dataclasses.dataclass(frozen=True)
class Explainer:
    """A classifier with all that explains it.

    Attributes:
        restored: its run.
        arm: one of its arms, or "average".
        functions: compiled.
        settings: of the attributions.
    """

    restored: Restored
    arm: str
    functions: Functions
    settings: Settings

    @property
    def modalities(self) -> str:
        """What the classifier reads: "both", "image" or "text"."""
        return self.restored.config.model.arm.modalities

    @functools.cached_property
    def training(self) -> Neighbours:
        """The run's training memes with their features, found on first access."""
        return find_neighbours(self.restored, self.functions.features)

    def read(self, memes: Sequence[Meme]) -> np.ndarray:
        """Decode the pictures of memes as the run did, uint8 `[n, s, s, 3]`.

        Raises:
            ValueError: naming the first picture that cannot be read.
        """
        c = self.restored.config.data
        pictures, _, errors = images.decode_all(
            [meme.image for meme in memes],
            size=c.image_size,
            resize=c.resize,
            max_pixels=c.max_pixels,
        )
        for error in errors.values():
            raise error
        return pictures

    def explain(
        self, memes: Sequence[Meme], *, references: Sequence[Meme] | None = None
    ) -> list[Explanation]:
        """Explain memes on disk.

        Args:
            memes: n memes.
            references: memes whose pictures and captions stand for others in
                `modalities`; None: training memes of the run, or else these n memes.
        """
        pictures = self.read(memes)
        captions = [meme.text for meme in memes]
        logits = self.functions.score(pictures, captions)
        features = self.functions.features(pictures, captions)
        near = self.training.of(features, memes, k=NEAREST)
        if references is None:
            references = self._references(memes)
        others = self.read(references), [meme.text for meme in references]
        found = []
        for row, meme in enumerate(memes):
            kept = [i for i, one in enumerate(references) if one != meme]
            chosen = others[0][kept], [others[1][i] for i in kept]
            logit, picture = float(logits[row]), pictures[row]
            found.append(
                Explanation(
                    meme=meme,
                    picture=picture,
                    proba=float(1 / (1 + np.exp(-np.float64(logit)))),
                    logit=logit,
                    words=self.words(picture, meme.text),
                    regions=self.regions(picture, meme.text, sign=_sign(logit)),
                    modalities=self.effects(picture, meme.text, *chosen),
                    references=len(kept),
                    neighbours=near[row],
                    note=self.training.note,
                )
            )
        return found

    def words(self, picture: np.ndarray, caption: str) -> WordScores | None:
        """Attribute the logit to the words of the caption, by both methods."""
        if self.modalities == "image":
            return None
        length = self.restored.config.data.text_length
        words = caption_words(self.restored.tokenizer, caption, length=length)
        left_out = explain.leave_one_out(
            lambda texts: self.functions.score(_repeated(picture, len(texts)), texts),
            caption,
            spans=words.spans,
        )
        tokens = np.any(words.members, axis=0)
        values, gap = self.functions.words(picture, caption, tokens)
        # A score that is constant along the path, or none: nothing to integrate.
        usable = np.isfinite(values).all() and (values.any() or not words.texts)
        integrated = words.members @ values if usable else None
        read = np.any(words.members, axis=1)
        return WordScores(
            words.texts, words.spans, left_out, integrated, float(gap), read
        )

    def regions(
        self, picture: np.ndarray, caption: str, *, sign: float
    ) -> RegionScores | None:
        """Attribute the logit to regions of the picture, by each method that fits.

        Args:
            picture: uint8 `[s, s, 3]`.
            caption: its text.
            sign: of the logit, that Grad-CAM explains.
        """
        if self.modalities == "text":
            return None
        maps = {OCCLUSION: self.functions.occlusion(picture, caption)}
        values, gap = self.functions.pixels(picture, caption)
        if np.isfinite(values).all() and values.any():
            maps[INTEGRATED] = values
            cams = self.functions.grad_cam(picture, caption, sign)
            maps |= {f"{GRAD_CAM} of {name}": cam for name, cam in cams.items()}
        return RegionScores(maps, float(gap))

    def effects(
        self,
        picture: np.ndarray,
        caption: str,
        pictures: np.ndarray,
        captions: Sequence[str],
    ) -> Modalities | None:
        """Divide the logit between picture and caption; None without references.

        Args:
            picture: uint8 `[s, s, 3]`.
            caption: its text.
            pictures: of r other memes, uint8 `[r, s, s, 3]`.
            captions: of r other memes.
        """
        if not captions:
            return None
        rows = np.concatenate([picture[None], pictures])
        columns = [caption, *captions]
        pairs = np.indices((len(rows), len(columns))).reshape(2, -1)
        scores = self.functions.score(rows[pairs[0]], [columns[j] for j in pairs[1]])
        found = explain.modalities(scores.reshape(len(rows), len(columns)))
        return Modalities(*(float(value) for value in found))

    def _references(self, memes: Sequence[Meme]) -> Sequence[Meme]:
        """Return memes that are there, spread over the training memes or over these."""
        there = [meme for meme in self.training.memes if os.path.exists(meme.image)]
        known = there or memes
        count = min(REFERENCES, len(known))
        return [known[i] for i in np.linspace(0, len(known) - 1, count).astype(int)]


def load_explainer(
    workdir: str | os.PathLike[str],
    *,
    seed: int = 0,
    arm: str = AVERAGE,
    settings: Settings = DEFAULTS,
) -> Explainer:
    """Load the classifier of a finished run to explain it.

    Args:
        workdir: the run's folder.
        seed: one of its seeds.
        arm: one of the run's arms, or "average", the mean of their probabilities.
        settings: of the attributions.

    Raises:
        ValueError: if the folder holds no finished run with that seed and arm.
    """
    return make_explainer(
        restore(workdir, seed=seed, arm=arm), arm=arm, settings=settings
    )


def make_explainer(
    restored: Restored, *, arm: str = AVERAGE, settings: Settings = DEFAULTS
) -> Explainer:
    """Make the explainer of a restored run; see `load_explainer`."""
    functions = make_functions(restored, arm=arm, settings=settings)
    return Explainer(restored, arm, functions, settings)


def _sign(logit: float) -> float:
    return 1.0 if logit >= 0 else -1.0


def _repeated(picture: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(picture, (count, *picture.shape))
