"""The protocol: which memes train, choose and test, and how methods are compared.

Of every seed five folds of train, by caption: a fold is tested by a head that was
trained on 80 % of the other four and chosen, its settings and its checkpoint, on the
remaining 20 %, which share no caption with them. One more training of every seed is on
80 % of all of train, and tested on the other splits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special
from sklearn.model_selection import StratifiedGroupKFold

from memejax import metrics
from memejax.data.hateful_memes import normalise_caption
from memejax.stages.parts.heads.training import Job
from memejax.store.read import Store

FOLDS = 5
# Share of the training memes that choose settings and checkpoint: one of as many parts.
PARTS = 5
# Pictures whose 64-bit difference hashes differ in at most so many bits are the same.
SAME_PICTURE = 4
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Memes:
    """All memes of a store, split after split.

    Attributes:
        splits: name -> rows.
        labels: int32 `[n]`, -1 if unknown.
        captions: `[n]`.
        groups: number of each meme's caption, int `[n]`; an empty caption is its own.
        hashes: difference hashes of the pictures, uint64 `[n]`.
    """

    splits: Mapping[str, np.ndarray]
    labels: np.ndarray
    captions: Sequence[str]
    groups: np.ndarray
    hashes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training and the memes it is tested on.

    Attributes:
        job: seed, and rows to train on and to choose by.
        tests: name -> rows: "fold", or "held out" and the other labelled splits.
    """

    job: Job
    tests: Mapping[str, np.ndarray]


def read_memes(store: Store) -> Memes:
    """Read what the protocol needs of a store's memes.

    Raises:
        ValueError: if the training memes lack labels.
    """
    splits, start = {}, 0
    for name, split in store.splits.items():
        splits[name] = np.arange(start, start + len(split))
        start += len(split)
    captions = [caption for s in store.splits.values() for caption in s.captions]
    keys = [normalise_caption(c) or f"\0{i}" for i, c in enumerate(captions)]
    memes = Memes(
        splits,
        np.concatenate([split.labels for split in store.splits.values()]),
        captions,
        np.unique(keys, return_inverse=True)[1],
        np.concatenate([split.hashes for split in store.splits.values()]),
    )
    if set(np.unique(memes.labels[splits["train"]])) != {0, 1}:
        raise ValueError(
            "the comparison needs training memes of both labels, and no -1"
        )
    return memes


def trials(memes: Memes, seeds: Sequence[int]) -> list[Trial]:
    """Return the trainings of all seeds: five folds each, and one on the fixed splits.

    Raises:
        ValueError: if there are too few memes or captions.
    """
    train = memes.splits["train"]
    made = []
    for seed in seeds:
        for number, (rest, fold) in enumerate(_parts(memes, train, FOLDS, seed)):
            own, held_out = _parts(memes, rest, PARTS, 1000 + FOLDS * seed + number)[0]
            made.append(Trial(Job(seed, own, held_out), {"fold": fold}))
        own, held_out = _parts(memes, train, PARTS, 500_000 + seed)[0]
        tests = {"held out": held_out}
        for name, rows in memes.splits.items():
            known = rows[memes.labels[rows] >= 0]
            if name != "train" and len(np.unique(memes.labels[known])) == 2:
                tests[name] = known
        made.append(Trial(Job(seed, own, held_out), tests))
    return made


def _parts(
    memes: Memes, rows: np.ndarray, count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide rows by caption, both labels evenly: (the rest, the part) of each part."""
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    labels, groups = memes.labels[rows], memes.groups[rows]
    return [(rows[a], rows[b]) for a, b in folds.split(rows, labels, groups)]


def unseen(memes: Memes, trial: Trial, rows: np.ndarray) -> np.ndarray:
    """Return which memes have neither caption nor picture of a training meme, bool.

    Args:
        memes: of the store.
        trial: the training.
        rows: of the memes that are tested, `[m]`.
    """
    known = np.concatenate([trial.job.train, trial.job.held_out])
    known = np.setdiff1d(known, rows)
    captions = np.isin(memes.groups[rows], memes.groups[known])
    bits = np.bitwise_count(memes.hashes[rows][:, None] ^ memes.hashes[known][None])
    return ~captions & ~(bits <= SAME_PICTURE).any(axis=1)


def difference(
    memes: Memes,
    trials: Sequence[Trial],
    one: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, float]:
    """Compare two methods in cross-validation, by a bootstrap over captions.

    The figure is the mean over all folds of all seeds of the AUROC on the fold. The
    captions of train are drawn with replacement, the same for both methods, all folds
    and all seeds, so that the interval is for other memes like these.

    Args:
        memes: of the store.
        trials: those with a fold.
        one: scores of the first method on each fold.
        other: those of the second method.
        resamples: draws of captions.

    Returns:
        `mean`, the difference; `low` and `high`, its 95 % interval; `p`, two-sided.
    """
    train = memes.splits["train"]
    rng = np.random.default_rng(0)
    groups, place = np.unique(memes.groups[train], return_inverse=True)
    weights = np.zeros((resamples + 1, memes.labels.size))
    weights[0, train] = 1
    for i in range(1, resamples + 1):
        drawn = np.bincount(
            rng.integers(0, len(groups), len(groups)), minlength=len(groups)
        )
        weights[i, train] = drawn[place]
    found = []
    for trial, a, b in zip(trials, one, other, strict=True):
        rows = trial.tests["fold"]
        labels, own = memes.labels[rows], weights[:, rows]
        found.append(weighted_auroc(a, labels, own) - weighted_auroc(b, labels, own))
    # A draw may leave a small fold without one of the labels.
    total = np.nanmean(found, axis=0)
    drawn = total[1:]
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
    p = min(1.0, 2 * max(tail, 1 / resamples))
    return {"mean": total[0], "low": low, "high": high, "p": p}


def weighted_auroc(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute the AUROC under several weightings of the same examples, `[w]`.

    It is NaN if a class has no weight.

    Args:
        scores: `[n]`.
        labels: 0 or 1, `[n]`.
        weights: at least 0, `[w, n]`.
    """
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sides = [
        np.add.reduceat((weights * (labels == label))[:, order], starts, axis=1)
        for label in (0, 1)
    ]
    negative, positive = sides
    below = np.cumsum(negative, axis=1) - negative
    area = (positive * (below + negative / 2)).sum(axis=1)
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    return np.where(pairs > 0, area / np.where(pairs > 0, pairs, 1), np.nan)


def figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return AUROC, accuracy at 0.5 and Brier score of logits."""
    proba = special.expit(scores)
    return {
        "auroc": metrics.auroc(scores, labels),
        "accuracy": float(np.mean((proba > 0.5) == (labels == 1))),
        "brier": float(np.mean((proba - labels) ** 2)),
    }
