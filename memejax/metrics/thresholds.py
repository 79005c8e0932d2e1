"""Thresholds that keep a rule, with a stated probability, on examples like these.

A rule is "precision>=0.9", "recall>=0.8", "fpr<=0.05", "cost=5:1" (of a missed positive
and of a false alarm) or "accuracy". An example is positive if its probability is above
the threshold. The first three are promises: `certify` finds the threshold by Learn then
Test, or refuses. For the last two there is nothing to promise; it takes the best.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from memejax.metrics.reports import best_threshold, check_scores

# Errors that the first threshold of a sequence allows for, if there are examples
# enough: at none, an early error among a few flagged would end it.
FIRST_ERRORS = 3
_NUMBER = r"(\d+\.?\d*|\.\d+)"
_BOUND = re.compile(rf"(precision|recall) *>= *{_NUMBER}|(fpr) *<= *{_NUMBER}")
_COST = re.compile(rf"cost *= *{_NUMBER} *: *{_NUMBER}")
FORMS = "precision>=P, recall>=R, fpr<=F, cost=FN:FP or accuracy"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Condition that a threshold keeps.

    Attributes:
        kind: "precision", "recall", "fpr", "cost" or "accuracy".
        bound: of the first three, in (0, 1); 0 of the others.
        costs: of a missed positive and of a false alarm, for "cost".
    """

    kind: str
    bound: float = 0.0
    costs: tuple[float, float] = (1.0, 1.0)

    @property
    def promises(self) -> bool:
        """Whether the rule is a bound that `certify` promises to keep."""
        return self.kind in ("precision", "recall", "fpr")

    def __str__(self) -> str:
        if self.kind == "cost":
            return f"cost={self.costs[0]:g}:{self.costs[1]:g}"
        if not self.promises:
            return self.kind
        return f"{self.kind}{'<=' if self.kind == 'fpr' else '>='}{self.bound:g}"


@dataclasses.dataclass(frozen=True)
class Certified:
    """A threshold and the evidence for it.

    Attributes:
        threshold: positive means `proba > threshold`.
        n: examples that the rule is counted on: those flagged for precision, the
            positives for recall, the negatives for the false positive rate, all for
            the other rules.
        right: of these, how many are as the rule wants them.
        p: of the hypothesis that the rule is broken; None without a promise.
    """

    threshold: float
    n: int
    right: int
    p: float | None


class CannotCertifyError(ValueError):
    """No threshold keeps the rule with the stated probability."""


def parse_rule(text: str) -> Rule:
    """Return the rule that a text stands for.

    Raises:
        ValueError: if it is none of the five forms, or a number is out of range.
    """
    given = text.strip().lower()
    if given == "accuracy":
        return Rule("accuracy")
    found = _BOUND.fullmatch(given)
    if found:
        kind, bound = found.group(1) or found.group(3), found.group(2) or found.group(4)
        value = float(bound)
        if not 0 < value < 1:
            raise ValueError(f"the rule {text!r} has a bound outside (0, 1)")
        return Rule(kind, value)
    found = _COST.fullmatch(given)
    if found:
        costs = (float(found.group(1)), float(found.group(2)))
        if min(costs) <= 0:
            raise ValueError(f"the rule {text!r} has a cost that is not above 0")
        return Rule("cost", costs=costs)
    raise ValueError(f"unknown rule {text!r}: expected {FORMS}")


