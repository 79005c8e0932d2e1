"""Small labelled pictures, held in memory, for training under a curriculum.

From the config section `data` to arrays, and to the training and validation rows of
each seed. `memes.py` does the same for memes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax.data import geoshapes, prepared

# Streams of random numbers of a run's seed, beside those of its plan.
_SPLIT, _NOISE = 11, 12
# Sets of GeoShapes pictures to train on.
POOLS = ("geom", "basic", "union")


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """Pictures of all splits in one array, and the rows of each split.

    Attributes:
        images: uint8 [n, h, w, c].
        labels: int32 [n] to train on, some possibly wrong (label noise).
        truth: int32 [n], the true labels, used to count errors.
        classes: their names.
        train: int32 [seeds, m], training rows of each seed.
        validation: int32 [seeds, v].
        test: int32 [t], the same for every seed.
        easy: int32 [e], rows of easier training pictures; empty if unknown.
        difficulty: name -> float32 [n], known measures of the difficulty of a picture.
        facts: JSON for results.json.
    """

    images: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    classes: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    easy: np.ndarray
    difficulty: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]

    def describe(self) -> str:
        """Return the facts in one line."""
        return ", ".join(f"{name} {value}" for name, value in self.facts.items())


def load(config: ConfigDict, seeds: range) -> LabelledData:
    """Load the data set `data.name`, one of LOADERS or "tfds:NAME", for some seeds.

    - "geoshapes": built in; `data.train` training pictures of each kind, of which
      `data.pool` selects those to train on. The pictures are the same for every seed.
    - "mnist", "cifar10": read from the folder `data.root`, original files or those
      prepared by TFDS, as "tfds:NAME" is, any data set of labelled pictures of one
      size. Every seed holds out its own `data.validation` pictures, and
      trains on `data.train` of the rest (all of them if None).

    A share `data.label_noise` of the pictures is trained on with another label, drawn
    uniformly from the other classes; errors are counted against the true labels.

    Raises:
        hateful_memes.MissingDataError: naming the missing files.
        ValueError: for an unknown name, a root that is missing or not needed, more
            pictures than exist, or a share of noise outside [0, 1).
    """
    c = config.data
    load_it = LOADERS.get(c.name)
    if c.name.startswith(prepared.PREFIX):
        load_it = _files(c.name)
    if load_it is None:
        raise ValueError(
            f"data.name={c.name!r}: expected one of {', '.join(LOADERS)}, tfds:NAME"
        )
    if not 0 <= c.label_noise < 1:
        raise ValueError(f"data.label_noise must be in [0, 1), got {c.label_noise}")
    return _with_noise(load_it(c, seeds), c.label_noise, config.seed)


def _geoshapes(c: ConfigDict, seeds: range) -> LabelledData:
    if c.root is not None:
        raise ValueError("geoshapes are built in: data.root must not be set")
    if c.pool not in POOLS:
        raise ValueError(f"data.pool={c.pool!r}: expected one of {', '.join(POOLS)}")
    sizes = dict(train=c.train or 10_000, valid=c.validation, test=c.test or 5_000)
    easy = geoshapes.splits("basic", **sizes, seed=0)["train"]
    hard = geoshapes.splits("geom", **sizes, seed=0)
    parts = [easy, hard["train"], hard["valid"], hard["test"]]
    ends = np.cumsum([len(part) for part in parts])
    basic, geom, validation, test = (
        np.arange(end - len(part), end, dtype=np.int32)
        for part, end in zip(parts, ends, strict=True)
    )
    pool = {"geom": geom, "basic": basic, "union": np.concatenate([basic, geom])}[
        c.pool
    ]
    of = {
        name: np.concatenate([part.properties[name] for part in parts])
        for name in ("elongation", "area", "foreground", "background")
    }
    labels = np.concatenate([part.labels for part in parts])
    return LabelledData(
        images=np.concatenate([part.images for part in parts]),
        labels=labels,
        truth=labels,
        classes=geoshapes.CLASSES,
        train=np.tile(pool, (len(seeds), 1)),
        validation=np.tile(validation, (len(seeds), 1)),
        test=test,
        easy=basic,
        difficulty={
            "elongation": np.abs(np.log(of["elongation"])),
            "small area": -of["area"],
            "low contrast": -np.abs(of["foreground"] - of["background"]),
        },
        facts={"name": "GeoShapes", "pool": c.pool},
    )


def _files(name: str) -> Callable[[ConfigDict, range], LabelledData]:
    """Make the loader of a data set with a training and a test part."""

    def load(c: ConfigDict, seeds: range) -> LabelledData:
        classes = tuple(map(str, range(10)))
        if c.name.startswith(prepared.PREFIX):
            own = c.name.removeprefix(prepared.PREFIX)
            opened = prepared.open_pictures(own, c.root or prepared.default_folder())
            parts, classes = prepared.in_memory(opened), opened.classes
        elif c.root is None:
            raise ValueError(f"{name} needs data.root, the folder of its files")
        else:
            parts = prepared.read(c.name, c.root)
        n, tested = len(parts["train"]), len(parts["test"])
        m = n - c.validation if c.train is None else c.train
        t = c.test or tested
        if not (0 < c.validation < n and 0 < m <= n - c.validation and t <= tested):
            raise ValueError(
                f"{name} has {n} training and {tested} test pictures: cannot hold "
                f"out {c.validation}, train on {m} others and test on {t}"
            )
        labels = np.concatenate([parts["train"].labels, parts["test"].labels])
        orders = [np.random.default_rng((s, _SPLIT)).permutation(n) for s in seeds]
        return LabelledData(
            images=np.concatenate([parts["train"].images, parts["test"].images]),
            labels=labels,
            truth=labels,
            classes=classes,
            train=np.stack(
                [np.sort(o[c.validation : c.validation + m]) for o in orders]
            ).astype(np.int32),
            validation=np.stack([np.sort(o[: c.validation]) for o in orders]).astype(
                np.int32
            ),
            test=np.arange(n, n + t, dtype=np.int32),
            easy=np.zeros(0, np.int32),
            difficulty={},
            facts={"name": name, "root": str(c.root)},
        )

    return load


LOADERS: dict[str, Callable[[ConfigDict, range], LabelledData]] = {
    "geoshapes": _geoshapes,
    "mnist": _files("MNIST"),
    "cifar10": _files("CIFAR-10"),
}


def _with_noise(data: LabelledData, share: float, seed: int) -> LabelledData:
    """Return the data with sizes in its facts and a share of its labels wrong."""
    facts = dict(data.facts) | {
        "train": data.train.shape[1],
        "validation": data.validation.shape[1],
        "test": len(data.test),
        "classes": len(data.classes),
        "label_noise": share,
    }
    labels, difficulty = data.labels, dict(data.difficulty)
    if share:
        rng, n, k = np.random.default_rng((seed, _NOISE)), len(labels), facts["classes"]
        wrong = np.zeros(n, bool)
        wrong[rng.choice(n, round(share * n), replace=False)] = True
        labels = np.where(wrong, (labels + rng.integers(1, k, n)) % k, labels)
        labels, difficulty["wrong label"] = labels.astype(np.int32), wrong.astype("f4")
    return dataclasses.replace(data, labels=labels, difficulty=difficulty, facts=facts)
