"""Is one method better than another, or is it luck? Comparisons over paired seeds.

`paired_comparison` of each method with the same reference, `holm` over the p values of
the comparisons declared beforehand, then `verdict`, and `in_words` for a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# Beyond this many pairs the 2^n flips of signs are sampled, not enumerated.
MAX_EXACT_PAIRS = 20
_SAMPLED_FLIPS = 100_000


def paired_comparison(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """Two methods over the same seeds: how far apart, and is it luck?

    Of the differences d_i = a_i - b_i: the mean with its 95 % intervals, and the
    two-sided sign-flip test, `p = #{s in {-1, 1}^n : |s . d| >= |sum d|} / 2^n`,
    which assumes only that a and b are exchangeable within a seed. It is exact up to
    20 pairs and sampled (100,000 flips) beyond. With n pairs p is at least
    2^(1 - n): fewer than 6 pairs never reach 0.05.

    Args:
        a: one figure a seed, `[n]`, n at least 2.
        b: the other method's, the same seeds in the same order.
        seed: of the bootstrap and of sampled flips.

    Returns:
        n, mean_difference, sd (n - 1), low and high (BCa bootstrap, 9999 resamples),
        t_low and t_high (Student's t, the safer one under 10 pairs), t90_low and
        t90_high (its 90 % interval, which `equivalent` reads), p_value, wins (a is
        larger), losses and ties, as floats and ints.

    Raises:
        ValueError: if the shapes differ, n < 2 or a figure is not finite.

    References:
        Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987). Paired seeds with
        both: arXiv 2511.19794.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"got figures of shapes {a.shape} and {b.shape}, expected one figure a "
            "seed for both, at least two seeds"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"got figures {a} and {b}, expected finite numbers")
    difference = a - b
    n, mean, sd = len(a), float(difference.mean()), float(difference.std(ddof=1))
    low = high = mean
    # Without spread BCa is 0 / 0; the interval is then the point.
    if sd > 1e-12 * np.abs(difference).max():
        low, high = stats.bootstrap(
            (difference,), np.mean, method="BCa", rng=seed
        ).confidence_interval
    reach = stats.t.ppf([0.975, 0.95], n - 1) * sd / math.sqrt(n)
    wide, narrow = reach.tolist()
    return {
        "n": n,
        "mean_difference": mean,
        "sd": sd,
        "low": float(low),
        "high": float(high),
        "t_low": mean - wide,
        "t_high": mean + wide,
        "t90_low": mean - narrow,
        "t90_high": mean + narrow,
        "p_value": _sign_flip(difference, seed),
        "wins": int((difference > 0).sum()),
        "losses": int((difference < 0).sum()),
        "ties": int((difference == 0).sum()),
    }


def holm(p_values: ArrayLike) -> np.ndarray:
    """P values of a family of tests, adjusted so that one false alarm is rare (Holm).

    Of the k values in ascending order, `q_(i) = min(1, max_{j<=i} (k - j + 1) p_(j))`.
    The chance of any false alarm among those with q at most alpha is at most alpha,
    however the tests depend on each other. The family is what was declared before the
    results were seen: a member without a result yet takes part with p = 1.

        holm([0.01, 0.04, 0.03])  # [0.03, 0.06, 0.06]

    Args:
        p_values: `[k]`, in [0, 1], in any order.

    Returns:
        Adjusted p values, float64 `[k]`, each in the place of its own.

    Raises:
        ValueError: if a value is outside [0, 1] or NaN, or the shape is not `[k]`.

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian
        Journal of Statistics 6 (1979).
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1:
        raise ValueError(f"got p values of shape {p.shape}, expected [k]")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"got p values {p}, expected numbers in [0, 1]")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


def equivalent(comparison: Mapping[str, Any], *, band: float) -> bool:
    """Whether two methods differ by no more than a band: two one-sided t tests at 5 %.

    `-band <= t90_low and t90_high <= band`.

    Args:
        comparison: what `paired_comparison` returns.
        band: the largest difference that does not matter, in the unit of the figures;
            above 0. Chosen before the results are seen.

    Returns:
        True where the 90 % t interval of the difference lies inside the band. False
        says nothing: the methods may differ, or the seeds be too few to tell.

    Raises:
        ValueError: if the band is not a positive number.

    References:
        Schuirmann, A Comparison of the Two One-Sided Tests Procedure and the Power
        Approach, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    if not 0 < band < math.inf:
        raise ValueError(f"got a band of {band}, expected a positive number")
    return bool(-band <= comparison["t90_low"] and comparison["t90_high"] <= band)


