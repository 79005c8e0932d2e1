"""Plans: the examples of each batch of a run, in order.

Everything that decides the order (a shuffle, a curriculum) makes a `Plan`, and
everything that feeds a training step consumes one, so the two are independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Plan:
    """The order of a run: three arrays of one shape.

    The shape is [steps, batch], or [steps, seeds, batch] if several seeds train at
    once, each in its own order.

    Attributes:
        index: int32, index of the example in its source.
        weight: float32, 1 for an ordinary example, 0 for the padding of a last
            batch, or an importance correction.
        draw: int32, number of earlier draws of this example in the run; the
            augmentation of an example derives from (seed, index, draw).
    """

    index: np.ndarray
    weight: np.ndarray
    draw: np.ndarray

    def __post_init__(self):
        shapes = {self.index.shape, self.weight.shape, self.draw.shape}
        if len(shapes) != 1 or self.index.ndim not in (2, 3):
            raise ValueError(
                "a plan holds three arrays of one shape, [steps, batch] or "
                f"[steps, seeds, batch], got index {self.index.shape}, "
                f"weight {self.weight.shape}, draw {self.draw.shape}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def batch(self) -> int:
        """Examples per step (of one seed)."""
        return self.index.shape[-1]

    def row(self, step: int) -> dict[str, np.ndarray]:
        """Return index, weight and draw at `step`, each [batch] or [seeds, batch]."""
        return {
            "index": self.index[step],
            "weight": self.weight[step],
            "draw": self.draw[step],
        }

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return the plan as a dict of arrays, as stored in a checkpoint."""
        return {"index": self.index, "weight": self.weight, "draw": self.draw}


def shuffled(n: int, *, batch: int, steps: int, seed: int) -> Plan:
    """Make a plan of epochs without replacement, each in its own order.

    A batch may span two epochs, so every example is seen floor or ceil of
    `steps * batch / n` times and no short batch exists.

    Args:
        n: number of examples, at least 1.
        batch: examples per step.
        steps: number of steps.
        seed: any non-negative int; the same arguments give the same plan.

    Returns:
        A plan whose `draw` is the epoch and whose weights are 1.

    Raises:
        ValueError: if a size is not positive.
    """
    _check_positive(n=n, batch=batch, steps=steps)
    return phased([np.arange(n)], batch=batch, steps=[steps], seed=seed)


def phased(
    pools: Sequence[np.ndarray], *, batch: int, steps: Sequence[int], seed: int
) -> Plan:
    """Make a plan of phases, each of shuffled passes over its own pool.

    Within a phase a batch may span two passes, so that phase p sees each of its
    examples floor or ceil of `steps[p] * batch / len(pools[p])` times. No batch spans
    two phases: the last pass of a phase stops at its last step, and the next phase
    begins a new pass over its own pool. The order of pass k of the run, counted through
    all phases, derives from (seed, k).

    Args:
        pools: int [examples of the phase] each, indices into the source, at least 0,
            distinct within a pool.
        batch: examples per step.
        steps: steps of each phase, at least 0, not all 0.
        seed: any non-negative int; the same arguments give the same plan.

    Returns:
        A plan of `sum(steps)` steps with weights 1; `shuffled` is the plan of the one
        pool `arange(n)`.

    Raises:
        ValueError: if a size is wrong, an index is negative or occurs twice in a pool,
            or an empty pool has steps.
    """
    if len(pools) != len(steps):
        raise ValueError(
            f"got {len(pools)} pools and {len(steps)} numbers of steps, "
            "expected one number per pool"
        )
    if any(count < 0 for count in steps):
        raise ValueError(f"steps of a phase must be at least 0, got {list(steps)}")
    _check_positive(batch=batch, steps=sum(steps))
    pools = [_checked_pool(pool, number) for number, pool in enumerate(pools)]
    seen = np.zeros(1 + max(pool.max(initial=0) for pool in pools), np.int32)
    index = np.empty(sum(steps) * batch, np.int32)
    draw = np.empty_like(index)
    filled = passes = 0
    for number, (pool, count) in enumerate(zip(pools, steps, strict=True)):
        if count and not len(pool):
            raise ValueError(f"pool {number} is empty and has {count} steps")
        stop = filled + count * batch
        while filled < stop:
            order = np.random.default_rng((seed, passes)).permutation(len(pool))
            places = pool[order[: stop - filled]]
            index[filled : filled + len(places)] = places
            draw[filled : filled + len(places)] = seen[places]
            # The places of a pass are distinct, so this counts each.
            seen[places] += 1
            filled += len(places)
            passes += 1
    shape = (sum(steps), batch)
    return Plan(
        index=index.reshape(shape),
        weight=np.ones(shape, np.float32),
        draw=draw.reshape(shape),
    )


