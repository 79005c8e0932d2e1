"""Whole words of a caption, and the tokens that they became."""

from __future__ import annotations

import copy
import re
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from memejax.data.text import LONGEST_CAPTION

# Scripts without spaces between words: each character is shown by itself.
_WIDE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+")


class Words(NamedTuple):
    """Words of one caption.

    Attributes:
        texts: as they are written, w of them.
        spans: their characters [start, stop) in the caption.
        members: bool `[w, t]`, whether a token belongs to a word; a special token
            belongs to none, and a word beyond the last token has none.
    """

    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    members: np.ndarray


def caption_words(tokenizer: Tokenizer, caption: str, *, length: int) -> Words:
    """Split a caption at spaces, and find the tokens of each word.

    Args:
        tokenizer: any, as for `text.encode`.
        caption: a text; beyond `text.LONGEST_CAPTION` characters it is not read.
        length: t, tokens per caption.

    Returns:
        Words, their tokens in the places that `text.encode` gives them.
    """
    caption = caption[:LONGEST_CAPTION]
    cutter = copy.deepcopy(tokenizer)
    cutter.no_padding()
    cutter.enable_truncation(length)
    encoding = cutter.encode(caption)
    found = list(_WORD.finditer(caption))
    members = np.zeros((len(found), length), bool)
    for place, (start, stop) in enumerate(encoding.offsets):
        if encoding.special_tokens_mask[place] or stop <= start:
            continue
        for number, word in enumerate(found):
            # By its last character: some tokenizers begin a token with a space.
            if word.start() < stop <= word.end():
                members[number, place] = True
    return Words(
        tuple(word.group() for word in found),
        tuple(word.span() for word in found),
        members,
    )