def verdict(
    comparison: Mapping[str, Any],
    *,
    p_adjusted: float,
    band: float,
    better: str = "lower",
    alpha: float = 0.05,
) -> str:
    """What a comparison shows: "better", "worse", "equivalent" or "unclear".

    Better or worse where `p_adjusted <= alpha`, else equivalent where `equivalent`
    says so, else unclear. A difference can be sure and yet inside the band: it is
    then called better or worse, and `in_words` says that it is small.

    Args:
        comparison: what `paired_comparison(method, reference)` returns.
        p_adjusted: its p value after `holm`.
        band: as in `equivalent`.
        better: "lower" (errors) or "higher" (accuracies).
        alpha: in (0, 1).

    Returns:
        What the method is, compared with the reference.

    Raises:
        ValueError: if `p_adjusted` is below the comparison's own p value or above 1, or
            `band`, `better` or `alpha` is none of the above.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"got better={better!r}, expected 'lower' or 'higher'")
    if not 0 < alpha < 1:
        raise ValueError(f"got alpha {alpha}, expected a number in (0, 1)")
    own = comparison["p_value"]
    if not own - 1e-12 <= p_adjusted <= 1:
        # Adjusting never makes a p value smaller: these are two different tests.
        raise ValueError(
            f"got an adjusted p of {p_adjusted}, expected a number from the "
            f"comparison's own, {own}, to 1"
        )
    same, difference = equivalent(comparison, band=band), comparison["mean_difference"]
    if p_adjusted <= alpha and difference != 0:
        return "better" if (difference < 0) == (better == "lower") else "worse"
    return "equivalent" if same else "unclear"


def in_words(
    comparison: Mapping[str, Any],
    *,
    p_adjusted: float,
    band: float,
    better: str = "lower",
    alpha: float = 0.05,
    reference: str = "uniform",
    what: str = "error",
) -> str:
    """The verdict and what it rests on, as a person says it.

    Args:
        comparison: what `paired_comparison(method, reference)` returns, of fractions.
        p_adjusted: as in `verdict`.
        band: as in `verdict`, a fraction too.
        better: as in `verdict`.
        alpha: as in `verdict`.
        reference: the name of the other method.
        what: the name of the figure.

    Returns:
        Words in percentage points, with the 95 % BCa interval (for "equivalent" the
        90 % t interval, on which that verdict rests), the wins and the p values.

    Raises:
        ValueError: as `verdict`.
    """
    came = verdict(
        comparison, p_adjusted=p_adjusted, band=band, better=better, alpha=alpha
    )
    limit, digits = f"{100 * band:.4g} points", _digits(band)
    mean = comparison["mean_difference"]
    how = "lower" if mean < 0 else "higher"
    wins = comparison["losses" if better == "lower" else "wins"]
    tests = (
        f"{wins} {'win' if wins == 1 else 'wins'} of {comparison['n']}, "
        f"p {_p(comparison['p_value'])}, {_p(p_adjusted).removeprefix('= ')} after "
        "Holm's correction"
    )
    said = f"{what} {_points(abs(mean), digits)} points {how}"
    if came == "equivalent":
        found = _range(comparison["t90_low"], comparison["t90_high"], how, digits)
        return f"no difference larger than {limit}: {said} (90 %: {found}), {tests}"
    said += f" ({_range(comparison['low'], comparison['high'], how, digits)}), {tests}"
    if came == "unclear":
        return f"unclear: {said}"
    small = f"; no more than {limit} all the same"
    return f"{came} than {reference}: {said}{small * equivalent(comparison, band=band)}"


def _digits(band: float) -> int:
    """Decimals of percentage points that show a tenth of the band's width."""
    return max(1, math.ceil(round(1 - math.log10(200 * band), 9)))


def _points(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f}"


def _range(low: float, high: float, how: str, digits: int) -> str:
    """An interval as distances in a direction, or both directions where it holds 0."""
    if how == "lower" and high <= 0:
        return f"{_points(-high, digits)} to {_points(-low, digits)}"
    if how == "higher" and low >= 0:
        return f"{_points(low, digits)} to {_points(high, digits)}"
    ends = [(low, "lower" if low < 0 else "higher"), (high, "higher")]
    if how == "lower":
        ends = ends[::-1]
    first, second = (f"{_points(abs(end), digits)} {side}" for end, side in ends)
    return f"{first} to {second}"


def _p(value: float) -> str:
    """A p value with its sign of equality."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _sign_flip(difference: np.ndarray, seed: int) -> float:
    """Two-sided p of the sum of differences under flips of their signs."""
    n = len(difference)
    # Sums that are equal on paper differ by rounding.
    bar = abs(difference.sum()) - 1e-9 * np.abs(difference).sum()
    if n <= MAX_EXACT_PAIRS:
        sums = np.zeros(1)
        for value in difference:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= bar).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(10):
        signs = rng.choice([-1.0, 1.0], (_SAMPLED_FLIPS // 10, n))
        hits += int((np.abs(signs @ difference) >= bar).sum())
    # The observed signs count as one of the flips: p is never 0.
    return (hits + 1) / (_SAMPLED_FLIPS + 1)