def from_index(
    index: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    before: ArrayLike | None = None,
) -> Plan:
    """Make a plan of given examples, drawn with or without replacement.

    Args:
        index: int [steps, batch], indices into the source, at least 0.
        weight: float [steps, batch]; 1 everywhere if None.
        before: int [n], number of draws of each example before this plan; all 0 if
            None.

    Returns:
        A plan whose `draw` counts on from `before`, in the order of the run.

    Raises:
        ValueError: if a shape or dtype is wrong or an index is outside the source.
    """
    index = np.asarray(index)
    if index.ndim != 2 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(
            f"got an index of shape {index.shape} and dtype {index.dtype}, expected "
            "integers [steps, batch]"
        )
    _check_places(index, None if before is None else np.size(before))
    flat = index.reshape(-1).astype(np.int32)
    draw = _previous_draws(flat)
    if before is not None:
        draw += _checked_counts(before, (np.size(before),))[flat]
    if weight is None:
        weight = np.ones(index.shape, np.float32)
    return Plan(
        index=flat.reshape(index.shape),
        weight=np.asarray(weight, np.float32),
        draw=draw.reshape(index.shape),
    )


def counts(
    plan: Plan, n: int, *, before: ArrayLike | None = None, stop: int | None = None
) -> np.ndarray:
    """Count the draws of each example at the end of a plan.

    Every example in the plan counts as drawn, whatever its weight.

    Args:
        plan: [steps, batch], or [steps, seeds, batch].
        n: number of examples in the source.
        before: int [n], or [seeds, n], the counts before the plan; all 0 if None.
        stop: count only the steps before this one; all if None.

    Returns:
        int32 [n], or [seeds, n], the argument `before` of `from_index`.

    Raises:
        ValueError: if a shape is wrong or an index is outside the source.
    """
    _check_positive(n=n)
    if stop is not None and not 0 <= stop <= len(plan):
        raise ValueError(f"got stop {stop}, expected 0 to the {len(plan)} steps")
    index = plan.index[:stop]
    _check_places(index, n)
    seeds = index.shape[1:-1]
    rows = seeds[0] if seeds else 1
    # Each seed counts in its own range.
    flat = index.reshape(-1, rows, plan.batch) + n * np.arange(rows)[:, None]
    drawn = np.bincount(flat.reshape(-1), minlength=rows * n).astype(np.int32)
    drawn = drawn.reshape(*seeds, n)
    return drawn if before is None else drawn + _checked_counts(before, drawn.shape)


def stacked(plans: Sequence[Plan]) -> Plan:
    """Stack the plans of several seeds into one.

    Args:
        plans: at least 1, all of one shape [steps, batch].

    Returns:
        A plan [steps, seeds, batch].

    Raises:
        ValueError: if there is no plan, or their shapes differ or are not
            [steps, batch].
    """
    shapes = [plan.index.shape for plan in plans]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            f"got plans of shapes {shapes}, expected one shape [steps, batch]"
        )
    return Plan(
        index=np.stack([plan.index for plan in plans], axis=1),
        weight=np.stack([plan.weight for plan in plans], axis=1),
        draw=np.stack([plan.draw for plan in plans], axis=1),
    )


