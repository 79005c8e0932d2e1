"""Data sets of the stages: splits, each a set of columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax.data import pipeline
from memejax.data.hateful_memes import split_by_caption
from memejax.data.records import Meme

# Name of the part of the dev split that chooses nothing; see `Data.hold_back`.
CERTIFY = "certify"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: "train", "dev_seen", ...
        source: columns for the pipeline: image, label and, for memes, input_ids and
            attention_mask.
        ids: as written to predictions.
        labels: int32 [n] in 0..classes-1, -1 if unknown.
        captions: of memes, [n]; None of other data.
    """

    name: str
    source: pipeline.Source
    ids: Sequence[str]
    labels: np.ndarray
    captions: Sequence[str] | None = None

    @property
    def labelled(self) -> bool:
        """Whether every label is known and at least two classes occur."""
        return bool(np.all(self.labels >= 0)) and len(np.unique(self.labels)) >= 2

    def take(self, rows: np.ndarray) -> Split:
        """Return a split with these rows only, int `[m]`, in their order."""
        source: dict[str, Any] = {
            name: column[rows]
            if isinstance(column, np.ndarray)
            else pipeline.Rows(column, rows)
            for name, column in self.source.items()
        }
        ids, captions = [self.ids[int(row)] for row in rows], self.captions
        if captions is not None:
            captions = [captions[int(row)] for row in rows]
        return Split(self.name, source, ids, self.labels[rows], captions)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set of splits.

    Attributes:
        splits: by name; "train" is the training split.
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

    def hold_back(self, share: float, *, seed: int) -> Data:
        """Return the data with a part of the dev split that chooses nothing.

        The part is the split "certify", for `memejax.decide`. No caption is in both.

        Args:
            share: of the dev split, in [0, 1); 0: these data as they are.
            seed: of the division.

        Raises:
            ValueError: for data without captions.
        """
        if not share:
            return self
        dev = self.splits[self.dev]
        if dev.captions is None:
            raise ValueError("data.certify divides by caption, and there is none here")
        memes = [
            Meme(str(row), "", caption, int(label), dev.name, "", 0)
            for row, (caption, label) in enumerate(
                zip(dev.captions, dev.labels, strict=True)
            )
        ]
        kept, held = (
            dev.take(np.array([int(meme.id) for meme in part]))
            for part in split_by_caption(memes, fraction=share, seed=seed)
        )
        parts = {self.dev: kept, CERTIFY: dataclasses.replace(held, name=CERTIFY)}
        splits: dict[str, Split] = {}
        for name, split in self.splits.items():
            splits |= parts if name == self.dev else {name: split}
        sizes = {name: len(split.ids) for name, split in splits.items()}
        facts = {**self.facts, "sizes": sizes}
        return dataclasses.replace(self, splits=splits, facts=facts)

    def describe(self) -> str:
        """Return the splits, their sizes and class shares, and any problems."""
        parts = []
        for name, split in self.splits.items():
            share = ""
            if split.labelled and self.classes == 2:
                share = f", {np.mean(split.labels == 1):.1%} hateful"
            parts.append(f"{name} {len(split.ids)}{share}")
        text = f"{self.facts['name']}: {'; '.join(parts)}"
        if self.classes != 2:
            text += f"; {self.classes} classes"
        if self.vocabulary:
            text += f"; vocabulary {self.vocabulary}"
        if self.facts["truncated_captions"]:
            text += f"; {self.facts['truncated_captions']} captions cut"
        if self.facts["bad_records"]:
            text += f"; {self.facts['bad_records']} bad records left out"
        return text


def built_in(section: ConfigDict) -> ConfigDict:
    """Return the sizes of built-in data, which replace a missing `data.root`.

    Args:
        section: `data` of a config.

    Raises:
        ValueError: if the config has no built-in data.
    """
    if "synthetic" not in section:
        raise ValueError(
            f"data.name={section.name!r} needs data.root, the folder of its files: "
            "only the preset demo has built-in data"
        )
    return section.synthetic
