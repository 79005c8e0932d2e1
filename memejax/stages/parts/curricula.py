"""Curricula: from the section `curriculum` to plans.

A plan indexes rows of a source. Every function here handles one seed;
`plans.stacked` stacks the plans of several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax.curriculum import dynamic, tasks
from memejax.data import plans
from memejax.stages.parts.choices import choose

_SCORED = ("score", "favour", "passes")
_DRAWN = ("warmup", "refresh", "draws")
# Step of a temperature that is raised from `min_temperature`.
INCREMENT = 0.01
# Most examples for draws="categorical": noise for each of them and each draw.
MOST_CATEGORICAL = 100_000
# Kind -> leaves of the section that it reads.
KINDS: dict[str, tuple[str, ...]] = {
    "uniform": (),
    "replacement": _DRAWN,
    "switch": ("switch",),
    "bac": (*_SCORED, "tasks", "reading", "balanced"),
    "dsac": (
        *(*_SCORED, *_DRAWN, "ratio", "ratio_schedule"),
        *("min_temperature", "winsorize", "correction"),
    ),
}
# Examples that a curriculum favours -> the order of bac's tasks.
FAVOURS = {"easy": "easy_first", "hard": "hard_first", "random": "random"}
# Index of a seed's PRNG key for drawing.
_DRAWS = 3


@dataclasses.dataclass(frozen=True)
class Source:
    """Training examples that one seed draws from.

    Attributes:
        rows: int [m], rows of the source to train on.
        labels: int [m], their classes.
        easy: int [e], rows that "switch" starts with.
    """

    rows: np.ndarray
    labels: np.ndarray
    easy: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))


def first_plan(
    c: ConfigDict,
    source: Source,
    *,
    batch: int,
    steps: int,
    seed: int,
    uncertainty: np.ndarray | None = None,
) -> plans.Plan:
    """Make the plan of a whole run, as far as it is known before the first update.

    For "dsac" that is the warm-up; the rest has index and weight 0 until it is drawn.

    Args:
        c: the section `curriculum`.
        source: examples to draw from.
        batch: examples per update.
        steps: updates.
        seed: the run's seed.
        uncertainty: float [m], the baseline's, for "bac" to rank by.

    Raises:
        ValueError: for an unknown kind, or a number out of range.
    """
    check(c)
    rows, n = source.rows, len(source.rows)
    size = dict(batch=batch, seed=2 * seed + 1)
    match c.kind:
        case "uniform":
            return plans.phased([rows], steps=[steps], **size)
        case "switch":
            if not len(source.easy):
                raise ValueError(
                    "curriculum.kind='switch': the data mark no easy examples"
                )
            if not 0 <= c.switch <= steps:
                raise ValueError(f"curriculum.switch={c.switch}: expected 0 to {steps}")
            pools = [source.easy, rows]
            return plans.phased(pools, steps=[c.switch, steps - c.switch], **size)
        case "bac":
            if not needs_baseline(c):
                uncertainty = np.zeros(n)
            if uncertainty is None:
                raise ValueError("bac ranks by scores of a baseline, got none")
            task = tasks.curriculum_tasks(
                uncertainty,
                c.tasks,
                order=choose(FAVOURS, c.favour, "curriculum.favour"),
                seed=seed,
                labels=source.labels if c.balanced else None,
            )
            pools = [rows[pool] for pool in tasks.pools(task)]
            updates = tasks.phase_updates(
                steps, [len(pool) for pool in pools], reading=c.reading
            )
            return plans.phased(pools, steps=updates, **size)
        # "replacement" and "dsac".
        case _:
            if c.draws == "categorical" and n > MOST_CATEGORICAL:
                raise ValueError(
                    "curriculum.draws='categorical' computes a noise for each draw and "
                    f"each of {n:,} examples: above {MOST_CATEGORICAL:,} choose "
                    "'inverse_cdf', which has the same distribution"
                )
            plan = _undrawn(steps, batch)
            parts = dynamic.segments(steps, warm_up=c.warmup, every=c.refresh)
            if c.kind == "dsac":
                parts = parts[: 1 if c.warmup else 0]
            for segment, (start, stop) in enumerate(parts):
                draw = dynamic.uniform_draw(
                    _key(seed),
                    n,
                    segment=segment,
                    steps=stop - start,
                    batch=batch,
                    method=c.draws,
                )
                plan = _spliced(plan, source, draw, start)
            return plan


def check(c: ConfigDict) -> None:
    """Raise ValueError unless a section has all leaves that its kind reads.

    Args:
        c: the section `curriculum`.
    """
    missing = [
        leaf for leaf in choose(KINDS, c.kind, "curriculum.kind") if leaf not in c
    ]
    if missing:
        raise ValueError(
            f"curriculum.kind={c.kind!r} needs curriculum.{', '.join(missing)}: choose "
            f"it after the colon, --config=FILE.py:PRESET,curriculum={c.kind}"
        )


def needs_baseline(c: ConfigDict) -> bool:
    """Whether the first plan needs a baseline's scores; a random order does not."""
    check(c)
    return c.kind == "bac" and c.favour != "random"