def spliced(plan: Plan, part: Plan, *, start: int) -> Plan:
    """Return a copy of a plan with steps from `start` on replaced by another plan.

    The steps after the part do not change, including their `draw`, which counts the
    replaced draws.

    Args:
        plan: [steps, batch], or [steps, seeds, batch].
        part: same seeds and batch, at most `len(plan) - start` steps.
        start: the first step to replace, at least 0.

    Returns:
        A new plan of `len(plan)` steps; neither argument changes.

    Raises:
        ValueError: if the shapes do not match or the part does not fit.
    """
    if part.index.shape[1:] != plan.index.shape[1:]:
        raise ValueError(
            f"got a part of shape {part.index.shape} for a plan of shape "
            f"{plan.index.shape}, expected them to differ in steps only"
        )
    stop = start + len(part)
    if start < 0 or stop > len(plan):
        raise ValueError(
            f"got steps [{start}, {stop}) for a plan of {len(plan)} steps, expected "
            "them inside it"
        )
    new = {name: array.copy() for name, array in plan.as_arrays().items()}
    for name, array in part.as_arrays().items():
        new[name][start:stop] = array
    return Plan(**new)


def sequential(n: int, *, batch: int) -> Plan:
    """Make a plan of one pass in order, its last batch padded with weight 0.

    Args:
        n: number of examples, at least 1.
        batch: examples per step.

    Returns:
        A plan of ceil(n / batch) steps. Padding repeats the last example.

    Raises:
        ValueError: if a size is not positive.
    """
    _check_positive(n=n, batch=batch)
    steps = -(-n // batch)
    place = np.arange(steps * batch)
    return Plan(
        index=np.minimum(place, n - 1).astype(np.int32).reshape(steps, batch),
        weight=(place < n).astype(np.float32).reshape(steps, batch),
        draw=np.zeros((steps, batch), np.int32),
    )


def _previous_draws(flat: np.ndarray) -> np.ndarray:
    """Count the earlier elements equal to each element of an int array [k]."""
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    place = np.arange(len(flat), dtype=np.int32)
    new = np.ones(len(flat), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    # Start of the run of equal elements around each place.
    first = np.maximum.accumulate(np.where(new, place, 0))
    previous = np.empty(len(flat), np.int32)
    previous[order] = place - first
    return previous


def _checked_pool(pool: np.ndarray, number: int) -> np.ndarray:
    """Return the pool of a phase as int32, checked."""
    pool = np.asarray(pool)
    if not pool.size:
        return np.zeros(0, np.int32)
    if pool.ndim != 1 or not np.issubdtype(pool.dtype, np.integer):
        raise ValueError(
            f"got pool {number} of shape {pool.shape} and dtype {pool.dtype}, "
            "expected integers [examples]"
        )
    _check_places(pool, None)
    if len(np.unique(pool)) != len(pool):
        raise ValueError(f"pool {number} holds a place twice")
    return pool.astype(np.int32)


def _checked_counts(before: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return earlier counts as int32, checked."""
    before = np.asarray(before)
    if before.shape != shape or not np.issubdtype(before.dtype, np.integer):
        raise ValueError(
            f"got counts before of shape {before.shape} and dtype {before.dtype}, "
            f"expected integers {shape}"
        )
    return before.astype(np.int32)


def _check_places(index: np.ndarray, n: int | None) -> None:
    """Raise ValueError unless all places are in a source of n, or of any size."""
    limit = 2**31 if n is None else n  # a place is an int32
    low, high = index.min(initial=0), index.max(initial=0)
    if low < 0 or high >= limit:
        raise ValueError(f"got places {low} to {high}, expected 0 to below {limit}")


def _check_positive(**sizes: int) -> None:
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise ValueError(f"sizes must be at least 1, got {wrong}")
