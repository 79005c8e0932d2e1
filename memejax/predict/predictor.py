"""Pictures and captions to P(hateful)."""

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
from memejax.restored import Restored, restore
from memejax.stages.parts.probability import make_probability

Tree = Any


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A run's classifier of memes.

    Attributes:
        apply: `(variables, image, input_ids, attention_mask) -> P(hateful) [b]`, pure
            and compiled: image uint8 [b, s, s, 3], ids and mask int32 [b, t].
        variables: what `apply` takes first, on the device.
        tokenizer: of the captions.
        size: s, a picture's side in pixels.
        resize: how a picture becomes square, see `images.decode`.
        max_pixels: larger files are refused.
        length: t, tokens a caption.
        modalities: "both", or the one of "image" and "text" that is looked at.
        threshold: the arm's, chosen on the run's dev split; None without.
        batch: memes that `apply` is given at once, at most.
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

    def predict(self, pictures: np.ndarray, captions: Sequence[str]) -> np.ndarray:
        """P(hateful) of each meme.

        Args:
            pictures: uint8 [n, s, s, 3], as `images.decode` gives them with this
                `size` and `resize`.
            captions: n texts.

        Returns:
            float64 [n] in [0, 1].

        Raises:
            ValueError: for pictures of another shape or type, or another number of
                captions.
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
        # One shape for all batches, and few over all calls: each is compiled once.
        size = min(self.batch, 1 << max(n - 1, 0).bit_length())
        proba = np.zeros(n)
        for start in range(0, n, size):
            part = [column[start : start + size] for column in columns]
            real = len(part[0])
            filled = [
                np.concatenate([rows, np.repeat(rows[:1], size - real, axis=0)])
                for rows in part
            ]
            proba[start : start + real] = self.apply(self.variables, *filled)[:real]
        return proba

    def read(
        self, paths: Sequence[str]
    ) -> tuple[np.ndarray, dict[int, images.ImageError]]:
        """Decodes pictures as the run did.

        Args:
            paths: n files.

        Returns:
            uint8 [n, s, s, 3], and what is wrong with a picture by its place.
        """
        decoded, _, errors = images.decode_all(
            paths, size=self.size, resize=self.resize, max_pixels=self.max_pixels
        )
        return decoded, errors


def load_predictor(
    workdir: str | os.PathLike[str], *, seed: int = 0, arm: str = AVERAGE
) -> Predictor:
    """The classifier of a finished run, from its folder alone.

    Args:
        workdir: the run's folder.
        seed: which of its seeds.
        arm: one of the run's arms, or "average", the mean of their probabilities.

    Raises:
        ValueError: if there is no finished run with that seed and arm in the folder.
    """
    return make_predictor(restore(workdir, seed=seed), arm=arm)


def make_predictor(restored: Restored, *, arm: str = AVERAGE) -> Predictor:
    """The classifier of what was restored; see `load_predictor`."""
    config = restored.config
    vocabulary = restored.tokenizer.get_vocab_size()
    return Predictor(
        apply=jax.jit(make_probability(config, vocabulary, arm=arm)),
        variables=jax.device_put(restored.variables),
        tokenizer=restored.tokenizer,
        size=config.data.image_size,
        resize=config.data.resize,
        max_pixels=config.data.max_pixels,
        length=config.data.text_length,
        modalities=config.model.arm.modalities,
        threshold=restored.threshold(arm),
    )
