"""Outcome of each arm of a study beside the reference: figures, not text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from memejax import metrics
from memejax.metrics import significance
from memejax.report.study.arms import GROUPS, Arm, Study

ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Outcome:
    """An arm, compared with the reference.

    Attributes:
        arm: the arm.
        final: mean and standard deviation over seeds (n - 1, NaN for one seed) of the
            test error at the last update; None before that.
        selected: the same at the update with the lowest validation error of each seed,
            the first of equal ones.
        reached: the first evaluated update at which the mean curve of the test error is
            no higher than the reference's at its last update; None if it never is.
        comparison: `significance.paired_comparison` of the final test errors with the
            reference's, seed by seed; None without one.
        p_adjusted: Holm's over the primary family; None outside of it.
        verdict: `significance.verdict`; None outside of the primary family, and for
            arms that cannot be judged.
        why_not: the reason for a missing verdict, otherwise "".
    """

    arm: Arm
    final: tuple[float, float] | None = None
    selected: tuple[float, float] | None = None
    reached: int | None = None
    comparison: dict[str, Any] | None = None
    p_adjusted: float | None = None
    verdict: str | None = None
    why_not: str = ""


def outcomes(study: Study) -> dict[str, Outcome]:
    """Return the outcome of each arm by its name, in the order of groups and arms.

    A verdict is given to primary arms with as many updates as the reference. Holm's
    correction counts every primary arm: one that cannot be judged, because it is not
    finished or has other updates, takes part with p = 1, so that leaving an arm
    unfinished makes no other look better.
    """
    places = list(GROUPS)
    order = sorted(study.arms, key=lambda arm: places.index(arm.group))
    found = {arm.name: _alone(study, arm) for arm in order}
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    own = [
        outcome.comparison["p_value"]
        if outcome.comparison and not outcome.why_not
        else 1.0
        for outcome in family
    ]
    for outcome, p in zip(family, significance.holm(own), strict=True):
        name = outcome.arm.name
        if outcome.comparison and not outcome.why_not:
            came = significance.verdict(
                outcome.comparison, p_adjusted=float(p), band=study.band, alpha=ALPHA
            )
            found[name] = dataclasses.replace(
                outcome, p_adjusted=float(p), verdict=came
            )
    return found


def words(study: Study, outcome: Outcome) -> str:
    """Return a primary arm's verdict as a sentence, or the reason that it has none."""
    if outcome.comparison is None or outcome.p_adjusted is None:
        return f"no verdict: {outcome.why_not}"
    return significance.in_words(
        outcome.comparison,
        p_adjusted=outcome.p_adjusted,
        band=study.band,
        alpha=ALPHA,
        reference=study.compared_with.title,
    )


def budget(study: Study, arm: Arm) -> str:
    """Describe updates other than the reference's; "" for as many."""
    share = arm.updates / study.compared_with.updates
    return "" if share == 1 else f"{share:.3g} x the updates"


def interval(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lower and upper end of its 95 % t interval over seeds.

    Args:
        errors: `[seeds, ...]`.

    Returns:
        Three arrays `[...]`.
    """
    n, mean = len(errors), errors.mean(axis=0)
    if n < 2:
        return mean, mean, mean
    reach = stats.t.ppf(0.975, n - 1) * errors.std(axis=0, ddof=1) / math.sqrt(n)
    return mean, mean - reach, mean + reach


def differences(arm: Arm, reference: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return differences between the curves of an arm and the reference by seed.

    Returns:
        Updates `[c]` at which both were evaluated, and the arm's test error less the
        reference's `[seeds, c]`, of the seeds that both have.
    """
    common, ours, theirs = np.intersect1d(
        np.asarray(arm.steps), np.asarray(reference.steps), return_indices=True
    )
    n = min(arm.seeds, reference.seeds)
    test = np.asarray(arm.test_error, float)[:n, ours]
    return common, test - np.asarray(reference.test_error, float)[:n, theirs]


def least_adjusted(found: Mapping[str, Outcome]) -> float | None:
    """Return the smallest p that an arm of the family can have after the correction.

    A sign-flip p of n seeds is at least 2^(1 - n), and Holm's correction makes the
    least of k such values k times as large. None if nothing was compared.
    """
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    seeds = [outcome.comparison["n"] for outcome in family if outcome.comparison]
    return min(len(family) * 2.0 ** (1 - max(seeds)), 1.0) if seeds else None


def _alone(study: Study, arm: Arm) -> Outcome:
    """Outcome apart from what depends on the other arms of its family."""
    reference = study.compared_with
    if not arm.finished:
        return Outcome(arm, why_not="not finished")
    steps, test = np.asarray(arm.steps), np.asarray(arm.test_error, float)
    best = np.asarray(arm.validation_error, float).argmin(axis=1)
    final = metrics.mean_std(test[:, -1])
    selected = metrics.mean_std(test[np.arange(len(test)), best])
    if not reference.finished:
        return Outcome(arm, final, selected, why_not="the reference is not finished")
    goal = np.asarray(reference.test_error, float)[:, -1]
    # Means of the same numbers may differ by rounding.
    there = np.flatnonzero(test.mean(axis=0) <= goal.mean() + 1e-12)
    reached = int(steps[there[0]]) if len(there) else None
    if arm.name == study.reference:
        return Outcome(arm, final, selected, reached)
    # Arms with fewer seeds have the first ones.
    n = min(arm.seeds, reference.seeds)
    if n < 2:
        return Outcome(arm, final, selected, reached, why_not="one seed")
    comparison = significance.paired_comparison(test[:n, -1], goal[:n])
    return Outcome(
        arm, final, selected, reached, comparison, why_not=budget(study, arm)
    )
