"""P(hateful) of pictures and captions by a network on the memes' graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy import special

from memejax import parallel
from memejax.data import images
from memejax.data.records import Meme
from memejax.errors import UserError
from memejax.extract.encoders import Encoders, make_encoders
from memejax.extract.entities import Finder
from memejax.extract.extraction import make_finder, options_of
from memejax.extract.features import columns_of
from memejax.extract.sources import Source
from memejax.graphs.features import MemeFeatures
from memejax.graphs.stacked import stack
from memejax.metrics import AVERAGE
from memejax.restored import Restored
from memejax.stages.parts.graphs.networks import stored_network
from memejax.stages.parts.graphs.supervised import as_arm
from memejax.store.read import FEATURES

Tree = Any
# Every other graph of a batch is padding.
_MEMES = slice(None, None, 2)


@dataclasses.dataclass(frozen=True)
class GraphPredictor:
    """A run's network on graphs, behind the extraction of their features.

    Used as `memejax.predict.Predictor`, but for the pictures between `read` and
    `predict`, which stay as they are: entities are cut out of the whole picture.

    Attributes:
        features: `(memes, finder=None) -> columns`, as of a feature store; by another
            finder of entities than the run's, if given.
        encoders: behind these.
        apply: `(variables, graph) -> logits [s, b]` of s seeds, compiled: a graph has
            b memes.
        variables: first argument of `apply`, on the device.
        options: of `memejax.graphs.stacked.stack`.
        max_pixels: larger files are refused.
        length: tokens per caption.
        modalities: "both".
        threshold: the arm's, chosen on the run's dev split; None without labels.
        batch: number of memes per call of `apply`.
    """

    features: Callable[..., Mapping[str, np.ndarray]]
    encoders: Encoders
    apply: Callable[..., jax.Array]
    variables: Tree
    options: Mapping[str, Any]
    max_pixels: int
    length: int
    threshold: float | None
    modalities: str = "both"
    batch: int = 16

    def filled(self) -> GraphPredictor:
        """Return itself: every call has `batch` memes."""
        return self

    def predict(self, pictures: np.ndarray, captions: Sequence[str]) -> np.ndarray:
        """Compute P(hateful) for each meme.

        Args:
            pictures: paths or contents of files, object [n], from `read`.
            captions: n texts.

        Returns:
            float64 [n] in [0, 1].

        Raises:
            ValueError: for another number of pictures than of captions.
        """
        n = len(captions)
        if len(pictures) != n:
            raise ValueError(f"got {n} captions and {len(pictures)} pictures")
        proba = np.zeros(n)
        for start in range(0, n, self.batch):
            memes = [
                Meme("", picture, caption, -1, "", "", 0)
                for picture, caption in zip(
                    pictures[start : start + self.batch],
                    captions[start : start + self.batch],
                    strict=True,
                )
            ]
            logits = self.logits(graph_features(self.features(memes)))
            proba[start : start + len(memes)] = special.expit(logits).mean(axis=0)
        return proba

    def logits(self, features: MemeFeatures) -> np.ndarray:
        """Compute the logits of memes by their features.

        Args:
            features: of n memes, at least one.

        Returns:
            float64 [s, n], of each of s seeds.
        """
        slots = stack(features, **self.options)
        found = []
        for start in range(0, len(slots), self.batch):
            # The last batch is filled up with its last meme.
            rows = np.arange(start, start + self.batch)
            graph = slots[np.minimum(rows, len(slots) - 1)]
            found.append(np.asarray(self.apply(self.variables, graph), np.float64))
        return np.concatenate(found, axis=1)[:, : len(slots)]

    def read(
        self, paths: Sequence[images.Picture]
    ) -> tuple[np.ndarray, dict[int, images.ImageError]]:
        """Check pictures, which `predict` reads once more.

        Args:
            paths: n files, or their contents.

        Returns:
            The pictures as given, object [n], and index -> error of those that cannot
            be read.
        """
        found = np.empty(len(paths), object)
        found[:] = paths
        return found, images.check_all(paths, max_pixels=self.max_pixels)


def graph_features(columns: Mapping[str, np.ndarray]) -> MemeFeatures:
    """Return those columns that graphs are made of."""
    return MemeFeatures(**{k: columns[k] for k in FEATURES if k in columns})


def make_graph_predictor(*restored: Restored, arm: str) -> GraphPredictor:
    """Make the classifier of one seed or several of a run on graphs.

    Args:
        restored: of the run.
        arm: the network's name, or "average", which is the same.

    Raises:
        ValueError: for an unknown arm, or a detector that has gone.
    """
    first = restored[0]
    kept = first.encoders
    if kept is None:
        raise ValueError(f"{first.folder} is no run on graphs")
    config, facts = first.config, first.results["data"]
    c = config.graph
    if arm not in (AVERAGE, c.network):
        raise UserError(f"unknown arm {arm!r}: expected {AVERAGE} or {c.network}")
    # As the store had them, not the config of the network that was trained on it.
    with (own := ConfigDict(config.to_dict())).unlocked():
        own.extract.update(facts["extraction"]["extract"])
        own.weights.detector = facts["extraction"]["detector"]
    options, mesh = options_of(own), parallel.mesh(1)
    options = options._replace(masks=options.masks or options.crop == "mask")
    found, _ = make_finder(own, mesh, masks=options.masks)
    batch = GraphPredictor.batch
    source = Source(
        kept.config,
        first.tokenizer,
        kept.variables["image_encoder"],
        kept.variables["text_encoder"],
        kept.names,
    )
    encoders = make_encoders(source, mesh=mesh, batch=batch)

    def features(
        memes: Sequence[Meme], finder: Finder | None = None
    ) -> Mapping[str, np.ndarray]:
        return columns_of(
            memes,
            encoders,
            finder=finder or found,
            options=options,
            max_pixels=config.data.max_pixels,
        )

    net = stored_network(config, tuple(facts["widths"]))
    apply_fn = as_arm(net, c.network, _MEMES)

    def logits(variables: Tree, graph: Any) -> jax.Array:
        def one(own: Tree) -> jax.Array:
            return apply_fn(own, graph, train=False)[c.network].astype(jnp.float32)

        return jax.vmap(one)(variables)

    stacked = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(one.variables for one in restored)
    )
    return GraphPredictor(
        features=features,
        encoders=encoders,
        apply=jax.jit(logits),
        variables=jax.device_put(stacked),
        options={
            "relations": tuple(c.relations),
            "overlap": c.overlap,
            "similar": c.similar,
        },
        max_pixels=config.data.max_pixels,
        length=kept.config.data.text_length,
        threshold=first.threshold(arm) if len(restored) == 1 else None,
    )