def refresh_steps(c: ConfigDict, *, steps: int) -> tuple[int, ...]:
    """Return the updates before which the plan is redrawn; only "dsac" has any."""
    if c.kind != "dsac":
        return ()
    if c.favour not in ("easy", "hard"):
        raise ValueError(f"curriculum.favour={c.favour!r}: dsac takes easy or hard")
    _ratio(c, steps)
    starts = dynamic.refresh_starts(steps, warm_up=c.warmup, every=c.refresh)
    return starts[1:] if c.warmup else starts


def redrawn(
    c: ConfigDict,
    plan: plans.Plan,
    source: Source,
    *,
    uncertainty: np.ndarray,
    step: int,
    seed: int,
) -> tuple[plans.Plan, dynamic.Draw]:
    """Redraw the segment that starts at `step` by current scores."""
    steps = len(plan)
    parts = dynamic.segments(steps, warm_up=c.warmup, every=c.refresh)
    segment = [start for start, _ in parts].index(step)
    start, stop = parts[segment]
    draw = dynamic.redraw(
        _key(seed),
        uncertainty,
        segment=segment,
        steps=stop - start,
        batch=plan.batch,
        favour=c.favour,
        max_ratio=_ratio(c, steps)(step),
        min_temperature=c.min_temperature,
        winsorize=c.winsorize or None,
        # The thesis raises the temperature in steps, whose size it does not print.
        increment=INCREMENT if c.min_temperature else 0.0,
        correction=c.correction,
        method=c.draws,
    )
    return _spliced(plan, source, draw, start), draw


def shares(draw: dynamic.Draw, labels: np.ndarray) -> dict[str, float]:
    """Return a draw's figures for the log: diagnostics, and each class's share of p."""
    by_class = np.bincount(labels, weights=draw.probs)
    return {
        **draw.diagnostics,
        "class_share_min": float(by_class.min()),
        "class_share_max": float(by_class.max()),
    }


def mean_figures(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each figure over seeds."""
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def _ratio(c: ConfigDict, steps: int):
    end = c.ratio if c.ratio_schedule == "constant" else 1.0
    return dynamic.ratio_schedule(c.ratio_schedule, start=c.ratio, end=end, steps=steps)


def _key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), _DRAWS)


def _undrawn(steps: int, batch: int) -> plans.Plan:
    return plans.Plan(
        index=np.zeros((steps, batch), np.int32),
        weight=np.zeros((steps, batch), np.float32),
        draw=np.zeros((steps, batch), np.int32),
    )


def _spliced(
    plan: plans.Plan, source: Source, draw: dynamic.Draw, start: int
) -> plans.Plan:
    """Insert a draw into the plan, as rows of the source."""
    rows = np.asarray(source.rows, np.int32)
    before = plans.counts(plan, int(rows.max()) + 1, stop=start)
    part = plans.from_index(rows[draw.index], weight=draw.weight, before=before)
    return plans.spliced(plan, part, start=start)
