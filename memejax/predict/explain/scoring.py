"""Compiled functions of one classifier that explanations are made of.

Each has one shape, so that a page of memes compiles each once. Shape suffixes: `s` side
of a picture, `t` tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from memejax import explain
from memejax.data import text
from memejax.models.encoders import ImageEncoder, TextEncoder
from memejax.restored import Restored
from memejax.stages.parts.meme_logits import (
    make_embedded_logit,
    make_features,
    make_grad_cam,
    make_logit,
    same_inputs,
    word_tables,
)

Tree = Any
# Memes, or points on a path, per call of the network.
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the attributions; the defaults won on built-in memes' dev split.

    Attributes:
        steps: points on the path of integrated gradients by words, a multiple of
            `BATCH`.
        pixel_steps: likewise by pixels.
        cells: cells of their map of regions along a side, at most.
        covered: cells of the map of occlusion along a side, at most; as fine as
            theirs it takes four times as long, and finds no more.
        window: side of a square that is covered, or averaged over, in sides of the
            picture; rounded to cells.
        blur: of the picture that regions are replaced by, in sides of the picture; 0
            takes the mean colour.
    """

    steps: int = 4 * BATCH
    pixel_steps: int = 2 * BATCH
    cells: int = 14
    covered: int = 7
    window: float = 1 / 3
    blur: float = 0.0


DEFAULTS = Settings()


@dataclasses.dataclass(frozen=True)
class Functions:
    """Functions of a classifier, all but `score` and `features` of one meme.

    Attributes:
        score: `(pictures uint8 [n, s, s, 3], captions) -> logits [n]`.
        features: likewise to float32 `[n, d]`, each part of length 1.
        words: `(picture, caption, tokens of words bool [t]) -> (values [t], gap)`,
            integrated gradients of token embeddings.
        occlusion: `(picture, caption) -> [g, g]`.
        pixels: `(picture, caption) -> (map [g, g], gap)`, integrated gradients.
        grad_cam: `(picture, caption, sign) -> {arm: map}` of CNNs.
    """

    score: Callable[[np.ndarray, Sequence[str]], np.ndarray]
    features: Callable[[np.ndarray, Sequence[str]], np.ndarray]
    words: Callable[[np.ndarray, str, np.ndarray], tuple[np.ndarray, float]]
    occlusion: Callable[[np.ndarray, str], np.ndarray]
    pixels: Callable[[np.ndarray, str], tuple[np.ndarray, float]]
    grad_cam: Callable[[np.ndarray, str, float], Mapping[str, np.ndarray]]


