"""Whole words of captions, and the tokens they became."""

import numpy as np
import pytest

from memejax.data import text
from memejax.data.caption_words import caption_words

CAPTIONS = ["the cat sat on the mat", "dogs and cats, dogs and mats!", "a cat's mat"]


@pytest.fixture(scope="module")
def tokenizer():
    return text.train_wordpiece(CAPTIONS * 3, vocab_size=40)


def test_tokens_belong_to_the_words_they_are_part_of(tokenizer):
    caption = "  Cats, unseen\tmat! "
    words = caption_words(tokenizer, caption, length=16)
    assert words.texts == ("Cats,", "unseen", "mat!")
    assert [caption[a:b] for a, b in words.spans] == list(words.texts)
    tokens = text.encode(tokenizer, [caption], length=16)
    count = int(tokens.attention_mask.sum())
    # Every token but [CLS] and [SEP] is in exactly one word, in their order.
    np.testing.assert_array_equal(
        words.members.sum(0), [0] + [1] * (count - 2) + [0] * (17 - count)
    )
    owner = words.members[:, 1 : count - 1].argmax(0)
    assert (np.diff(owner) >= 0).all()
    pieces = [tokenizer.id_to_token(i) for i in tokens.input_ids[0]]
    of_last = [p for p, here in zip(pieces, words.members[2], strict=True) if here]
    assert "".join(p.removeprefix("##") for p in of_last) == "mat!"


def test_words_beyond_the_last_token_have_none(tokenizer):
    words = caption_words(tokenizer, CAPTIONS[0], length=5)
    assert len(words.texts) == 6 and words.members.shape == (6, 5)
    assert words.members.any(1).tolist()[-1] is False
    assert words.members.any(1)[0]


def test_empty_captions_and_scripts_without_spaces(tokenizer):
    words = caption_words(tokenizer, " ", length=8)
    assert words.texts == () and words.members.shape == (0, 8)
    words = caption_words(tokenizer, "猫cat と", length=8)
    assert words.texts == ("猫", "cat", "と")