def certify(
    proba: ArrayLike,
    labels: ArrayLike,
    rule: Rule,
    *,
    delta: float = 0.05,
    start: float | None = None,
) -> Certified:
    """Find the most useful threshold that keeps a rule with probability 1 - delta.

    Fixed sequence testing: thresholds between neighbouring probabilities are tested
    from the safest on, each by the binomial tail of the hypothesis that the rule is
    broken there, until one is not rejected at `delta`; the last rejected is returned.
    The promise is over draws of these examples: in at most a share `delta` of them a
    threshold comes out that breaks the rule on further examples of the same kind.

    Args:
        proba: `[n]`, in [0, 1], of examples that chose neither the checkpoint nor the
            calibration.
        labels: `[n]`, 0 or 1.
        rule: to keep.
        delta: probability that the promise is not kept, in (0, 1).
        start: for precision, the share of the examples that the first threshold flags,
            chosen on other examples (`best_start`); None: the fewest that can do.

    Raises:
        CannotCertifyError: if even the safest threshold is not rejected, or there are
            too few examples for any; it says how many would do.
        ValueError: for a label other than 0 or 1 or what is no probability.

    References:
        Angelopoulos et al., Learn then Test, arXiv 2110.01052.
    """
    proba, labels = check_scores(proba, labels, probability=True)
    if not 0 < delta < 1:
        raise ValueError(f"got delta {delta}, expected a probability in (0, 1)")
    if not len(labels):
        raise CannotCertifyError("there are no labelled memes to find a threshold on")
    if rule.kind == "accuracy":
        threshold = best_threshold(proba, labels)
        right = int(((proba > threshold) == (labels == 1)).sum())
        return Certified(threshold, len(labels), right, None)
    cuts, flagged, caught = _cuts(proba, labels)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    alarms = flagged - caught
    if rule.kind == "cost":
        missed, false = rule.costs
        costs = missed * (positives - caught) + false * alarms
        best = int(np.argmin(costs))
        right = int(caught[best] + negatives - alarms[best])
        return Certified(float(cuts[best]), len(labels), right, None)
    if rule.kind == "precision":
        return _precision(cuts, flagged, caught, rule, delta, start)
    # As many right of a fixed number, from the threshold that has all of them right.
    if rule.kind == "recall":
        n, right, target = positives, caught, rule.bound
        order, what = range(len(cuts) - 1, -1, -1), "positive"
    else:
        n, right, target = negatives, negatives - alarms, 1 - rule.bound
        order, what = range(len(cuts)), "negative"
    least = fewest(target, delta=delta)
    if n < least:
        raise CannotCertifyError(
            f"{rule} with probability {1 - delta:g} takes at least {least} {what} "
            f"memes, and there are {n}"
            + _in_all(least, n, len(labels), extra=f" with {what} ones as frequent")
        )
    found = _walk(cuts, order, lambda i: (n, int(right[i])), target, delta)
    # With all of n right, and n large enough, the first is rejected.
    assert found is not None
    return found


def best_start(
    proba: ArrayLike, rule: Rule, *, n: int, delta: float = 0.05
) -> float | None:
    """Choose the first threshold that `certify` tests, by other examples.

    Few flagged prove little, and many have a lower precision. Of k flagged with a mean
    probability q the test is expected to hold with probability P(Bin(k, q) >= r), where
    r is the fewest right that reject the rule's bound; the share with the highest is
    chosen. Calibrated probabilities tell q with less noise than labels do.

    Args:
        proba: `[m]`, in [0, 1], calibrated, of examples that `certify` does not get.
        rule: to keep.
        n: number of examples that `certify` gets.
        delta: as there.

    Returns:
        The share flagged, in (0, 1]; None if the rule is not of precision, or no test
        can be expected to hold.
    """
    ranked = np.sort(np.asarray(proba, np.float64))[::-1]
    if rule.kind != "precision" or not len(ranked) or not n:
        return None
    k = np.arange(1, n + 1)
    means = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    places = np.clip(np.round(k / n * len(ranked)).astype(int), 1, len(ranked)) - 1
    # Takes a second to import, which reading a rule need not wait for.
    from scipy import stats

    fewest_right = stats.binom.isf(delta, k, rule.bound) + 1
    power = stats.binom.sf(fewest_right - 1, k, means[places])
    best = int(np.argmax(power))
    return float(k[best] / n) if power[best] > 0 else None


def fewest(target: float, *, errors: int = 0, delta: float = 0.05) -> int:
    """Smallest n of which all but `errors` right reject a share below `target`.

        fewest(0.9), fewest(0.95), fewest(0.99)  # 29, 59, 299

    Args:
        target: share that is to be exceeded, in (0, 1).
        errors: how many may be wrong.
        delta: level of the test.
    """
    n = max(errors + 1, math.ceil(math.log(delta) / math.log(target)) - 1)
    while tail(n - errors, n, target) > delta:
        n += 1
    return n


