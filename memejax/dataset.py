"""A data set as the stages use it: from the config's section `data` to columns.

Built-in memes are written to disk first and then go through the same reader,
tokenizer and pipeline as anybody's.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax.data import hateful_memes, pipeline, synthetic_memes, text


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
      name: "train", "dev_seen", ...
      source: columns for the pipeline: image, input_ids, attention_mask, label.
      ids: as they go into predictions.
      labels: int32 [n], -1 where unknown.
    """

    name: str
    source: pipeline.Source
    ids: Sequence[str]
    labels: np.ndarray

    @property
    def labelled(self) -> bool:
        """Whether every label is known and both classes occur."""
        return bool(np.all(self.labels >= 0)) and len(np.unique(self.labels)) == 2


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as the stages use it.

    Attributes:
      splits: by name; "train" is what is trained on.
      dev: name of the split that chooses the checkpoint and the threshold.
      vocabulary: number of tokens.
      facts: JSON for results.json: sizes, cut captions, bad records, Bayes scores.
    """

    splits: Mapping[str, Split]
    dev: str
    vocabulary: int
    facts: Mapping[str, Any]


def load(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Reads, checks, splits and tokenises the memes.

    Without `data.root` the built-in memes are written under the run's folder, and
    then read like any others.

    Raises:
      hateful_memes.BadRecordsError: naming every bad record.
      ValueError: if a split that the config names does not exist.
    """
    c = config.data
    splits, facts = _splits(config, workdir)
    tokenizer = _tokenizer(config, [m.text for m in splits["train"]], workdir)
    everything = [meme for memes in splits.values() for meme in memes]
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
        "vocabulary": tokenizer.get_vocab_size(),
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
        loaded[name] = Split(name, source, [m.id for m in memes], labels[rows])
    return Data(loaded, c.dev, tokenizer.get_vocab_size(), facts)


def _splits(
    config: ConfigDict, workdir: pathlib.Path
) -> tuple[dict[str, list[hateful_memes.Meme]], dict[str, Any]]:
    """The usable memes of every split, and what there is to say of them."""
    c = config.data
    facts: dict[str, Any] = {"root": c.root}
    root = c.root
    if root is None:
        root = os.fspath(workdir / "memes")
        made = synthetic_memes.write(
            root, seed=config.seed, size=c.image_size, **c.synthetic
        )
        facts["bayes"] = dict(made.bayes)
    memes = hateful_memes.read(
        root,
        on_bad_record=c.on_bad_record,
        max_pixels=c.max_pixels,
        threads=config.pipeline.threads,
    )
    facts["bad_records"] = len(memes.bad)
    if memes.bad:
        hateful_memes.write_bad_records(
            os.fspath(workdir / "bad_records.jsonl"), memes.bad
        )
    splits = dict(memes.splits)
    if "train" not in splits or not (c.dev == "validation" or c.dev in splits):
        raise ValueError(
            f"{root} has the splits {sorted(splits)}, but the config asks for "
            f"train and data.dev={c.dev} ('validation' holds data.validation of the "
            "training memes out)"
        )
    if c.dev == "validation":
        splits["train"], splits["validation"] = hateful_memes.split_by_caption(
            splits["train"], fraction=c.validation, seed=config.seed
        )
    facts["sizes"] = {name: len(memes) for name, memes in splits.items()}
    return splits, facts


def _tokenizer(config: ConfigDict, captions: list[str], workdir: pathlib.Path):
    """The named tokenizer, or one trained on the captions; saved with the run."""
    if config.data.tokenizer is not None:
        tokenizer = text.load_tokenizer(config.data.tokenizer)
    else:
        tokenizer = text.train_wordpiece(captions, vocab_size=config.data.vocabulary)
    text.save_tokenizer(tokenizer, os.fspath(workdir / "tokenizer"))
    return tokenizer
