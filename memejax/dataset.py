"""A data set as the stages use it: from the config's section `data` to columns.

`data.name` says which. Built-in memes are written to disk first and then go through
the same reader, tokenizer and pipeline as anybody's. The others are labelled pictures
without captions.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from memejax.data import (
    arrays,
    hateful_memes,
    pipeline,
    prepared,
    synthetic_memes,
    text,
)
from memejax.data.pictures import pictures


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
      name: "train", "dev_seen", ...
      source: columns for the pipeline: image, label and, of memes, input_ids and
        attention_mask.
      ids: as they go into predictions.
      labels: int32 [n] in 0..classes-1, -1 where unknown.
    """

    name: str
    source: pipeline.Source
    ids: Sequence[str]
    labels: np.ndarray

    @property
    def labelled(self) -> bool:
        """Whether every label is known and at least two classes occur."""
        return bool(np.all(self.labels >= 0)) and len(np.unique(self.labels)) >= 2


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as the stages use it.

    Attributes:
      splits: by name; "train" is what is trained on.
      dev: name of the split that chooses the checkpoint and the threshold.
      vocabulary: number of tokens; 0 without captions.
      facts: JSON for results.json: name, root, sizes, vocabulary, cut captions, bad
        records, Bayes scores.
      classes: number of classes.
    """

    splits: Mapping[str, Split]
    dev: str
    vocabulary: int
    facts: Mapping[str, Any]
    classes: int = 2


def load(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Loads the data set `data.name`, one of DATASETS.

    - "memes": reads, checks, splits and tokenises the memes of `data.root`. Without
      a root the built-in memes are written under the run's folder, and then read like
      any others.
    - "pictures": built-in pictures; the class is the pattern shown. Of
      `data.synthetic` it takes train, test and concepts.
    - "mnist", "cifar10": read from the folder `data.root`, original files or what TFDS
      prepared.

    All but the memes have the splits "train" and "test"; "test" chooses the
    checkpoint, whatever `data.dev`. Their pictures are brought to `data.image_size`
    here, once, and grey ones to three channels; `data.resize` and `pipeline.cache`
    are for files.

    Args:
      config: a run's config; of its seeds the first, `config.seed`, is the data's.
      workdir: the run's folder.

    Returns:
      Data.

    Raises:
      hateful_memes.BadRecordsError: naming every bad record.
      hateful_memes.MissingDataError: naming what was looked for.
      ValueError: for an unknown name; if a split that the config names does not exist;
        if a root is missing, or given to the built-in pictures; for files of other
        contents.
    """
    name = config.data.name
    if name not in DATASETS:
        raise ValueError(f"data.name={name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name](config, workdir)


# Memes


def _memes(config: ConfigDict, workdir: pathlib.Path) -> Data:
    """Memes on disk, as columns."""
    c = config.data
    root, splits, facts = read_memes(config, workdir)
    if not {"train", c.dev} <= set(splits):
        raise ValueError(
            f"{root} has the splits {sorted(splits)}, but the config asks for "
            f"train and data.dev={c.dev} ('validation' holds data.validation of the "
            "training memes out)"
        )
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


def read_memes(
    config: ConfigDict, folder: pathlib.Path
) -> tuple[str, dict[str, list[hateful_memes.Meme]], dict[str, Any]]:
    """The usable memes of every split of a config's data.

    Args:
      config: an experiment's; without `data.root` the built-in memes are written.
      folder: for those, and for a list of bad records.

    Returns:
      The memes' folder; the splits, of which "validation" is held out of "train" where
      `data.dev` says so; and what there is to say of them.

    Raises:
      hateful_memes.BadRecordsError: naming every bad record.
      hateful_memes.MissingDataError: naming what was looked for.
      ValueError: if there is no train split to hold a validation split out of.
    """
    c = config.data
    facts: dict[str, Any] = {"name": "memes", "root": c.root}
    root = c.root
    if root is None:
        root = os.fspath(folder / "memes")
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
        path = os.fspath(folder / "bad_records.jsonl")
        hateful_memes.write_bad_records(path, memes.bad)
    splits = dict(memes.splits)
    if c.dev == "validation":
        if "train" not in splits:
            raise ValueError(
                f"{root} has the splits {sorted(splits)}: data.dev='validation' holds "
                "data.validation of train out"
            )
        splits["train"], splits["validation"] = hateful_memes.split_by_caption(
            splits["train"], fraction=c.validation, seed=config.seed
        )
    facts["sizes"] = {name: len(memes) for name, memes in splits.items()}
    return root, splits, facts


def as_written(config: ConfigDict, folder: pathlib.Path) -> ConfigDict:
    """The config of who finds the built-in memes written, by another process.

    Args:
      config: an experiment's.
      folder: that they were written under.

    Returns:
      One whose `data.root` is theirs; the same where it has a root or is of other data.
    """
    if config.data.name != "memes" or config.data.root is not None:
        return config
    config = config.copy_and_resolve_references()
    config.data.root = os.fspath(folder / "memes")
    return config


def _tokenizer(config: ConfigDict, captions: list[str], workdir: pathlib.Path):
    """The named tokenizer, or one trained on the captions; saved with the run."""
    if config.data.tokenizer is not None:
        tokenizer = text.load_tokenizer(config.data.tokenizer)
    else:
        tokenizer = text.train_wordpiece(captions, vocab_size=config.data.vocabulary)
    text.save_tokenizer(tokenizer, os.fspath(workdir / "tokenizer"))
    return tokenizer


# Labelled pictures


def _pictures(config: ConfigDict, workdir: pathlib.Path) -> Data:
    c = config.data
    if c.root is not None:
        raise ValueError(
            f"data.name='pictures' is built in: expected no data.root, got {c.root!r}"
        )
    drawn = pictures(
        train=c.synthetic.train,
        test=c.synthetic.test,
        size=c.image_size,
        concepts=c.synthetic.concepts,
        seed=config.seed,
    )
    return _labelled(drawn, config, classes=c.synthetic.concepts)


def _mnist(config: ConfigDict, workdir: pathlib.Path) -> Data:
    return _labelled(prepared.read("mnist", _root(config)), config, classes=10)


def _cifar10(config: ConfigDict, workdir: pathlib.Path) -> Data:
    return _labelled(prepared.read("cifar10", _root(config)), config, classes=10)


def _root(config: ConfigDict) -> str:
    c = config.data
    if c.root is None:
        raise ValueError(
            f"data.name={c.name!r} needs data.root, the folder of its files; got None"
        )
    return c.root


def _labelled(
    read: Mapping[str, arrays.Labelled], config: ConfigDict, *, classes: int
) -> Data:
    """Labelled pictures as columns."""
    splits = {}
    for name, split in read.items():
        images_nhwc = _resized(split.images, config.data.image_size)
        source = {
            # Grey pictures become red, green and blue alike.
            "image": np.repeat(images_nhwc, 3 // images_nhwc.shape[-1], axis=-1),
            "label": split.labels,
        }
        ids = [str(i) for i in range(len(split))]
        splits[name] = Split(name, source, ids, split.labels)
    facts = {
        "name": config.data.name,
        "root": config.data.root,
        "sizes": {name: len(split) for name, split in read.items()},
        "bad_records": 0,
        "truncated_captions": 0,
        "vocabulary": 0,
    }
    return Data(splits, "test", 0, facts, classes)


def _resized(images_nhwc: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, h, w, c] -> [n, size, size, c] by Pillow's bilinear filter."""
    n, h, w, c = images_nhwc.shape
    if (h, w) == (size, size):
        return images_nhwc
    resized = np.empty((n, size, size, c), np.uint8)
    for picture, image_hwc in zip(resized, images_nhwc, strict=True):
        # Pillow knows grey pictures without an axis of channels only.
        image = Image.fromarray(image_hwc[..., 0] if c == 1 else image_hwc)
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        picture[...] = np.asarray(image).reshape(size, size, c)
    return resized


DATASETS: dict[str, Callable[[ConfigDict, pathlib.Path], Data]] = {
    "memes": _memes,
    "pictures": _pictures,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
