"""Statistical comparison of two methods over paired seeds.

`paired_comparison` of each method with the same reference, `holm` over the p values of
the comparisons declared beforehand, then `verdict`, and `in_words` as readable text.
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
    """Compare two methods over the same seeds: mean difference and sign-flip test.

    For the differences d_i = a_i - b_i: the mean with its 95 % intervals, and the
    two-sided sign-flip test, `p = #{s in {-1, 1}^n : |s . d| >= |sum d|} / 2^n`,
    which assumes only that a and b are exchangeable within a seed. It is exact up to
    20 pairs and sampled (100,000 flips) beyond. With n pairs p is at least
    2^(1 - n): fewer than 6 pairs never reach 0.05.

    Args:
        a: one figure per seed, `[n]`, n at least 2.
        b: the other method's figures, for the same seeds in the same order.
        seed: seed of the bootstrap and of sampled flips.

    Returns:
        n, mean_difference, sd (n - 1), low and high (BCa bootstrap, 9999 resamples),
        t_low and t_high (Student's t, safer with fewer than 10 pairs), t90_low and
        t90_high (its 90 % interval, used by `equivalent`), p_value, wins (a is larger),
        losses and ties, as floats and ints.

    Raises:
        ValueError: if the shapes differ, n < 2 or a figure is not finite.

    References:
        Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987). Paired seeds with
        both: arXiv 2511.19794.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"got figures of shapes {a.shape} and {b.shape}, expected one figure per "
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
    """Holm's adjusted p values, which control the family-wise error rate.

    For the k values in ascending order, `q_(i) = min(1, max_{j<=i} (k - j + 1) p_(j))`.
    The chance of any false alarm among those with q at most alpha is at most alpha,
    however the tests depend on each other. The family must be declared before the
    results are seen: a member without a result yet counts with p = 1.

        holm([0.01, 0.04, 0.03])  # [0.03, 0.06, 0.06]

    Args:
        p_values: `[k]`, in [0, 1], in any order.

    Returns:
        Adjusted p values, float64 `[k]`, in the order of `p_values`.

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
        comparison: result of `paired_comparison`.
        band: the largest difference that does not matter, in the unit of the figures;
            above 0. Chosen before the results are seen.

    Returns:
        True if the 90 % t interval of the difference lies inside the band. False is
        inconclusive: the methods may differ, or there may be too few seeds.

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
    """Verdict of a comparison: "better", "worse", "equivalent" or "unclear".

    Better or worse if `p_adjusted <= alpha`, else equivalent if `equivalent` is True,
    else unclear. A difference can be significant and yet inside the band: it is then
    called better or worse, and `in_words` adds that it is small.

    Args:
        comparison: result of `paired_comparison(method, reference)`.
        p_adjusted: its p value after `holm`.
        band: as in `equivalent`.
        better: "lower" (errors) or "higher" (accuracies).
        alpha: significance level, in (0, 1).

    Returns:
        The verdict on the method, compared with the reference.

    Raises:
        ValueError: if `p_adjusted` is below the comparison's own p value or above 1, or
            `band`, `better` or `alpha` is not as above.
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
    metric: str = "error",
) -> str:
    """The verdict and its evidence as a readable sentence.

    Args:
        comparison: result of `paired_comparison(method, reference)`, in fractions.
        p_adjusted: as in `verdict`.
        band: as in `verdict`, also a fraction.
        better: as in `verdict`.
        alpha: as in `verdict`.
        reference: the name of the other method.
        metric: the name of the compared figure.

    Returns:
        Text in percentage points, with the 95 % BCa interval (for "equivalent" the
        90 % t interval, on which that verdict rests), the wins and the p values.

    Raises:
        ValueError: as in `verdict`.
    """
    outcome = verdict(
        comparison, p_adjusted=p_adjusted, band=band, better=better, alpha=alpha
    )
    limit, digits = f"{100 * band:.4g} points", _digits(band)
    mean = comparison["mean_difference"]
    direction = "lower" if mean < 0 else "higher"
    wins = comparison["losses" if better == "lower" else "wins"]
    tests = (
        f"{wins} {'win' if wins == 1 else 'wins'} of {comparison['n']}, "
        f"p {_p(comparison['p_value'])}, {_p(p_adjusted).removeprefix('= ')} after "
        "Holm's correction"
    )
    text = f"{metric} {_points(abs(mean), digits)} points {direction}"
    if outcome == "equivalent":
        ends = (comparison["t90_low"], comparison["t90_high"])
        found = _range(*ends, direction, digits)
        return f"no difference larger than {limit}: {text} (90 %: {found}), {tests}"
    found = _range(comparison["low"], comparison["high"], direction, digits)
    text += f" ({found}), {tests}"
    if outcome == "unclear":
        return f"unclear: {text}"
    small = f"; no more than {limit} all the same"
    text += small * equivalent(comparison, band=band)
    return f"{outcome} than {reference}: {text}"


def _digits(band: float) -> int:
    """Decimals of percentage points that show a tenth of the band's width."""
    return max(1, math.ceil(round(1 - math.log10(200 * band), 9)))


def _points(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f}"


def _range(low: float, high: float, direction: str, digits: int) -> str:
    """An interval as distances in one direction, or in both if it contains 0."""
    if direction == "lower" and high <= 0:
        return f"{_points(-high, digits)} to {_points(-low, digits)}"
    if direction == "higher" and low >= 0:
        return f"{_points(low, digits)} to {_points(high, digits)}"
    ends = [(low, "lower" if low < 0 else "higher"), (high, "higher")]
    if direction == "lower":
        ends = ends[::-1]
    first, second = (f"{_points(abs(end), digits)} {side}" for end, side in ends)
    return f"{first} to {second}"


def _p(value: float) -> str:
    """A p value with its relation sign."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _sign_flip(difference: np.ndarray, seed: int) -> float:
    """Two-sided p of the sum of differences under flips of their signs."""
    n = len(difference)
    # Sums that are mathematically equal differ by rounding.
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