def make_functions(
    restored: Restored, *, arm: str, settings: Settings = DEFAULTS
) -> Functions:
    """Compile the functions of a restored run.

    Args:
        restored: a run.
        arm: one of its arms, or "average".
        settings: of the attributions.
    """
    config, tokenizer = restored.config, restored.tokenizer
    vocabulary = text.vocabulary_size(tokenizer)
    variables = jax.device_put(restored.variables)
    length = config.data.text_length
    logit = make_logit(config, vocabulary, arm=arm)

    def encoded(captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens = text.encode(tokenizer, captions, length=length)
        return tokens.input_ids, tokens.attention_mask

    def batched(call: Callable[..., Any]) -> Callable[..., np.ndarray]:
        compiled = jax.jit(call)

        def run(pictures: np.ndarray, captions: Sequence[str]) -> np.ndarray:
            columns = (pictures, *encoded(captions))
            found = []
            for start in range(0, len(captions), BATCH):
                rows = np.minimum(np.arange(start, start + BATCH), len(captions) - 1)
                part = [column[rows] for column in columns]
                real = min(BATCH, len(captions) - start)
                found.append(np.asarray(compiled(variables, *part))[:real])
            return np.concatenate(found)

        return run

    def of_one(call: Callable[..., Any]) -> Callable[..., Any]:
        compiled = jax.jit(call)

        def run(picture: np.ndarray, caption: str, *more: Any) -> Any:
            ids, mask = encoded([caption])
            return jax.device_get(compiled(variables, picture, ids, mask, *more))

        return run

    parts = functools.partial(_Parts, logit=logit, settings=settings)
    grad_cam = make_grad_cam(config, vocabulary, arm=arm)
    return Functions(
        score=batched(lambda v, x, *caption: logit(v, _floats(x), *caption)),
        features=batched(
            lambda v, x, *caption: make_features(config, vocabulary)(
                v, _floats(x), *caption
            )
        ),
        words=of_one(_words(config, arm, text.pad_id(tokenizer), settings.steps)),
        occlusion=of_one(lambda *inputs: parts(*inputs).occlusion()),
        pixels=of_one(lambda *inputs: parts(*inputs).pixels()),
        grad_cam=of_one(
            lambda v, x, ids, mask, sign: jax.tree.map(
                lambda cam: cam[0], grad_cam(v, _floats(x)[None], ids, mask, sign)
            )
        ),
    )


def cell_size(size: int, cells: int) -> int:
    """Return the smallest divisor of `size` with at most `cells` cells along a side."""
    return next(n for n in range(1, size + 1) if size % n == 0 and size // n <= cells)


def _floats(pictures: jax.Array) -> jax.Array:
    return pictures.astype(jnp.float32) / 255


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Attributions of one meme's picture, inside a compiled function."""

    variables: Tree
    picture: jax.Array
    ids: jax.Array
    mask: jax.Array
    logit: Callable[..., jax.Array]
    settings: Settings

    def score(self, pixels_mhwc: jax.Array) -> jax.Array:
        ids, mask = (
            jnp.broadcast_to(x, (len(pixels_mhwc), x.shape[1]))
            for x in (self.ids, self.mask)
        )
        with same_inputs(TextEncoder):
            return self.logit(self.variables, pixels_mhwc, ids, mask)

    def filling(self, pixels_hwc: jax.Array) -> jax.Array:
        if self.settings.blur:
            return explain.blurred(pixels_hwc, self.settings.blur * len(pixels_hwc))
        return explain.mean_colour(pixels_hwc)

    def occlusion(self) -> jax.Array:
        pixels = _floats(self.picture)
        cell, side = self.grid(self.settings.covered)
        return explain.occlusion(
            self.score,
            pixels,
            filling_hwc=self.filling(pixels),
            window=side * cell,
            stride=cell,
            batch=BATCH,
        )

    def pixels(self) -> tuple[jax.Array, jax.Array]:
        pixels = _floats(self.picture)
        found = explain.integrated_gradients(
            self.score,
            pixels,
            baseline=self.filling(pixels),
            steps=self.settings.pixel_steps,
            batch=BATCH,
        )
        cell, side = self.grid(self.settings.cells)
        cells = explain.patch_sums(found.values, cell)
        return explain.smoothed(cells, side), found.gap

    def grid(self, cells: int) -> tuple[int, int]:
        """Return the side of a cell in pixels, and of a square in cells."""
        size = len(self.picture)
        cell = cell_size(size, cells)
        return cell, max(1, round(size // cell * self.settings.window))


def _words(config: ConfigDict, arm: str, pad: int, steps: int) -> Callable[..., Any]:
    """Make integrated gradients by token: `(...) -> (values [t], gap)`.

    The baseline has the padding's embedding in the place of each token of a word.
    """
    length = config.data.text_length
    embedded = make_embedded_logit(config, arm=arm, tokens=BATCH * length)

    def words(
        variables: Tree,
        picture: jax.Array,
        ids: jax.Array,
        mask: jax.Array,
        inner: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        tables = word_tables(variables)
        rows = {path: table[ids[0]] for path, table in tables.items()}
        baseline = {
            path: jnp.where(inner[:, None], tables[path][pad], x)
            for path, x in rows.items()
        }
        pixels = jnp.broadcast_to(_floats(picture), (BATCH, *picture.shape))
        masks = jnp.broadcast_to(mask, (BATCH, length))

        def score(embeddings: Tree) -> jax.Array:
            with same_inputs(ImageEncoder):
                return embedded(variables, pixels, embeddings, masks)

        found = explain.integrated_gradients(
            score,
            rows,
            baseline=baseline,
            steps=steps,
            batch=BATCH,
        )
        return sum(x.sum(1) for x in found.values.values()), found.gap

    return words
