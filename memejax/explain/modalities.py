"""Scores of picture and caption alone, and what both together add."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Modalities(NamedTuple):
    """A score divided between two modalities, scalars or arrays of one shape.

    `both = neither + (picture - neither) + (caption - neither) + interaction`.

    Attributes:
        both: score of the meme.
        picture: mean score of its picture with other captions.
        caption: mean score of its caption with other pictures.
        neither: mean score of other pictures with other captions.
        interaction: what picture and caption add together beyond either.
    """

    both: jax.Array
    picture: jax.Array
    caption: jax.Array
    neither: jax.Array
    interaction: jax.Array


def modalities(scores_pc: ArrayLike) -> Modalities:
    """Divide a meme's score into parts of its picture, its caption, and of both.

        picture = mean_j F(v, t_j),  caption = mean_i F(v_i, t),
        neither = mean_ij F(v_i, t_j),
        interaction = F(v, t) - picture - caption + neither

    over reference pictures v_i and captions t_j. The interaction of a score that is a
    sum of a function of each is 0, and of a product (f(v) - mean f) (g(t) - mean g).

    Args:
        scores_pc: F, float `[1 + p, 1 + c]`: of each pair of a picture (row) and a
            caption (column); row 0 and column 0 are the meme's own, the others those of
            p and c references.

    Returns:
        Modalities.

    Raises:
        ValueError: without a reference of each.

    References:
        Hessel and Lee, arXiv 2010.06572, section 3: the additive projection (EMAP) is
        `picture + caption - neither`, there over the memes of a test set.

    >>> print(modalities(jnp.array([[6.0, 2.0], [3.0, 1.0]])).interaction)
    2.0
    """
    scores = jnp.asarray(scores_pc)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ValueError(
            f"got scores {list(scores.shape)}, expected [1 + p, 1 + c] with at least "
            "one reference each"
        )
    both, picture = scores[0, 0], scores[0, 1:].mean()
    caption, neither = scores[1:, 0].mean(), scores[1:, 1:].mean()
    interaction = both - picture - caption + neither
    return Modalities(both, picture, caption, neither, interaction)
