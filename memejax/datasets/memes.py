"""Memes on disk as columns; built-in memes are written to disk first.

They then go through the same reader, tokenizer and pipeline as any others.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax.console import say, say_if_slow
from memejax.data import hateful_memes, ocr, pipeline, synthetic_memes, text
from memejax.data.images import ImageError
from memejax.data.records import RecordError
from memejax.datasets.data import Data, Split, built_in

# Value of `data.dev` that holds a part of train out -> how it is chosen.
HELD_OUT = {
    "validation": hateful_memes.split_by_caption,
    "random_validation": hateful_memes.split_randomly,
}


def load_memes(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Load memes on disk as columns; see `datasets.load`."""
    c = config.data
    root, splits, facts = read_memes(config, workdir)
    if not {"train", c.dev} <= set(splits):
        raise ValueError(
            f"{root} has the splits {sorted(splits)}, but the config needs train and "
            f"data.dev={c.dev}; --config.data.dev=validation holds out "
            f"{c.validation:.0%} of the training memes by caption"
        )
    tokenizer = _tokenizer(config, [m.text for m in splits["train"]], workdir)
    everything = [meme for memes in splits.values() for meme in memes]
    with say_if_slow(f"decoding the pictures of {len(everything):,} memes"):
        columns = pipeline.image_columns(
            [meme.image for meme in everything],
            size=c.image_size,
            resize=c.resize,
            max_pixels=c.max_pixels,
            cache=config.pipeline.cache,
            folder=workdir / "cache",
            threads=config.pipeline.threads,
        )
    tokens = text.encode(tokenizer, [m.text for m in everything], length=c.text_length)
    labels = np.array([m.label for m in everything], np.int32)
    facts |= {
        "truncated_captions": tokens.truncated,
        "vocabulary": text.vocabulary_size(tokenizer),
    }
    done, loaded = 0, {}
    for name, memes in splits.items():
        rows = np.arange(done, done + len(memes))
        done += len(memes)
        source = {k: pipeline.Rows(column, rows) for k, column in columns.items()}
        source |= {
            "input_ids": tokens.input_ids[rows],
            "attention_mask": tokens.attention_mask[rows],
            "label": labels[rows],
        }
        loaded[name] = Split(
            name, source, [m.id for m in memes], labels[rows], [m.text for m in memes]
        )
    return Data(loaded, c.dev, text.vocabulary_size(tokenizer), facts)


def read_memes(
    config: ConfigDict, folder: pathlib.Path
) -> tuple[str, dict[str, list[hateful_memes.Meme]], dict[str, Any]]:
    """Read the usable memes of every split of a config's data.

    Args:
        config: an experiment's; without `data.root` the built-in memes are written.
        folder: for the built-in memes, and for a list of bad records.

    Returns:
        The folder of the memes; the splits, one of HELD_OUT out of "train" if it is
        `data.dev`; and facts for results.json.

    Raises:
        hateful_memes.BadRecordsError: naming every bad record.
        hateful_memes.MissingDataError: naming the missing data.
        ValueError: if there is no train split to hold a validation split out of.
    """
    c = config.data
    facts: dict[str, Any] = {"name": "memes", "root": c.root}
    root = c.root
    if root is None:
        root = os.fspath(folder / "memes")
        sizes = built_in(c)
        count = sizes.train + sizes.dev + sizes.test
        say(f"writing {count:,} built-in memes to {root}")
        made = synthetic_memes.write(root, seed=config.seed, size=c.image_size, **sizes)
        facts["bayes"] = dict(made.bayes)
    with say_if_slow(f"reading and checking the memes of {root}"):
        memes = hateful_memes.read(
            root,
            on_bad_record=c.on_bad_record,
            max_pixels=c.max_pixels,
            threads=config.pipeline.threads,
            read_caption=_caption_reader(config),
        )
    facts["bad_records"] = len(memes.bad)
    if memes.bad:
        path = os.fspath(folder / "bad_records.jsonl")
        hateful_memes.write_bad_records(path, memes.bad)
    splits = dict(memes.splits)
    if c.dev in HELD_OUT:
        if "train" not in splits:
            raise ValueError(
                f"{root} has the splits {sorted(splits)}: data.dev={c.dev!r} holds "
                "out data.validation of train"
            )
        splits["train"], splits[c.dev] = HELD_OUT[c.dev](
            splits["train"], fraction=c.validation, seed=config.seed
        )
    facts["sizes"] = {name: len(memes) for name, memes in splits.items()}
    return root, splits, facts


def _caption_reader(config: ConfigDict) -> Callable[[str], str] | None:
    """Return a reader of captions that are missing, if an extraction has them read."""
    if "extract" not in config or not config.extract.ocr:
        return None
    reader = ocr.CaptionReader(cache=ocr.default_cache(), say=say)
    shown, done = time.monotonic(), 0

    def read(path: str) -> str:
        nonlocal shown, done
        try:
            found = reader.read(path, max_pixels=config.data.max_pixels)
        except ImageError as error:
            raise RecordError(f"image {error.path} {error.reason}") from None
        done += 1
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            say(f"captions read off {done:,} pictures")
        return found.caption

    return read


def with_written_memes(config: ConfigDict, folder: pathlib.Path) -> ConfigDict:
    """Return a config that reads the built-in memes written by another process.

    Args:
        config: an experiment's.
        folder: that they were written to.

    Returns:
        A copy whose `data.root` is theirs; `config` itself if it has a root or other
        data.
    """
    if config.data.name != "memes" or config.data.root is not None:
        return config
    config = config.copy_and_resolve_references()
    config.data.root = os.fspath(folder / "memes")
    return config


def _tokenizer(config: ConfigDict, captions: list[str], workdir: pathlib.Path):
    """Load the named tokenizer or train one on the captions; save it with the run."""
    if config.data.tokenizer is not None:
        tokenizer = text.load_tokenizer(config.data.tokenizer)
    else:
        tokenizer = text.train_wordpiece(captions, vocab_size=config.data.vocabulary)
    text.save_tokenizer(tokenizer, os.fspath(workdir / "tokenizer"))
    return tokenizer
