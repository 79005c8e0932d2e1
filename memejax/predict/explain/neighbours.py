"""The nearest training memes of a run, by its own features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memejax import explain
from memejax.data import images
from memejax.data.records import Meme
from memejax.report.finished import Finished
from memejax.restored import Restored
from memejax.stages.parts.heads.stored import OWN, columns_of
from memejax.stages.parts.meme_logits import joined
from memejax.store.read import Store, open_store

TRAIN = "train"
# Neighbours shown.
NEAREST = 4
# Memes that stand for another picture and another caption.
REFERENCES = 8
# Training memes whose features are computed where no store has them: seconds of a small
# network, a minute of a large one on a GPU.
MOST = 2000


class Neighbour(NamedTuple):
    """A training meme near another.

    Attributes:
        meme: its record; `image` may have gone.
        cosine: of the features of both, in [-1, 1].
    """

    meme: Meme
    cosine: float


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Features of training memes on the device.

    Attributes:
        memes: n records.
        features: float32 `[n, d]`.
        note: a sentence on what is searched.
    """

    memes: Sequence[Meme]
    features: jax.Array
    note: str

    def of(
        self, features_bd: np.ndarray, memes: Sequence[Meme], *, k: int
    ) -> list[list[Neighbour]]:
        """Find the k nearest training memes of each of b memes, itself left out."""
        if not self.memes:
            return [[] for _ in memes]
        own = np.array(
            [[not is_same(one, other) for one in self.memes] for other in memes]
        )
        k = min(k, len(self.memes))
        rows, cosines = jax.device_get(
            explain.nearest(features_bd, self.features, k=k, where=own)
        )
        return [
            [
                Neighbour(self.memes[row], float(cosine))
                for row, cosine in zip(*pair, strict=True)
                if np.isfinite(cosine)
            ]
            for pair in zip(rows, cosines, strict=True)
        ]


def find_neighbours(restored: Restored, features_fn: Any) -> Neighbours:
    """Return the training memes of a run with their features.

    A head's are those of its feature store. Those of fine-tuned networks are computed
    from the run's data, of at most `MOST` memes that are spread over the split.

    Args:
        restored: the run.
        features_fn: `(pictures, captions) -> [n, d]`, of `scoring.Functions`.

    Returns:
        Neighbours; none, with a note, if the data are not there any more.
    """
    if "heads" in restored.config:
        return stored_neighbours(restored, open_own(restored))
    records = list(Finished(restored.folder).memes(TRAIN).values())
    if not records:
        return _none("The run's training memes are not there any more.")
    chosen = [records[row] for row in spread(len(records), MOST)]
    c = restored.config.data
    pictures, _, errors = images.decode_all(
        [meme.image for meme in chosen],
        size=c.image_size,
        resize=c.resize,
        max_pixels=c.max_pixels,
    )
    kept = [row for row in range(len(chosen)) if row not in errors]
    if not kept:
        return _none("The pictures of the run's training memes are not there any more.")
    memes = [chosen[row] for row in kept]
    features = features_fn(pictures[kept], [meme.text for meme in memes])
    note = f"Of {len(memes):,} of the {len(records):,} training memes."
    return Neighbours(memes, jnp.asarray(features), note)


def open_own(restored: Restored) -> Store | None:
    """Open the feature store that a run was trained on; None if it is gone."""
    try:
        store = open_store(restored.config.features or restored.folder / OWN)
    except ValueError:
        return None
    return store if TRAIN in store.splits else None


def stored_neighbours(restored: Restored, store: Store | None) -> Neighbours:
    """Return the training memes of a run with their stored features.

    Args:
        restored: the run.
        store: its feature store, or None if it is gone.
    """
    config = restored.config
    columns = {"image": "image", "text": "text"}
    gone = _none("The run's feature store is not there any more.")
    if store is None:
        return gone
    if "heads" in config:
        try:
            columns = columns_of(config, store)
        except ValueError:
            return gone
    split = store.splits[TRAIN]
    features = joined([split.column(columns[name]) for name in ("image", "text")])
    records = Finished(restored.folder).memes(TRAIN) if config.features else {}
    root = config.data.root or store.facts.get("root") or ""
    rows = zip(split.ids, split.images, split.captions, split.labels, strict=True)
    memes = [
        records.get(name)
        or Meme(
            name, f"{root}/{image}", caption, int(label), TRAIN, str(store.folder), 0
        )
        for name, image, caption, label in rows
    ]
    return Neighbours(memes, features, f"Of all {len(memes):,} training memes.")


def is_same(one: Meme, other: Meme) -> bool:
    """Whether a training meme is the meme itself: caption and picture file are."""
    return (one.text, one.image) == (other.text, other.image)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` rows, evenly spread.

    >>> spread(9, 3)
    [0, 4, 8]
    """
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def _none(note: str) -> Neighbours:
    return Neighbours([], jnp.zeros((0, 1)), note)
