"""Captions to token ids, always through a `tokenizers.Tokenizer`.

transformers is imported only to look up a name on the hub.
"""

import copy
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# In the order of their ids in a vocabulary trained here.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


# Longer captions are cut, in characters: no vocabulary needs more of one, and a
# caption of megabytes would stall everything that reads it.
LONGEST_CAPTION = 10_000
# A longer word is [UNK] in WordPiece, so nothing is learned from it.
LONGEST_WORD = 100


# CLIP's files in older folders, and the token that ends a text and pads it.
CLIP_FILES = ("vocab.json", "merges.txt")
CLIP_END = "<|endoftext|>"


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


def _bert_tokenizer(
    vocabulary: dict[str, int],
    *,
    lowercase: bool = True,
    chinese_chars: bool = True,
    strip_accents: bool | None = None,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
) -> Tokenizer:
    """Make a WordPiece tokenizer that splits text as BERT's does."""
    pad, unknown, cls, sep, mask = special_tokens
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([pad, unknown, cls, sep, mask])
    return tokenizer


def _from_vocab_txt(path: str) -> Tokenizer:
    """Read a BERT vocabulary, one token per line, and the settings file beside it."""
    with open(path, encoding="utf-8") as file:
        vocabulary = {line.rstrip("\n"): place for place, line in enumerate(file)}
    settings: dict = {}
    settings_path = os.path.join(os.path.dirname(path), "tokenizer_config.json")
    if os.path.isfile(settings_path):
        with open(settings_path, encoding="utf-8") as file:
            settings = json.load(file)
    names = []
    for kind, default in zip(
        ("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True
    ):
        token = settings.get(f"{kind}_token", default)
        # Written as a plain string, or as {"content": ..., "lstrip": ...}.
        names.append(token["content"] if isinstance(token, dict) else token)
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise ValueError(
            f"{path}: holds no {', '.join(missing)}, expected a BERT vocabulary "
            f"with {', '.join(names)}"
        )
    return _bert_tokenizer(
        vocabulary,
        lowercase=settings.get("do_lower_case", True),
        chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        special_tokens=names,
    )


def _from_merges(vocab: str, merges: str) -> Tokenizer:
    """Read CLIP's byte-pair encoding from its two files."""
    # Imported here: it takes seconds, and newer folders have a tokenizer.json.
    from transformers import CLIPTokenizerFast

    try:
        with open(vocab, encoding="utf-8") as file:
            entries = json.load(file)
        with open(merges, encoding="utf-8") as file:
            # The first line names the format.
            lines = [line.split() for line in file.read().split("\n")[1:] if line]
        pairs = [(first, second) for first, second in lines]
        tokenizer = CLIPTokenizerFast(vocab=entries, merges=pairs).backend_tokenizer
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(
            f"{vocab} and {merges}: are not CLIP's vocabulary and merges: {error}"
        ) from error
    vocabulary_size(tokenizer)
    return tokenizer


def _from_tokenizer_json(path: str) -> Tokenizer:
    try:
        with open(path, encoding="utf-8") as file:
            _check_parts(json.load(file))
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(
            f"{path}: is not a tokenizer.json of the tokenizers library: {error}"
        ) from error
    vocabulary_size(tokenizer)
    return tokenizer


# A group that repeats and has a repetition inside, such as (a+)+: matching may take a
# time exponential in the length of the text.
_NESTED = re.compile(r"\((?:[^()\\]|\\.)*[+*](?:[^()\\]|\\.)*\)[+*{]")
# Longest replacement of a normaliser, in characters.
_LONGEST_REPLACEMENT = 100
# Largest id: an embedding of so many rows is larger than any published one.
_LARGEST_ID = 5_000_000


def _check_parts(value: Any, name: str = "") -> None:
    """Raise ValueError for parts of a tokenizer.json that could stall or fill memory.

    Args:
        value: the parsed file, or a part of it.
        name: of the part.
    """
    if isinstance(value, dict):
        if value.get("type") == "Replace":
            content = value.get("content")
            if isinstance(content, str) and len(content) > _LONGEST_REPLACEMENT:
                raise ValueError(f"it replaces by {len(content):,} characters")
        for key, part in value.items():
            # The vocabulary has a hundred thousand entries, and no parts.
            if key not in ("vocab", "merges"):
                _check_parts(part, key)
    elif isinstance(value, list):
        for part in value:
            _check_parts(part, name)
    elif name == "Regex" and isinstance(value, str) and _NESTED.search(value):
        raise ValueError(f"its pattern {value:.80} can take forever to match")


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the rows of an embedding for a tokenizer, its largest id plus 1.

    Raises:
        ValueError: if that is no plausible size.
    """
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest <= _LARGEST_ID:
        raise ValueError(
            f"the tokenizer's largest id is {largest}, expected 0 to {_LARGEST_ID:,}"
        )
    return largest + 1


def _from_hub(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    # Network, cache, permission and parse errors are raised as OSError, ValueError,
    # KeyError or the hub's own types; to the user they are the same.
    except Exception as error:
        raise ValueError(
            f"no tokenizer {name!r}: looked for a folder or file of that name in "
            f"{os.getcwd()}, then for a model of that name on the hub "
            f"({type(error).__name__}: {error})"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(
            f"tokenizer {name!r} is a {type(tokenizer).__name__} without a "
            "tokenizers.Tokenizer behind it, expected a fast tokenizer"
        )
    return backend


def load_tokenizer(name_or_folder: str) -> Tokenizer:
    """Load a tokenizer from a folder, a file, or the hub.

    Order of the search: a file `*.json` (tokenizers' format) or `*.txt` (a BERT
    vocabulary); a folder with `tokenizer.json`; a folder with `vocab.txt`, which splits
    text as BERT does with `do_lower_case`, `tokenize_chinese_chars` and
    `strip_accents` of its `tokenizer_config.json`; a folder with CLIP's `vocab.json`
    and `merges.txt`; the name of a model on the hub (or in its local cache).

    Args:
        name_or_folder: a path, or a hub name such as "distilbert-base-uncased".

    Returns:
        The tokenizer.

    Raises:
        ValueError: if there is none, naming the places searched.
    """
    path = os.path.expanduser(os.fspath(name_or_folder))
    if os.path.isfile(path):
        if path.endswith(".txt"):
            return _from_vocab_txt(path)
        return _from_tokenizer_json(path)
    if os.path.isdir(path):
        json_path = os.path.join(path, "tokenizer.json")
        vocab_path = os.path.join(path, "vocab.txt")
        if os.path.isfile(json_path):
            return _from_tokenizer_json(json_path)
        if os.path.isfile(vocab_path):
            return _from_vocab_txt(vocab_path)
        pair = [os.path.join(path, name) for name in CLIP_FILES]
        if all(map(os.path.isfile, pair)):
            return _from_merges(*pair)
        raise ValueError(
            f"no tokenizer in the folder {path}: looked for tokenizer.json, vocab.txt, "
            f"and {' with '.join(CLIP_FILES)}"
        )
    # A hub name is "name" or "owner/name" and starts with neither of these.
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or "\\" in path:
        raise ValueError(
            f"no tokenizer {name_or_folder!r}: there is no such folder or file; "
            "looked for a folder with tokenizer.json or vocab.txt, or such a file"
        )
    return _from_hub(path)


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
    blank = _bert_tokenizer(specials, lowercase=lowercase)
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
    return _bert_tokenizer(learner.get_vocab(), lowercase=lowercase)


def save_tokenizer(tokenizer: Tokenizer, folder: str) -> None:
    """Write `folder`/tokenizer.json, which `load_tokenizer` and others read."""
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))


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
