"""Dynamic sampled active curricula: the next updates drawn by the model's own scores.

A run is a warm-up of uniform draws followed by segments; before each segment the model
scores all training examples, and the segment's examples are drawn with the
probabilities those scores give. A run with uniform draws throughout is the control: a
curriculum of ratio 1 equals it draw for draw.

Scoring and training are left to the caller; here a segment is a function of the run's
key, the segment's number and the scores.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from memejax.curriculum.diagnostics import (
    achieved_ratio,
    effective_sample_size,
    unique_fraction,
)
from memejax.curriculum.draws import Method, draw_plan, importance_weights
from memejax.curriculum.sampling import sampling_probs

# Names of `ratio_schedule`.
RATIO_SCHEDULES = ("constant", "linear", "geometric")
# Folded into the run's key before the segment's number. Far from 0, 1, 2, ..., which
# training steps fold into the same key.
_SEGMENT_SALT = 1_000_101


@dataclasses.dataclass(frozen=True)
class Draw:
    """Examples drawn for a segment, with their weights and probabilities.

    Attributes:
        index: int32 `[steps, batch]`, the drawn examples.
        weight: float32 `[steps, batch]`, importance weights, 1 without correction.
        probs: float32 `[n]`, the probability of each example in each draw.
        diagnostics: `ess_share`, `(sum p)^2 / (n sum p^2)` in (0, 1], 1 if uniform;
            `achieved_ratio`, `max p / min p`, at least 1; `unique_fraction`, the share
            of the n examples that was drawn at all.
    """

    index: np.ndarray
    weight: np.ndarray
    probs: np.ndarray
    diagnostics: dict[str, float]


def ratio_schedule(
    kind: str, *, start: float, end: float, steps: int
) -> Callable[[int], float]:
    """Schedule of the maximum ratio R over a run.

    With `f = min(i / steps, 1)`: "linear" is `start + f (end - start)`, "geometric"
    is `start (end / start)^f`, linear in ln R; "constant" is start.

    Args:
        kind: "constant", "linear" or "geometric".
        start: R at step 0, at least 1; finite unless constant.
        end: R from step `steps` on, likewise; equal to start if constant.
        steps: number of steps from start to end, at least 1, in the caller's unit
            (updates or segments).

    Returns:
        A function from the step, at least 0, to R.

    Raises:
        ValueError: if the kind is unknown or a number is out of range; the function
            too, for a negative step.

    >>> ratio = ratio_schedule("geometric", start=100.0, end=1.0, steps=10)
    >>> [round(ratio(step), 6) for step in (0, 5, 10, 15)]
    [100.0, 10.0, 1.0, 1.0]
    """
    if kind not in RATIO_SCHEDULES:
        raise ValueError(f"got kind {kind!r}, expected one of {RATIO_SCHEDULES}")
    if not (start >= 1 and end >= 1):
        raise ValueError(f"got ratios {start} to {end}, expected at least 1")
    if kind == "constant" and start != end:
        raise ValueError(f"got a constant ratio from {start} to {end}")
    if kind != "constant" and math.isinf(start + end):
        raise ValueError(f"got ratios {start} to {end}, expected finite ones")
    if steps < 1:
        raise ValueError(f"got {steps} steps, expected at least 1")

    def ratio(step: int) -> float:
        if step < 0:
            raise ValueError(f"got step {step}, expected at least 0")
        # Both ends are exact, not rounded by the formula.
        if step >= steps:
            return float(end)
        if step == 0 or start == end:
            return float(start)
        done = step / steps
        if kind == "linear":
            return start + done * (end - start)
        return start * (end / start) ** done

    return ratio


def refresh_starts(updates: int, *, warm_up: int, every: int) -> tuple[int, ...]:
    """Updates before which examples are drawn anew, one per segment.

    `0, warm_up, warm_up + every, warm_up + 2 every, ...`, all below `updates`.

    Args:
        updates: number of updates in the run, at least 1.
        warm_up: updates with uniform draws at the start, at least 0. If 0, there is no
            such segment, and the first one is drawn by the scores of the initial model.
        every: updates from one refresh to the next, at least 1.

    Returns:
        Ascending, the first one 0.

    Raises:
        ValueError: if a number is too small.

    >>> refresh_starts(10, warm_up=3, every=4)
    (0, 3, 7)
    """
    if updates < 1 or warm_up < 0 or every < 1:
        raise ValueError(
            f"got {updates} updates, warm_up {warm_up} and every {every}, expected "
            "at least 1, 0 and 1"
        )
    refreshes = range(warm_up, updates, every)
    return (0, *refreshes) if warm_up else tuple(refreshes)


def segments(updates: int, *, warm_up: int, every: int) -> tuple[tuple[int, int], ...]:
    """Segments of a run as (start, stop) pairs that cover [0, updates) exactly.

    Args:
        updates: number of updates in the run, as in `refresh_starts`.
        warm_up: updates with uniform draws at the start.
        every: updates from one refresh to the next.

    Returns:
        One pair per segment, in order; the last one may be shorter than `every`.

    Raises:
        ValueError: if a number is too small.

    >>> segments(10, warm_up=3, every=4)
    ((0, 3), (3, 7), (7, 10))
    """
    starts = refresh_starts(updates, warm_up=warm_up, every=every)
    return tuple(zip(starts, (*starts[1:], updates), strict=True))


def redraw(
    key: jax.Array,
    u: ArrayLike,
    *,
    segment: int,
    steps: int,
    batch: int,
    favour: Literal["easy", "hard"],
    max_ratio: float,
    min_temperature: float,
    winsorize: float | None = None,
    increment: float = 0.0,
    correction: float = 0.0,
    method: Method = "inverse_cdf",
) -> Draw:
    """Draw a segment's examples by the scores of the current model.

    With ratio 1 or equal scores the index and probabilities are bit for bit those of
    `uniform_draw` with the same key, segment, sizes and method.

    Args:
        key: the run's typed PRNG key, the same for all segments.
        u: `[n]`, finite uncertainty, high = hard.
        segment: the number of the segment in the run, at least 0.
        steps: updates in the segment, at least 1.
        batch: examples per update, at least 1.
        favour: "easy" or "hard", as in `sampling_probs`.
        max_ratio: R, the largest probability over the smallest, as in
            `sampling_probs`.
        min_temperature: as in `sampling_probs`; 1 only caps the ratio, 0 reaches it.
        winsorize: as in `sampling_probs`.
        increment: as in `sampling_probs`.
        correction: k of the importance weights `(1 / (n p))^k`; 0 leaves all at 1.
        method: how to draw, as in `draw_plan`; "gumbel_top_k" draws without
            replacement.

    Returns:
        The draw, in host memory.

    Raises:
        ValueError: if a number is too small, or as in `sampling_probs`, `draw_plan` and
            `importance_weights`.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.8) and chapter 6.

    >>> draw = redraw(
    ...     jax.random.key(0), jnp.array([0.0, 1.0]), segment=1, steps=500, batch=2,
    ...     favour="hard", max_ratio=3.0, min_temperature=0.0,
    ... )
    >>> print(draw.index.shape, draw.probs)
    (500, 2) [0.25 0.75]
    """
    probs = sampling_probs(
        jnp.asarray(u),
        favour=favour,
        max_ratio=max_ratio,
        min_temperature=min_temperature,
        winsorize=winsorize,
        increment=increment,
    )
    index = _draw_index(key, probs, segment, steps=steps, batch=batch, method=method)
    weight = importance_weights(probs, index, power=correction)
    return _result(index, weight, probs)


def uniform_draw(
    key: jax.Array,
    n: int,
    *,
    segment: int,
    steps: int,
    batch: int,
    method: Method = "inverse_cdf",
) -> Draw:
    """Draw a segment's examples uniformly.

    Used for the warm-up of a dynamic curriculum, and each segment of its control.

    Args:
        key: the run's typed PRNG key, the same for all segments.
        n: examples in the source, at least 1.
        segment: the number of the segment in the run, at least 0.
        steps: updates in the segment, at least 1.
        batch: examples per update, at least 1.
        method: how to draw, as in `draw_plan`: with replacement, except for
            "gumbel_top_k".

    Returns:
        The draw, in host memory, with all weights 1.

    Raises:
        ValueError: if a number is too small, or as in `draw_plan`.

    >>> draw = uniform_draw(jax.random.key(0), 4, segment=0, steps=3, batch=2)
    >>> print(draw.index.shape, draw.probs)
    (3, 2) [0.25 0.25 0.25 0.25]
    """
    if n < 1:
        raise ValueError(f"got {n} examples, expected at least 1")
    probs = jnp.full((n,), 1 / n, jnp.float32)
    index = _draw_index(key, probs, segment, steps=steps, batch=batch, method=method)
    return _result(index, np.ones(index.shape, np.float32), probs)


def _draw_index(
    key: jax.Array,
    probs: jax.Array,
    segment: int,
    *,
    steps: int,
    batch: int,
    method: Method,
) -> np.ndarray:
    """Draw the indices of a segment from its own key."""
    if segment < 0:
        raise ValueError(f"got segment {segment}, expected at least 0")
    key = jax.random.fold_in(jax.random.fold_in(key, _SEGMENT_SALT), segment)
    return draw_plan(key, probs, steps=steps, batch=batch, method=method)


def _result(index: np.ndarray, weight: ArrayLike, probs: jax.Array) -> Draw:
    """Return the draw on the host, with its diagnostics."""
    everything = np.ones(len(probs), bool)
    return Draw(
        index=index,
        weight=np.asarray(weight, np.float32),
        probs=np.asarray(probs, np.float32),
        diagnostics={
            "ess_share": float(effective_sample_size(probs, share=True)),
            # Infinite if a probability underflowed to 0, which is not left out.
            "achieved_ratio": float(achieved_ratio(probs, where=everything)),
            "unique_fraction": unique_fraction(index, len(probs)),
        },
    )
