"""Built-in labelled pictures, whose class is the pattern of the patch.

Drawn by `synthetic_pictures`, like those of the built-in memes: the concept is the
class, and the badge of the cue is independent of it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from memejax.data import synthetic_pictures
from memejax.data.arrays import Labelled

# Number of the split in the seed of each of its pictures.
SPLITS = {"train": 0, "test": 1}

_BATCH = 32  # About 1 MB of float32, which stays in a core's cache.


def pictures(
    *, train: int, test: int, size: int, concepts: int, seed: int
) -> dict[str, Labelled]:
    """Draw the pictures of both splits.

    Picture i shows concept i mod K, K the number of concepts, so that the classes of a
    split differ by one picture at most. Its generator derives from (seed, split, i):
    a picture does not depend on the number of pictures, and no two pictures share a
    generator, within a split or between splits.

    Args:
        train: number of training pictures, at least `concepts`.
        test: number of test pictures, at least `concepts`.
        size: side of a picture in pixels, at least 16.
        concepts: K in 2..8: the first K of `synthetic_pictures.CONCEPTS`.
        seed: at least 0.

    Returns:
        "train" and "test": images uint8 [n, size, size, 3], labels int32 [n] in 0..K-1.

    Raises:
        ValueError: for an argument out of range.
    """
    known = len(synthetic_pictures.CONCEPTS)
    if not 2 <= concepts <= known:
        raise ValueError(f"concepts {concepts}: expected 2 to {known}")
    if seed < 0:
        raise ValueError(f"seed {seed}: expected at least 0")
    if size < 16:
        raise ValueError(f"size {size}: expected at least 16 pixels")
    sizes = {"train": train, "test": test}
    for split, n in sizes.items():
        if n < concepts:
            raise ValueError(
                f"{n} pictures of {split}: expected at least one for each of the "
                f"{concepts} concepts"
            )
    return {
        split: _draw(SPLITS[split], n, size=size, concepts=concepts, seed=seed)
        for split, n in sizes.items()
    }


def _draw(split: int, n: int, *, size: int, concepts: int, seed: int) -> Labelled:
    """Draw the pictures of one split."""
    labels = np.arange(n, dtype=np.int32) % concepts
    images_nhwc = np.empty((n, size, size, 3), np.uint8)

    def draw_batch(start: int) -> None:
        rows = range(start, min(start + _BATCH, n))
        rngs = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, i)))
            for i in rows
        ]
        cues = np.array([rng.integers(2) for rng in rngs])
        images_nhwc[rows.start : rows.stop] = synthetic_pictures.draw(
            labels[rows.start : rows.stop], cues, rngs=rngs, size=size
        )

    # numpy releases the interpreter's lock.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(draw_batch, range(0, n, _BATCH)))
    return Labelled(images_nhwc, labels)
