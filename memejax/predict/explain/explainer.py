"""Why a classifier scored a meme as it did: words, regions, modalities, neighbours."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np

from memejax import explain
from memejax.data import images
from memejax.data.caption_words import caption_words
from memejax.data.records import Meme
from memejax.explain import Modalities
from memejax.metrics import AVERAGE
from memejax.predict.explain.explanation import (
    GRAD_CAM,
    INTEGRATED,
    OCCLUSION,
    Explanation,
    References,
    RegionScores,
    WordScores,
)
from memejax.predict.explain.graph_explainer import (
    GraphExplainer,
    make_graph_explainer,
)
from memejax.predict.explain.neighbours import (
    NEAREST,
    REFERENCES,
    Neighbours,
    find_neighbours,
    spread,
)
from memejax.predict.explain.scoring import (
    DEFAULTS,
    Functions,
    Settings,
    make_functions,
)
from memejax.restored import Restored, restore


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
        """Inputs that the classifier reads: "both", "image" or "text"."""
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
        known = self._references(memes) if references is None else references
        others = self._pairs(self.read(known), [meme.text for meme in known])
        found = []
        for row, meme in enumerate(memes):
            kept = [i for i, one in enumerate(known) if one != meme]
            logit, picture = float(logits[row]), pictures[row]
            found.append(
                Explanation(
                    meme=meme,
                    picture=picture,
                    proba=float(1 / (1 + np.exp(-np.float64(logit)))),
                    logit=logit,
                    words=self.words(picture, meme.text),
                    regions=self.regions(picture, meme.text, sign=_sign(logit)),
                    modalities=self.effects(picture, meme.text, others.only(kept)),
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
        others: References,
    ) -> Modalities | None:
        """Divide the logit between picture and caption; None without references.

        Args:
            picture: uint8 `[s, s, 3]`.
            caption: its text.
            others: reference memes.
        """
        count = len(others.captions)
        if not count:
            return None
        rows = np.concatenate([_repeated(picture, 1 + count), others.pictures])
        columns: list[str] = [
            caption,
            *others.captions,
            *(caption for _ in range(count)),
        ]
        own = self.functions.score(rows, columns)
        scores = np.empty((1 + count, 1 + count))
        scores[0], scores[1:, 0] = own[: 1 + count], own[1 + count :]
        scores[1:, 1:] = others.scores
        found = explain.modalities(scores)
        return Modalities(*(float(value) for value in found))

    def _pairs(self, pictures: np.ndarray, captions: Sequence[str]) -> References:
        """Score each reference picture with each reference caption."""
        pairs = np.indices((len(captions), len(captions))).reshape(2, -1)
        scores = self.functions.score(
            pictures[pairs[0]], [captions[int(j)] for j in pairs[1]]
        )
        return References(pictures, captions, scores.reshape(len(captions), -1))

    def _references(self, memes: Sequence[Meme]) -> Sequence[Meme]:
        """Return memes that are there, spread over the training memes or over these."""
        there = [meme for meme in self.training.memes if os.path.exists(meme.image)]
        known = there or memes
        return [known[i] for i in spread(len(known), REFERENCES)]


def load_explainer(
    workdir: str | os.PathLike[str],
    *,
    seed: int = 0,
    arm: str = AVERAGE,
    settings: Settings = DEFAULTS,
) -> Explainer | GraphExplainer:
    """Load the classifier of a finished run to explain it.

    Args:
        workdir: the run's folder.
        seed: one of its seeds.
        arm: one of the run's arms, or "average", the mean of their probabilities.
        settings: of the attributions, but of a network on graphs, which has none.

    Raises:
        ValueError: if the folder holds no finished run with that seed and arm.
    """
    restored = restore(workdir, seed=seed, arm=arm, graphs=True)
    if "graph" in restored.config:
        return make_graph_explainer(restored, arm=arm)
    return make_explainer(restored, arm=arm, settings=settings)


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
