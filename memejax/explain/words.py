"""Whole words of a caption: how much each raises or lowers a score.

`word_sums` gathers what integrated gradients find for tokens; `leave_one_out` needs no
gradient. A word is a span of characters, and the rows of its tokens.

Shape suffixes: `t` tokens, `d` features, `w` words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def word_sums(values_td: ArrayLike, members_wt: ArrayLike) -> jax.Array:
    """Sum the attributions of the embeddings of each word's tokens.

    Args:
        values_td: attributions of token embeddings, float `[t, d]`.
        members_wt: bool `[w, t]`, whether a token belongs to a word. Special tokens
            belong to none.

    Returns:
        float32 `[w]`; their sum is that of all attributions if tokens of no word have
        none.

    Raises:
        ValueError: if the numbers of tokens differ.

    >>> print(word_sums(jnp.array([[9.0], [1.0], [2.0]]), jnp.array([[0, 1, 1]])))
    [3.]
    """
    values, members = jnp.asarray(values_td), jnp.asarray(members_wt)
    if members.ndim != 2 or values.ndim != 2 or members.shape[1] != values.shape[0]:
        raise ValueError(
            f"got values {list(values.shape)} and members {list(members.shape)}, "
            "expected [t, d] and [w, t]"
        )
    return jnp.where(members != 0, values.sum(1), 0).sum(1)


def without_span(caption: str, span: tuple[int, int]) -> str:
    """Return a caption without the characters [start, stop) and a space beside them.

    >>> without_span("a bad word", (2, 5))
    'a word'
    """
    start, stop = span
    before, after = caption[:start], caption[stop:]
    if before[-1:].isspace() or not before:
        after = after.removeprefix(" ")
    return before + after


def leave_one_out(
    score_fn: Callable[[Sequence[str]], np.ndarray],
    caption: str,
    *,
    spans: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Drop of a score when one word is left out of the caption.

        a_i = F(caption) - F(caption without word i)

    Args:
        score_fn: F, `n captions -> [n]`, which tokenises them anew.
        caption: the text.
        spans: characters [start, stop) of its w words.

    Returns:
        float `[w]`: positive where a word raises the score.

    References:
        Li et al. 2016, Understanding neural networks through representation erasure,
        arXiv 1612.08220, section 3, with differences in place of relative ones.

    >>> def length(texts):
    ...     return np.array([len(text.split()) for text in texts])
    >>> print(leave_one_out(length, "two words", spans=[(0, 3), (4, 9)]))
    [1 1]
    """
    scores = score_fn([caption, *(without_span(caption, span) for span in spans)])
    return scores[0] - scores[1:]
