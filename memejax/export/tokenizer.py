"""A run's tokenizer, in the format of transformers and tokenizers."""

from __future__ import annotations

import copy
import os
import pathlib

from tokenizers import Tokenizer

from memejax import folder
from memejax.data import text

# Special tokens of transformers -> their names in vocabularies.
_NAMES = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def write_tokenizer(path: pathlib.Path, tokenizer: Tokenizer, *, length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    The saved tokenizer truncates and pads captions to `length`, as the run did.

    Args:
        path: the folder, created if necessary.
        tokenizer: the run's tokenizer.
        length: tokens per caption.
    """
    # A copy: the caller still uses the original.
    fixed = copy.deepcopy(tokenizer)
    pad = text.pad_id(tokenizer)
    pad_token = tokenizer.id_to_token(pad)
    fixed.enable_truncation(length)
    fixed.enable_padding(length=length, pad_id=pad, pad_token=pad_token)
    text.save_tokenizer(fixed, os.fspath(path))
    vocabulary = tokenizer.get_vocab()
    special = {
        kind: token
        for kind, tokens in _NAMES.items()
        for token in tokens
        if token in vocabulary
    }
    folder.write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            # The encoders have no token types.
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": pad_token,
            **special,
        },
    )
