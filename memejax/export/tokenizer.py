"""A run's tokenizer, as transformers and tokenizers load it."""

from __future__ import annotations

import copy
import os
import pathlib

from tokenizers import Tokenizer

from memejax import folder
from memejax.data import text

# What vocabularies call the tokens that transformers asks for.
_NAMES = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def write_tokenizer(where: pathlib.Path, tokenizer: Tokenizer, *, length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Captions are cut and padded to `length` by what tokenizers reads, as the run did.

    Args:
        where: the folder, made if it is not there.
        tokenizer: the run's.
        length: tokens a caption.
    """
    # A copy: the caller's is in use.
    fixed = copy.deepcopy(tokenizer)
    pad = text.pad_id(tokenizer)
    pad_token = tokenizer.id_to_token(pad)
    fixed.enable_truncation(length)
    fixed.enable_padding(length=length, pad_id=pad, pad_token=pad_token)
    text.save_tokenizer(fixed, os.fspath(where))
    vocabulary = tokenizer.get_vocab()
    special = {
        kind: token
        for kind, tokens in _NAMES.items()
        for token in tokens
        if token in vocabulary
    }
    folder.write_json(
        where / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            # The encoders know one segment.
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": pad_token,
            **special,
        },
    )