def tail(right: int, n: int, target: float) -> float:
    """Probability that at least `right` of n are right if each is so with `target`."""
    return float(special.bdtrc(right - 1, n, target))


def lower_bound(right: int, n: int, *, delta: float = 0.05) -> float:
    """One-sided Clopper-Pearson bound of a share of which `right` of n were seen."""
    return float(special.betaincinv(right, n - right + 1, delta)) if right else 0.0


def _cuts(
    proba: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from the highest, which flags none, down to one that flags all.

    Returns:
        Thresholds float64 `[k]`, and how many examples and how many positives are
        above each, int `[k]`.
    """
    values, group = np.unique(proba, return_inverse=True)
    counts = np.bincount(group, minlength=len(values))[::-1]
    positives = np.bincount(group, weights=labels, minlength=len(values))[::-1]
    values = values[::-1]
    # The middle, or the lower neighbour where it rounds to the upper one.
    middle = (values[:-1] + values[1:]) / 2
    middle = np.where(middle >= values[:-1], values[1:], middle)
    last = values[-1] / 2 if values[-1] > 0 else -1.0
    cuts = np.concatenate([[max(1.0, values[0])], middle, [last]])
    flagged = np.concatenate([[0], np.cumsum(counts)])
    caught = np.concatenate([[0], np.cumsum(positives.astype(np.int64))])
    return cuts, flagged, caught


def _precision(
    cuts: np.ndarray,
    flagged: np.ndarray,
    caught: np.ndarray,
    rule: Rule,
    delta: float,
    start: float | None,
) -> Certified:
    """Walk from a fixed number flagged down to the lowest threshold that holds."""
    target, total = rule.bound, int(flagged[-1])
    least = fewest(target, delta=delta)
    if total < least:
        raise CannotCertifyError(
            f"{rule} with probability {1 - delta:g} takes at least {least} flagged "
            f"memes, and the split has {total} in all"
        )
    # A function of the number of examples and of others, as the test requires.
    starts = [fewest(target, errors=e, delta=delta) for e in range(FIRST_ERRORS + 1)]
    begin = max(n for n in starts if n == least or n <= total / 4)
    if start is not None:
        begin = min(max(least, round(start * total)), total)
    first = int(np.searchsorted(flagged, begin))
    found = _walk(
        cuts,
        range(first, len(cuts)),
        lambda i: (int(flagged[i]), int(caught[i])),
        target,
        delta,
    )
    if found is None:
        n, right = int(flagged[first]), int(caught[first])
        raise CannotCertifyError(
            f"{rule} cannot be promised with probability {1 - delta:g}: of the {n} "
            f"memes with the highest probabilities {right} are hateful ({right / n:.3f}"
            f"), which is within chance of {target:g}. {_more(right, n, rule, delta)}"
        )
    return found


def _more(right: int, n: int, rule: Rule, delta: float) -> str:
    """Say how many flagged memes at that share would do."""
    share = right / n
    if share <= rule.bound:
        return "More memes would not help: a lower bound or a better model would"
    needed = n
    while tail(math.floor(share * needed), needed, rule.bound) > delta:
        needed = math.ceil(1.1 * needed)
    return (
        f"With that share about {needed} flagged memes would do, {needed / n:.1f} "
        "times as many labelled memes"
    )


def _in_all(least: int, n: int, total: int, *, extra: str) -> str:
    """Say how many labelled memes hold `least` if `total` hold n."""
    return f": about {math.ceil(least * total / n)} labelled{extra}" if n else ""


def _walk(
    cuts: np.ndarray,
    order: range,
    counts: Callable[[int], tuple[int, int]],
    target: float,
    delta: float,
) -> Certified | None:
    """Return the last threshold in order before the first that is not rejected."""
    found = None
    for i in order:
        n, right = counts(i)
        p = tail(right, n, target)
        if p > delta:
            break
        found = Certified(float(cuts[i]), n, right, p)
    return found
