"""P(hateful) of pictures and captions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from memejax.data import images, text
from memejax.metrics import AVERAGE
from memejax.predict.graph_predictor import GraphPredictor, make_graph_predictor
from memejax.restored import Restored, restore, seeds_of
from memejax.stages.parts.meme_scorer import make_probability
from memejax.stages.parts.models import gains_by_shortening

Tree = Any


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A run's classifier of memes.

    Attributes:
        apply: `(variables, image, input_ids, attention_mask) -> P(hateful) [b]`, pure
            and compiled: image uint8 [b, s, s, 3], ids and mask int32 [b, t].
        variables: first argument of `apply`, on the device.
        tokenizer: for captions.
        size: s, side of a picture in pixels.
        resize: method to make a picture square, see `images.decode`.
        max_pixels: larger files are refused.
        length: t, tokens per caption.
        modalities: "both", or "image" or "text" if only that is used.
        threshold: the arm's, chosen on the run's dev split; None without labels.
        batch: maximum number of memes per call of `apply`.
        fill: whether every call has as many, so that one program is compiled.
        shorten: whether to cut off padding that no caption of a call needs.
    """

    apply: Callable[..., jax.Array]
    variables: Tree
    tokenizer: Tokenizer
    size: int
    resize: str
    max_pixels: int
    length: int
    modalities: str
    threshold: float | None
    batch: int = 32
    fill: bool = False
    shorten: bool = False

    def filled(self) -> Predictor:
        """Return the predictor whose every call has `batch` memes."""
        return dataclasses.replace(self, fill=True)

    def predict(self, pictures: np.ndarray, captions: Sequence[str]) -> np.ndarray:
        """Compute P(hateful) for each meme.

        Args:
            pictures: uint8 [n, s, s, 3], decoded by `images.decode` with this `size`
                and `resize`.
            captions: n texts.

        Returns:
            float64 [n] in [0, 1].

        Raises:
            ValueError: if the pictures have another shape or type, or another number
                than the captions.
        """
        shape = (len(captions), self.size, self.size, 3)
        if pictures.shape != shape or pictures.dtype != np.uint8:
            raise ValueError(
                f"got {len(captions)} captions and pictures {pictures.dtype} "
                f"{pictures.shape}, expected uint8 {shape}"
            )
        tokens = text.encode(self.tokenizer, captions, length=self.length)
        columns = (pictures, tokens.input_ids, tokens.attention_mask)
        n = len(captions)
        # One shape per call, and few over all calls: each is compiled.
        size = self.batch
        if not self.fill:
            size = min(size, 1 << max(n - 1, 0).bit_length())
        proba = np.zeros(n)
        for start in range(0, n, size):
            part = [column[start : start + size] for column in columns]
            if self.shorten:
                part[1:] = text.shorten(*part[1:])
            real = len(part[0])
            filled = [
                np.concatenate([rows, np.repeat(rows[:1], size - real, axis=0)])
                for rows in part
            ]
            proba[start : start + real] = self.apply(self.variables, *filled)[:real]
        return proba

    def read(
        self, paths: Sequence[images.Picture]
    ) -> tuple[np.ndarray, dict[int, images.ImageError]]:
        """Decode pictures as the run did.

        Args:
            paths: n files, or their contents.

        Returns:
            uint8 [n, s, s, 3], and index -> error of pictures that cannot be read.
        """
        decoded, _, errors = images.decode_all(
            paths, size=self.size, resize=self.resize, max_pixels=self.max_pixels
        )
        return decoded, errors


def load_predictor(
    workdir: str | os.PathLike[str], *, seed: int | str = 0, arm: str = AVERAGE
) -> Predictor | GraphPredictor:
    """Load the classifier of a finished run from its folder alone.

    Args:
        workdir: the run's folder.
        seed: one of its seeds, or "all" for the mean of their probabilities.
        arm: one of the run's arms, or "average", the mean of their probabilities.

    Raises:
        ValueError: if the folder holds no finished run with that seed and arm.
    """
    restored = [
        restore(workdir, seed=int(one), arm=arm, graphs=True)
        for one in seeds_of(workdir, str(seed))
    ]
    if "graph" in restored[0].config:
        return make_graph_predictor(*restored, arm=arm)
    return make_predictor(*restored, arm=arm)


def make_predictor(*restored: Restored, arm: str = AVERAGE) -> Predictor:
    """Make the classifier of a restored run, or of several seeds of it.

    See `load_predictor`.
    """
    first = restored[0]
    config = first.config
    vocabulary = text.vocabulary_size(first.tokenizer)
    probability = make_probability(config, vocabulary, arm=arm)
    variables = first.variables
    threshold = first.threshold(arm)
    if len(restored) > 1:
        # Encoders of a head are the same for all seeds.
        own = [
            {k: tree for k, tree in one.variables.items() if k != "encoders"}
            for one in restored
        ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
        shared = {k: variables[k] for k in variables if k == "encoders"}
        probability, variables = _mean(probability), (shared, stacked)
        threshold = None
    return Predictor(
        apply=jax.jit(probability),
        variables=jax.device_put(variables),
        tokenizer=first.tokenizer,
        size=config.data.image_size,
        resize=config.data.resize,
        max_pixels=config.data.max_pixels,
        length=config.data.text_length,
        modalities=config.model.arm.modalities,
        threshold=threshold,
        shorten=gains_by_shortening(config, vocabulary),
    )


def _mean(probability: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Average a probability over seeds.

    Variables become a pair: those that all seeds share, and each seed's own, stacked.
    """

    def mean(variables: tuple[Tree, Tree], *columns: jax.Array) -> jax.Array:
        shared, stacked = variables

        def one(own: Tree) -> jax.Array:
            return probability({**shared, **own}, *columns)

        # One after another where a seed is a whole network, at once where it is a head.
        each = jax.vmap(one)(stacked) if shared else jax.lax.map(one, stacked)
        return each.mean(axis=0)

    return mean
