"""Why a network on graphs scored a meme as it did: words, entities, modalities.

The network is behind stored features, so that another graph of a meme, without one of
its entities or with another caption, takes no detector and few calls of an encoder.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import special

from memejax import explain
from memejax.data import images
from memejax.data.caption_words import caption_words
from memejax.data.records import Meme
from memejax.explain import Modalities
from memejax.extract import cutting
from memejax.extract.entities import Entities, known_entities
from memejax.graphs.features import MemeFeatures
from memejax.metrics import AVERAGE
from memejax.models.maskrcnn.categories import COCO
from memejax.predict.explain.explanation import EntityScores, Explanation, WordScores
from memejax.predict.explain.neighbours import (
    NEAREST,
    REFERENCES,
    TRAIN,
    Neighbours,
    is_same,
    open_own,
    spread,
    stored_neighbours,
)
from memejax.predict.graph_predictor import (
    GraphPredictor,
    graph_features,
    make_graph_predictor,
)
from memejax.restored import Restored
from memejax.stages.parts.meme_logits import joined
from memejax.store.read import Store

# Longer side of the picture that is shown, in pixels.
SIDE = 320
# Fields of features that come from the caption; the others come from the picture.
CAPTION = ("text", "tokens", "token_where")


@dataclasses.dataclass(frozen=True)
class GraphExplainer:
    """A network on graphs with all that explains it; used as `Explainer`.

    Attributes:
        restored: its run.
        arm: its name, or "average", which is the same.
        predictor: the same classifier.
    """

    restored: Restored
    arm: str
    predictor: GraphPredictor

    @functools.cached_property
    def store(self) -> Store | None:
        """The run's feature store, opened on first access; None if it is gone."""
        return open_own(self.restored)

    @functools.cached_property
    def training(self) -> Neighbours:
        """The run's training memes with their features, found on first access."""
        return stored_neighbours(self.restored, self.store)

    def explain(self, memes: Sequence[Meme]) -> list[Explanation]:
        """Explain memes on disk.

        Pictures and captions of training memes, or of these where the run's store has
        gone, stand for others in `modalities`.

        Args:
            memes: n memes.

        Raises:
            ValueError: if a picture cannot be read.
        """
        columns = self.predictor.features(memes)
        features = graph_features(columns)
        logits = self.score(features, np.arange(len(memes)))
        vectors = np.asarray(joined([features.image, features.text]))
        near = self.training.of(vectors, memes, k=NEAREST)
        features, known = self._with_references(features, memes)
        found = []
        for row, meme in enumerate(memes):
            others = np.array([i for i, one in known.items() if not is_same(one, meme)])
            found.append(
                Explanation(
                    meme=meme,
                    picture=self.picture(meme),
                    proba=float(special.expit(logits[row])),
                    logit=float(logits[row]),
                    words=self.words(features, row, meme.text),
                    regions=None,
                    modalities=self.effects(features, row, others),
                    references=len(others),
                    neighbours=near[row],
                    note=self.training.note,
                    entities=self.entities(columns, row, meme),
                )
            )
        return found

    def picture(self, meme: Meme) -> np.ndarray:
        """Decode a picture to `SIDE` pixels along its longer side, to show it."""
        padded, (height, width) = images.decode(
            meme.image,
            size=SIDE,
            resize="pad",
            max_pixels=self.predictor.max_pixels,
        )
        return padded[:height, :width]

    def score(
        self,
        features: MemeFeatures,
        pictures: np.ndarray,
        captions: np.ndarray | None = None,
        **changed: np.ndarray,
    ) -> np.ndarray:
        """Compute the logits of n memes made of the parts of others.

        Args:
            features: of memes.
            pictures: int `[n]`, memes whose pictures with their entities to take.
            captions: int `[n]`, and whose captions; the same if None.
            changed: fields of features with n memes, in place of those.

        Returns:
            float64 `[n]`.
        """
        rows = pictures if captions is None else captions
        fields = {
            name: values[rows if name in CAPTION else pictures]
            for name, values in vars(features).items()
            if values is not None
        }
        (logits,) = self.predictor.logits(MemeFeatures(**fields | changed))
        return logits

    def words(self, features: MemeFeatures, row: int, caption: str) -> WordScores:
        """Find what each word of a caption adds, by leaving it out.

        Args:
            features: of memes.
            row: the meme's.
            caption: its text.
        """
        found = caption_words(
            self.restored.tokenizer, caption, length=self.predictor.length
        )

        def score(texts: Sequence[str]) -> np.ndarray:
            encoded = self.predictor.encoders.text(texts)
            changed = {"text": encoded.pooled}
            if features.tokens is not None:
                changed |= {"tokens": encoded.tokens, "token_where": encoded.where}
            return self.score(features, np.full(len(texts), row), **changed)

        left_out = explain.leave_one_out(score, caption, spans=found.spans)
        read = np.any(found.members, axis=1)
        return WordScores(found.texts, found.spans, left_out, None, 0.0, read)

    def entities(
        self, columns: Mapping[str, np.ndarray], row: int, meme: Meme
    ) -> EntityScores:
        """Find what each entity adds, to the graph and to the whole meme.

        Args:
            columns: of memes, from the predictor.
            row: the meme's.
            meme: its record.
        """
        features = graph_features(columns)
        real = np.flatnonzero(features.where[row])
        where = np.repeat(features.where[row : row + 1], 2 + len(real), axis=0)
        where[np.arange(len(real)) + 1, real] = False
        where[-1] = False
        logits = self.score(features, np.full(len(where), row), where=where)
        height, width = features.sizes[row].tolist()
        return EntityScores(
            boxes=features.boxes[row, real],
            size=(height, width),
            names=[COCO.get(int(one), "tile") for one in features.classes[row, real]],
            scores=features.scores[row, real],
            covered=logits[0] - self.covered(columns, row, meme),
            left_out=logits[0] - logits[1:-1],
            all_left_out=float(logits[0] - logits[-1]),
        )

    def covered(
        self, columns: Mapping[str, np.ndarray], row: int, meme: Meme
    ) -> np.ndarray:
        """Compute the logits with each entity's box covered by the mean colour.

        The entities keep their places, and have the features of what is left of them.

        Args:
            columns: of memes, from the predictor.
            row: the meme's.
            meme: its record.

        Returns:
            float64 `[k]`, of the real entities.
        """
        features = graph_features(columns)
        real = np.flatnonzero(features.where[row])
        if not len(real):
            return np.zeros(0)
        picture, original = cutting.read_picture(
            meme.image, max_pixels=self.predictor.max_pixels
        )
        height, width = picture.shape[:2]
        scale = np.tile(np.divide((width, height), original[::-1]), 2)
        boxes = (features.boxes[row] * scale).astype(np.float32)
        memes = [
            dataclasses.replace(meme, image=_png(part))
            for part in cutting.cover_boxes(picture, boxes[real])
        ]
        own = {name: values[row][None] for name, values in columns.items()}
        found = Entities(
            boxes=boxes[None],
            scores=own["scores"],
            classes=own["classes"],
            where=own["where"],
            features=own.get("box_features"),
            masks=own.get("masks"),
        )
        finder = known_entities(found)
        changed = self.predictor.features(memes, finder)
        return self.score(
            features,
            np.full(len(memes), row),
            image=changed["image"],
            entities=changed["entities"],
        )

    def effects(
        self, features: MemeFeatures, row: int, others: np.ndarray
    ) -> Modalities | None:
        """Divide the logit between picture and caption; None without others.

        Args:
            features: of memes.
            row: the meme's.
            others: int `[r]`, rows of reference memes.
        """
        if not len(others):
            return None
        rows = np.array([row, *others])
        pairs = np.indices((len(rows), len(rows))).reshape(2, -1)
        scores = self.score(features, rows[pairs[0]], rows[pairs[1]])
        parts = explain.modalities(scores.reshape(len(rows), len(rows)))
        return Modalities(*(float(value) for value in parts))

    def _with_references(
        self, features: MemeFeatures, memes: Sequence[Meme]
    ) -> tuple[MemeFeatures, dict[int, Meme]]:
        """Add reference memes to features; return both, and the references by row."""
        records = self.training.memes
        if self.store is None:
            return features, {i: memes[i] for i in spread(len(memes), REFERENCES)}
        rows = spread(len(records), REFERENCES)
        stored = self.store.splits[TRAIN].features
        every = {
            name: np.concatenate([values, getattr(stored, name)[rows]])
            for name, values in vars(features).items()
            if values is not None
        }
        places = range(len(memes), len(memes) + len(rows))
        return MemeFeatures(**every), {
            place: records[row] for place, row in zip(places, rows, strict=True)
        }


def make_graph_explainer(restored: Restored, *, arm: str = AVERAGE) -> GraphExplainer:
    """Make the explainer of a restored run on graphs.

    Args:
        restored: one seed of it.
        arm: the network's name, or "average".

    Raises:
        ValueError: see `make_graph_predictor`.
    """
    return GraphExplainer(restored, arm, make_graph_predictor(restored, arm=arm))


def _png(picture: np.ndarray) -> Any:
    """Return the content of a file, quick to write, in the place of a path."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
