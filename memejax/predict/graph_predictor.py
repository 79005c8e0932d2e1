"""P(hateful) of pictures and captions by a network on the memes' graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from memejax import parallel
from memejax.data import images
from memejax.data.records import Meme
from memejax.errors import UserError
from memejax.extract.encoders import make_encoders
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
        features: memes -> columns, as of a feature store.
        apply: `(variables, graph) -> P(hateful) [b]`, compiled: a graph has b memes.
        variables: first argument of `apply`, on the device.
        options: of `memejax.graphs.stacked.stack`.
        max_pixels: larger files are refused.
        modalities: "both".
        threshold: the arm's, chosen on the run's dev split; None without labels.
        batch: number of memes per call of `apply`.
    """

    features: Callable[[Sequence[Meme]], Mapping[str, np.ndarray]]
    apply: Callable[..., jax.Array]
    variables: Tree
    options: Mapping[str, Any]
    max_pixels: int
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
            columns = self.features(memes)
            features = MemeFeatures(**{k: columns[k] for k in FEATURES if k in columns})
            # The last batch is filled up with its first meme.
            rows = np.zeros(self.batch, int)
            rows[: len(memes)] = np.arange(len(memes))
            found = self.apply(self.variables, stack(features, **self.options)[rows])
            proba[start : start + len(memes)] = found[: len(memes)]
        return proba

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
    masks = options.masks or options.crop == "mask"
    finder, _ = make_finder(own, mesh, masks=masks)
    batch = GraphPredictor.batch
    source = Source(
        kept.config,
        first.tokenizer,
        kept.variables["image_encoder"],
        kept.variables["text_encoder"],
        kept.names,
    )
    encoders = make_encoders(source, mesh=mesh, batch=batch)

    def features(memes: Sequence[Meme]) -> Mapping[str, np.ndarray]:
        return columns_of(
            memes,
            encoders,
            finder=finder,
            options=options,
            max_pixels=config.data.max_pixels,
        )

    net = stored_network(config, tuple(facts["widths"]))
    apply_fn = as_arm(net, c.network, _MEMES)

    def probability(variables: Tree, graph: Any) -> jax.Array:
        def one(own: Tree) -> jax.Array:
            logits = apply_fn(own, graph, train=False)[c.network]
            return jax.nn.sigmoid(logits.astype(jnp.float32))

        return jax.vmap(one)(variables).mean(axis=0)

    stacked = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(one.variables for one in restored)
    )
    return GraphPredictor(
        features=features,
        apply=jax.jit(probability),
        variables=jax.device_put(stacked),
        options={
            "relations": tuple(c.relations),
            "overlap": c.overlap,
            "similar": c.similar,
        },
        max_pixels=config.data.max_pixels,
        threshold=first.threshold(arm) if len(restored) == 1 else None,
    )
