"""Captions to token ids, always through a `tokenizers.Tokenizer`.

Tokenizers are read and written by tokenizer_files.py, and trained here.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from memejax.data.tokenizer_files import CLIP_END, SPECIAL_TOKENS, bert_tokenizer
from memejax.data.tokenizer_files import load_tokenizer as load_tokenizer
from memejax.data.tokenizer_files import save_tokenizer as save_tokenizer
from memejax.data.tokenizer_files import vocabulary_size as vocabulary_size

# Longer captions are cut, in characters: no vocabulary needs more of one, and a
# caption of megabytes would stall everything that reads it.
LONGEST_CAPTION = 10_000
# Tokens per caption that `shorten` leaves at least.
SHORTEST = 16
# A longer word is [UNK] in WordPiece, so nothing is learned from it.
LONGEST_WORD = 100


class Tokens(NamedTuple):
    """Token ids of n captions at one length t.

    Attributes:
        input_ids: int32 [n, t].
        attention_mask: int32 [n, t]: 1 on tokens, 0 on padding.
        truncated: number of captions that were cut.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    truncated: int


def _pieces(words: Counter[str], room: int) -> tuple[list[str], set[str]]:
    """Return the initial single-character pieces, and the characters left out.

    If there are more than `room`, the rarest characters are dropped.
    """
    heads: Counter[str] = Counter()
    tails: Counter[str] = Counter()
    for word, count in words.items():
        for place, character in enumerate(word):
            heads[character] += count
            if place:
                tails[character] += count
    kept: list[str] = []
    used = 0
    for character in sorted(heads, key=lambda c: (-heads[c], c)):
        cost = 2 if character in tails else 1
        if used + cost > room:
            break
        kept.append(character)
        used += cost
    pieces = sorted(kept) + [f"##{c}" for c in sorted(kept) if c in tails]
    return pieces, set(heads) - set(kept)


def train_wordpiece(
    captions: Iterable[str],
    *,
    vocab_size: int,
    min_frequency: int = 2,
    lowercase: bool = True,
) -> Tokenizer:
    """Learn a WordPiece vocabulary; the same for the same captions in any order.

    [PAD] [UNK] [CLS] [SEP] [MASK] have the ids 0 to 4; then come the single
    characters, then the merged pieces, most frequent pair first. Text is split as BERT
    does, and encoded as [CLS] caption [SEP].

    Args:
        captions: texts to learn from.
        vocab_size: maximum size of the vocabulary, the five included.
        min_frequency: number of occurrences that a pair needs to be merged.
        lowercase: whether case and accents are dropped.

    Returns:
        The tokenizer.

    Raises:
        ValueError: if `vocab_size` is too small, or the captions have no word.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(
            f"vocab_size is {vocab_size}, expected more than the "
            f"{len(SPECIAL_TOKENS)} special tokens"
        )
    specials = {token: place for place, token in enumerate(SPECIAL_TOKENS)}
    blank = bert_tokenizer(specials, lowercase=lowercase)
    words: Counter[str] = Counter()
    for caption in captions:
        normalised = blank.normalizer.normalize_str(caption[:LONGEST_CAPTION])
        pre_tokenised = blank.pre_tokenizer.pre_tokenize_str(normalised)
        words.update(word for word, _ in pre_tokenised if len(word) <= LONGEST_WORD)
    if not words:
        raise ValueError("the captions hold no word to learn a vocabulary from")
    pieces, dropped = _pieces(words, vocab_size - len(SPECIAL_TOKENS))
    # The trainer numbers "##x" pieces in the order of a hash map that differs from
    # one run to the next, and breaks ties between pairs by those numbers. As special
    # tokens in sorted order, they are numbered before it starts.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        show_progress=False,
    )
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A word with a dropped character is always [UNK], so it is left out.
    learner.train_from_iterator(
        (
            " ".join([word] * count)
            for word, count in sorted(words.items())
            if dropped.isdisjoint(word)
        ),
        trainer,
    )
    return bert_tokenizer(learner.get_vocab(), lowercase=lowercase)


def pad_id(tokenizer: Tokenizer) -> int:
    """Return the id of the padding token.

    Args:
        tokenizer: any tokenizer with padding set, or with a [PAD] or <pad> token, or
            CLIP's, which pads with the token that ends a text.

    Returns:
        The id.

    Raises:
        ValueError: if there is no such token.
    """
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_id"]
    for token in ("[PAD]", "<pad>", CLIP_END):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return found
    raise ValueError("the tokenizer has no padding token: looked for [PAD] and <pad>")


def shorten(
    input_ids: np.ndarray, attention_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut off padding that no caption of a batch needs.

    The result has 16, 32, 64, ... tokens per caption: each length is a program of its
    own, so that there should be few.

    Args:
        input_ids: int32 `[b, t]`, padded on the right.
        attention_mask: int32 `[b, t]`.

    Returns:
        Both with the smallest of these lengths that holds the longest caption, at most
        t.
    """
    longest = int(np.max(np.sum(attention_mask != 0, axis=1), initial=0))
    length = SHORTEST
    while length < longest:
        length *= 2
    return input_ids[:, :length], attention_mask[:, :length]


def encode(tokenizer: Tokenizer, captions: Sequence[str], *, length: int) -> Tokens:
    """Encode captions at one static length; longer ones are cut before [SEP].

    Of a caption beyond LONGEST_CAPTION characters the rest is not even read.

    Args:
        tokenizer: any; its own truncation and padding settings are not used.
        captions: n texts; an empty one consists of the special tokens alone.
        length: t, tokens per caption, special tokens included.

    Returns:
        Tokens with input_ids and attention_mask int32 [n, t] and the number of
        captions that were cut.

    Raises:
        ValueError: for a caption that is not valid text, or a length without room for
            one token beside the special ones.
    """
    specials = tokenizer.num_special_tokens_to_add(False)
    if length <= specials:
        raise ValueError(
            f"length is {length}, expected more than the {specials} special tokens"
        )
    for place, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise ValueError(
                f"caption {place} is a {type(caption).__name__}, expected a str"
            )
        try:
            caption.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"caption {place} is not valid Unicode: {error}") from None
    padding = pad_id(tokenizer)
    # A copy: another thread may be using the caller's tokenizer.
    cutter = copy.deepcopy(tokenizer)
    cutter.no_padding()
    cutter.enable_truncation(length)
    input_ids = np.full((len(captions), length), padding, np.int32)
    attention_mask = np.zeros((len(captions), length), np.int32)
    truncated = 0
    cut = [caption[:LONGEST_CAPTION] for caption in captions]
    for row, encoding in enumerate(cutter.encode_batch(cut)):
        input_ids[row, : len(encoding.ids)] = encoding.ids
        attention_mask[row, : len(encoding.ids)] = 1
        truncated += bool(encoding.overflowing) or cut[row] != captions[row]
    return Tokens(input_ids, attention_mask, truncated)
