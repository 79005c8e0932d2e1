"""Scaling of a head's features by statistics of its training memes."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from memejax import losses

# Columns of the features that a head takes.
FEATURES = ("image", "text")
# "standard": mean 0 and deviation 1 over the training memes; "unit": mean 0, and then
# length 1 of each meme; "none".
SCALINGS = ("standard", "unit", "none")


def statistics(
    columns: Mapping[str, np.ndarray], train: np.ndarray, *, scaling: str
) -> dict[str, dict[str, np.ndarray]]:
    """Return what scales each feature, from the training memes.

    Args:
        columns: `image` and `text`, float32 `[n, d]` each.
        train: rows of the training memes, int `[m]`.
        scaling: one of SCALINGS.

    Returns:
        Name of the feature -> arguments of `scaled`, float32; {} for "none".
    """
    found = {}
    for name in FEATURES if scaling != "none" else ():
        rows = columns[name][train].astype(np.float64)
        found[name] = {"mean": rows.mean(axis=0).astype(np.float32)}
        if scaling == "standard":
            std = rows.std(axis=0)
            # A constant feature stays 0.
            scale = np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)
            found[name]["scale"] = scale.astype(np.float32)
    return found


def scaled(
    rows: jax.Array, *, mean: jax.Array, scale: jax.Array | None = None
) -> jax.Array:
    """Centre features, and scale each of them, or all of a meme to length 1.

    Args:
        rows: `[b, d]`.
        mean: `[d]`.
        scale: `[d]`; None for length 1.
    """
    centred = rows - mean[None]
    return losses.unit_rows(centred) if scale is None else centred * scale[None]
