"""Bootstrapped active curricula: scores -> ranks -> tasks -> pools -> updates.

A baseline trained on all data scores each example; the ranked examples are split into
T tasks of equal size, and phase t trains on tasks 0 to t, so that the last phase
trains on everything. All phases together take as many updates as the baseline.

Scores are uncertainties, high = hard (`memejax.curriculum.scores`). Only their order
matters here. Everything runs on the host, in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

ORDERS = ("easy_first", "hard_first", "random")
READINGS = ("updates", "epochs")
# Separates the order of ties from every other use of a run's seed, such as the
# shuffles of its plan.
_TIE_STREAM = 1


def rank(u: ArrayLike, *, order: str, seed: int) -> np.ndarray:
    """Rank of each example in the curriculum, 0 first.

    Ties are broken at random by the seed: broken by index, they would inherit the
    order of the data set.

    Args:
        u: `[n]`, uncertainty, high = hard; may be infinite, not NaN.
        order: "easy_first" (ascending u), "hard_first" (descending u) or "random" (a
            shuffle, which uses only the length of u).
        seed: any non-negative int; the same arguments give the same ranks.

    Returns:
        int32 `[n]`, a permutation of 0..n-1.

    Raises:
        ValueError: if u is not one-dimensional, is empty or holds NaN, or the order is
            unknown.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (5.1).

    >>> print(rank([0.3, 0.1, 0.7], order="easy_first", seed=0))
    [1 0 2]
    """
    if order not in ORDERS:
        raise ValueError(f"got order {order!r}, expected one of {ORDERS}")
    u = np.asarray(u, np.float64)
    if u.ndim != 1 or not len(u):
        raise ValueError(f"got scores of shape {u.shape}, expected [n], n >= 1")
    if order == "random":
        u = np.zeros_like(u)
    if np.isnan(u).any():
        raise ValueError(f"got {np.isnan(u).sum()} scores that are NaN, expected none")
    stream = np.random.SeedSequence(seed, spawn_key=(_TIE_STREAM,))
    tie = np.random.default_rng(stream).permutation(len(u))
    # The last key of lexsort is the primary one.
    examples = np.lexsort((tie, -u if order == "hard_first" else u))
    ranks = np.empty(len(u), np.int32)
    ranks[examples] = np.arange(len(u), dtype=np.int32)
    return ranks


def curriculum_tasks(
    u: ArrayLike,
    n_tasks: int,
    *,
    order: str,
    seed: int,
    labels: ArrayLike | None = None,
) -> np.ndarray:
    """Task of each example: the ranked examples split into T parts of equal size.

    With labels, the examples of each class are ranked and split separately, so that
    each task has the class proportions of the data. The examples left over when T does
    not divide the size of a class go to one task each, in turn over all classes, so
    that tasks stay equal in size.

    Args:
        u: `[n]`, uncertainty, high = hard; as in `rank`.
        n_tasks: T, 1 to n.
        order: "easy_first", "hard_first" or "random", as in `rank`.
        seed: any non-negative int, for the ties.
        labels: the class of each example, int or str `[n]`; classes are ignored if
            None. A class of fewer than T examples is missing from some tasks.

    Returns:
        int32 `[n]`, 0 (trained on from the first phase) to T-1. The sizes of two tasks
        differ by at most 1, and so do their numbers of examples of any one class.

    Raises:
        ValueError: if a shape is wrong, u holds NaN, the order is unknown or T is not
            in 1 to n.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (5.1).

    >>> u = [0.9, 0.1, 0.5, 0.7]
    >>> print(curriculum_tasks(u, 2, order="easy_first", seed=0))
    [1 0 0 1]
    >>> print(curriculum_tasks(u, 2, order="easy_first", seed=0, labels=[0, 1, 1, 0]))
    [1 0 1 0]
    """
    ranks = rank(u, order=order, seed=seed)
    n = len(ranks)
    if not 1 <= n_tasks <= n:
        raise ValueError(f"got {n_tasks} tasks for {n} examples, expected 1 to {n}")
    labels = np.zeros(n, np.int32) if labels is None else np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"got labels of shape {labels.shape}, expected ({n},)")
    sizes = np.unique_counts(labels).counts
    # Class by class, by rank within each.
    examples = np.lexsort((ranks, labels))
    parts, turn = [], 0
    for size in sizes:
        whole, left = divmod(int(size), n_tasks)
        extra = (np.arange(n_tasks) - turn) % n_tasks < left
        parts.append(np.repeat(np.arange(n_tasks, dtype=np.int32), whole + extra))
        turn += left
    tasks = np.empty(n, np.int32)
    tasks[examples] = np.concatenate(parts)
    return tasks


def pools(tasks: ArrayLike) -> list[np.ndarray]:
    """Training pool of each phase: phase t has the examples of tasks 0 to t.

    Args:
        tasks: int `[n]`, each of 0..T-1 at least once.

    Returns:
        T int32 arrays of ascending indices; the last one is 0..n-1.

    Raises:
        ValueError: if tasks is not such an array.

    >>> print(pools([1, 0, 0, 1]))
    [array([1, 2], dtype=int32), array([0, 1, 2, 3], dtype=int32)]
    """
    tasks = np.asarray(tasks)
    if tasks.ndim != 1 or not len(tasks) or not np.issubdtype(tasks.dtype, np.integer):
        raise ValueError(
            f"got tasks of shape {tasks.shape} and dtype {tasks.dtype}, expected "
            "integers [n]"
        )
    names = np.unique(tasks)
    if not np.array_equal(names, np.arange(len(names))):
        raise ValueError(f"got tasks {names}, expected 0 to the last without a gap")
    return [np.flatnonzero(tasks <= t).astype(np.int32) for t in names]


def phase_updates(updates: int, sizes: Sequence[int], *, reading: str) -> list[int]:
    """Number of updates of each phase, which sum to those of the baseline.

    `u_t = U w_t / sum w`, rounded by largest remainder (the earlier phase first if
    remainders are equal). Spending E/T epochs on each of T phases would make only
    (T + 1)/(2T) of the baseline's updates. The thesis compensates by adjusting "the
    number of epochs in each phase" without a formula; two readings:

    * "updates": `w_t = 1`, every phase has the same number of updates; phase t (from 1)
      of equal tasks makes E/t epochs of its pool.
    * "epochs": `w_t = n_t`, every phase has the same number of epochs, 2E/(T + 1) with
      equal tasks.

    Args:
        updates: U, the baseline's updates, at least 0.
        sizes: n_t, examples in the pool of each phase, at least 1 each.
        reading: "updates" or "epochs".

    Returns:
        One number per phase, each within 1 of its share; their sum is exactly
        `updates`.

    Raises:
        ValueError: if there is no phase, a number is too small or the reading is
            unknown.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, chapter 5.

    >>> phase_updates(100_000, [500, 1000], reading="updates")
    [50000, 50000]
    >>> phase_updates(100_000, [500, 1000], reading="epochs")
    [33333, 66667]
    """
    if reading not in READINGS:
        raise ValueError(f"got reading {reading!r}, expected one of {READINGS}")
    if updates < 0:
        raise ValueError(f"got {updates} updates, expected at least 0")
    _check_sizes(sizes)
    # Python integers: no product overflows and no share is rounded.
    weights = [int(size) if reading == "epochs" else 1 for size in sizes]
    shares = [divmod(int(updates) * weight, sum(weights)) for weight in weights]
    result = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda t: -shares[t][1])
    for t in by_remainder[: updates - sum(result)]:
        result[t] += 1
    return result


def expected_visits(
    updates: Sequence[int], sizes: Sequence[int], *, batch: int
) -> np.ndarray:
    """Expected number of visits to an example of each task.

    `visits_s = sum_{t >= s} u_t batch / n_t`, phases t from 0. With equal tasks and
    the updates of E epochs that is `E sum_{t >= s} 1/t` (t, s from 1) with the reading
    "updates" and `2E (T - s + 1)/(T + 1)` with "epochs": task 1 is visited more often
    than in a uniform run, the last task less.

    Args:
        updates: u_t, the updates of each phase, at least 0.
        sizes: n_t, examples in the pool of each phase, at least 1.
        batch: examples per update, at least 1.

    Returns:
        float64 `[T]`, the mean over the examples of a task. One example's visits differ
        from it by less than 1 per phase.

    Raises:
        ValueError: if a number is too small or the lengths differ.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, chapter 5.

    >>> print(expected_visits([50_000, 50_000], [500, 1000], batch=1))
    [150.  50.]
    """
    _check_sizes(sizes)
    if len(updates) != len(sizes):
        raise ValueError(
            f"got {len(updates)} numbers of updates and {len(sizes)} sizes, expected "
            "one of each per phase"
        )
    if min(updates) < 0 or batch < 1:
        raise ValueError(
            f"got updates {list(updates)} and batch {batch}, expected at least 0 and 1"
        )
    epochs = np.asarray(updates, np.float64) * batch / np.asarray(sizes, np.float64)
    return np.cumsum(epochs[::-1])[::-1]


def _check_sizes(sizes: Sequence[int]) -> None:
    if not len(sizes) or min(sizes) < 1:
        raise ValueError(
            f"got pools of {list(sizes)} examples, expected at least one, none empty"
        )
