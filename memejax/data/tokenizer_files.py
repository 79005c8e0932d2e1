"""Tokenizers from the files of checkpoints, and to them.

transformers is imported only for a name on the hub and for CLIP's older files.
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

# In the order of their ids in a vocabulary trained here.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# CLIP's files in older folders, and the token that ends a text and pads it.
CLIP_FILES = ("vocab.json", "merges.txt")
CLIP_END = "<|endoftext|>"
# The file beside a tokenizer with the settings of its class in transformers.
SETTINGS = "tokenizer_config.json"
# SigLIP's captions have none of these.
ASCII_PUNCTUATION = r"""[!-/:-@\[-`{-~]"""


def bert_tokenizer(
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
    settings = _settings(os.path.dirname(path))
    names = []
    for kind, default in zip(
        ("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True
    ):
        names.append(_content(settings.get(f"{kind}_token", default)))
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise ValueError(
            f"{path}: holds no {', '.join(missing)}, expected a BERT vocabulary "
            f"with {', '.join(names)}"
        )
    return bert_tokenizer(
        vocabulary,
        lowercase=settings.get("do_lower_case", True),
        chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        special_tokens=names,
    )


def _settings(folder: str, name: str = SETTINGS) -> dict[str, Any]:
    """Return the content of a folder's settings file, empty if there is none."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _content(token: Any) -> Any:
    """Return a token, written as a string or as {"content": ..., "lstrip": ...}."""
    return token["content"] if isinstance(token, dict) else token


def _complete(tokenizer: Tokenizer, folder: str) -> None:
    """Add to a tokenizer.json what transformers keeps in the files beside it.

    The padding token, and SigLIP's preparation of captions: SigLIP lowercases them and
    leaves out ASCII punctuation, SigLIP2 lowercases (folders of 2025 name Gemma's
    tokenizer, which does not).
    """
    settings = _settings(folder)
    pad = _content(settings.get("pad_token"))
    number = tokenizer.token_to_id(pad) if isinstance(pad, str) else None
    if tokenizer.padding is None and number is not None:
        tokenizer.enable_padding(pad_id=number, pad_token=pad)
    steps = []
    if str(_settings(folder, "config.json").get("model_type")).startswith("siglip"):
        if settings.get("do_lower_case", True):
            steps.append(normalizers.Lowercase())
        if str(settings.get("tokenizer_class")).startswith("SiglipTokenizer"):
            spaces = normalizers.Replace(Regex(r"\s+"), " ")
            punctuation = normalizers.Replace(Regex(ASCII_PUNCTUATION), "")
            steps += [punctuation, spaces, normalizers.Strip()]
    if steps:
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([*steps, *own])


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
        _complete(tokenizer, os.path.dirname(path))
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
    vocabulary); a folder with `tokenizer.json`, completed by the padding token of its
    `tokenizer_config.json` and SigLIP's lower case; a folder with `vocab.txt`, which
    splits text as BERT does with `do_lower_case`, `tokenize_chinese_chars` and
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


def save_tokenizer(tokenizer: Tokenizer, folder: str) -> None:
    """Write `folder`/tokenizer.json, which `load_tokenizer` and others read."""
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
