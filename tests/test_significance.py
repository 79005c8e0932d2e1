import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memejax.metrics import significance
from memejax.metrics.significance import equivalent, holm, in_words, verdict

FEW = settings(max_examples=30, deadline=None, derandomize=True)


def compared(*differences):
    """A comparison of errors with these differences a seed."""
    base = np.full(len(differences), 0.25)
    return significance.paired_comparison(base + differences, base)


def test_sign_flip_by_hand():
    base = np.array([0.7, 0.6, 0.8, 0.75, 0.65])
    # All five positive: only all and none flipped are as far from 0.
    compared = significance.paired_comparison(base + [0.1, 0.2, 0.3, 0.1, 0.2], base)
    assert compared["p_value"] == 2 / 32
    assert (compared["wins"], compared["losses"], compared["ties"]) == (5, 0, 0)
    # Differences 3, -1, 1: |sum| is 3 of {5, 3, 3, 1, 1, 3, 3, 5}.
    compared = significance.paired_comparison([3, -1, 1], [0, 0, 0])
    assert compared["p_value"] == 6 / 8
    assert significance.paired_comparison([1.0, 2.0], [1.0, 2.0])["p_value"] == 1


def test_paired_comparison():
    a, b = np.random.default_rng(9).normal([[0.3], [0.0]], 1, (2, 9))
    got = significance.paired_comparison(a, b)
    d = a - b
    assert got["mean_difference"] == pytest.approx(d.mean())
    assert got["sd"] == pytest.approx(d.std(ddof=1))
    flips = [abs(np.dot(s, d)) for s in itertools.product([-1, 1], repeat=9)]
    assert got["p_value"] == np.mean(np.array(flips) >= abs(d.sum()) - 1e-12)
    interval = stats.ttest_rel(a, b).confidence_interval()
    assert (got["t_low"], got["t_high"]) == pytest.approx(tuple(interval))
    assert got["low"] < d.mean() < got["high"]
    # The bootstrap's spread is sd / sqrt(n) with division by n: a bit inside t's.
    assert 0.6 < (got["high"] - got["low"]) / (got["t_high"] - got["t_low"]) < 1
    swapped = significance.paired_comparison(b, a)
    assert swapped["mean_difference"] == -got["mean_difference"]
    assert swapped["p_value"] == got["p_value"] and swapped["losses"] == got["wins"]
    assert significance.paired_comparison(a, b) == got


def test_many_pairs_sample_the_flips():
    # 17 wins of 24 by the same margin: the sign test, a binomial.
    d = np.repeat([1.0, -1.0], [17, 7])
    got = significance.paired_comparison(d, np.zeros(24))["p_value"]
    assert got == pytest.approx(2 * stats.binom.sf(16, 24, 0.5), rel=0.05)
    # Never 0: one flip of 100,001 is the observed one.
    assert significance.paired_comparison(np.ones(40), np.zeros(40))["p_value"] > 0


def test_without_spread_the_interval_is_the_point():
    got = significance.paired_comparison([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
    assert got["low"] == got["high"] == got["t_low"] == got["mean_difference"] == 0.25
    assert got["p_value"] == 0.25


def test_paired_comparison_errors():
    with pytest.raises(ValueError, match="at least two seeds"):
        significance.paired_comparison([1.0], [2.0])
    with pytest.raises(ValueError, match="finite"):
        significance.paired_comparison([1.0, np.nan], [2.0, 1.0])


@pytest.mark.parametrize(
    "n, p", [(3, 0.25), (5, 0.0625), (6, 0.03125), (10, 0.001953125)]
)
def test_smallest_p(n, p):
    d = np.linspace(0.01, 0.02, n)
    assert compared(*d)["p_value"] == p
    assert compared(*-d)["p_value"] == p
    # One seed the other way is never as sure.
    assert compared(*d[:-1], -0.001)["p_value"] > p


def test_90_percent_interval():
    # Mean 2, standard deviation 2; t with 2 degrees of freedom has 2.919986 at 95 %.
    got = significance.paired_comparison([0.0, 2.0, 4.0], [0.0, 0.0, 0.0])
    reach = 2.919986 * 2 / 3**0.5
    assert got["t90_low"] == pytest.approx(2 - reach, rel=1e-6)
    assert got["t90_high"] == pytest.approx(2 + reach, rel=1e-6)
    assert got["t_low"] < got["t90_low"] < got["t90_high"] < got["t_high"]


def test_holm_by_hand():
    # Sorted .01 .03 .04: x3 = .03, x2 = .06, x1 = .04 but not below .06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    # x4 = 2 is cut at 1, and all larger ones with it.
    np.testing.assert_array_equal(holm([0.5, 0.9, 1.0, 0.6]), [1, 1, 1, 1])
    # Sorted .005 .01 .03 .04: x4 = .02, x3 = .03, x2 = .06, x1 = .04 but not below.
    np.testing.assert_allclose(
        holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]
    )
    # Ties share the larger factor.
    np.testing.assert_allclose(holm([0.02, 0.02, 0.3]), [0.06, 0.06, 0.3])
    assert holm([]).shape == (0,) and holm([0.2]).dtype == np.float64


@FEW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_properties(values, random):
    p = np.array(values)
    got = holm(p)
    assert (got >= p).all() and (got <= np.minimum(len(p) * p, 1)).all()
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm(p[order]), got[order])
    # The procedure itself: step down while p_(j) <= alpha / (k - j + 1), j from 1.
    for alpha in (0.05, 0.3):
        rejected, left = set(), sorted(range(len(p)), key=lambda i: p[i])
        while left and p[left[0]] * len(left) <= alpha:
            rejected.add(left.pop(0))
        assert rejected == set(np.flatnonzero(got <= alpha).tolist())


@pytest.mark.parametrize("bad", [[-0.1], [1.1], [np.nan], [[0.1]], 0.5])
def test_holm_errors(bad):
    with pytest.raises(ValueError, match="p values"):
        holm(bad)


# Ten seeds each: 1.2 points lower every time, the same the other way, about nothing
# with little spread, and about nothing with much.
LOWER = compared(*np.tile([-0.011, -0.013], 5))
HIGHER = compared(*np.tile([0.011, 0.013], 5))
SAME = compared(*np.tile([-0.002, 0.001], 5))
WIDE = compared(*np.tile([-0.03, 0.02], 5))


def test_equivalent():
    # SAME: mean -.0005, sd .0015 x sqrt(10 / 9), t .95 with 9 degrees 1.833113.
    reach = 1.833113 * 0.0015 * (10 / 9) ** 0.5 / 10**0.5
    edge = 0.0005 + reach
    assert equivalent(SAME, band=edge * 1.0001)
    assert not equivalent(SAME, band=edge * 0.9999)
    assert not equivalent(LOWER, band=0.005) and equivalent(LOWER, band=0.02)
    # Two one-sided tests at 5 %, each by scipy.
    d = np.tile([-0.002, 0.001], 5)
    for band in (0.0008, 0.0012, 0.0016):
        above = stats.ttest_1samp(d, -band, alternative="greater").pvalue
        below = stats.ttest_1samp(d, band, alternative="less").pvalue
        assert equivalent(SAME, band=band) == (max(above, below) <= 0.05)
    for band in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="band"):
            equivalent(SAME, band=band)


def test_verdict():
    def of(comparison, p=None, **kwargs):
        p = comparison["p_value"] if p is None else p
        return verdict(comparison, p_adjusted=p, band=0.005, **kwargs)

    assert of(LOWER) == "better" and of(HIGHER) == "worse"
    assert of(LOWER, better="higher") == "worse"
    assert of(HIGHER, better="higher") == "better"
    assert of(SAME) == "equivalent" and of(WIDE) == "unclear"
    # It is the adjusted p that counts, and alpha itself is enough.
    assert of(LOWER, 0.06) == "unclear" and of(LOWER, 0.05) == "better"
    assert of(LOWER, 0.05, alpha=0.01) == "unclear"
    # Sure and small is better all the same; no difference is neither.
    tiny = compared(*np.tile([-0.001, -0.002], 5))
    assert of(tiny) == "better" and of(tiny, 0.2) == "equivalent"
    assert of(compared(0.0, 0.0, 0.0), 1.0) == "equivalent"


def test_verdict_errors():
    good = {"p_adjusted": 0.01, "band": 0.01}
    for bad, said in (
        ({"p_adjusted": 0.001}, "adjusted p of 0.001"),
        ({"p_adjusted": 1.01}, "adjusted p"),
        ({"p_adjusted": np.nan}, "adjusted p"),
        ({"better": "smaller"}, "'smaller'"),
        ({"alpha": 0.0}, "alpha"),
        ({"band": 0.0}, "band"),
    ):
        with pytest.raises(ValueError, match=said):
            verdict(LOWER, **(good | bad))


def test_in_words():
    low, high = -100 * LOWER["high"], -100 * LOWER["low"]
    assert in_words(LOWER, p_adjusted=0.012, band=0.005) == (
        f"better than uniform: error 1.2 points lower ({low:.1f} to {high:.1f}), 10 "
        "wins of 10, p = 0.002, 0.012 after Holm's correction"
    )
    words = in_words(HIGHER, p_adjusted=0.012, band=0.001, reference="A", metric="loss")
    low, high = 100 * HIGHER["low"], 100 * HIGHER["high"]
    assert words == (
        f"worse than A: loss 1.20 points higher ({low:.2f} to {high:.2f}), 0 wins of "
        "10, p = 0.002, 0.012 after Holm's correction"
    )
    # SAME at 90 %: -.0005 and .0009166 to both sides.
    assert in_words(SAME, p_adjusted=1.0, band=0.005).startswith(
        "no difference larger than 0.5 points: error 0.1 points lower (90 %: 0.0 "
        "higher to 0.1 lower), 5 wins of 10, p = "
    )
    words = in_words(WIDE, p_adjusted=1.0, band=0.005)
    assert words.startswith("unclear: error 0.5 points lower (")
    assert " higher to " in words and words.endswith(", 1 after Holm's correction")
    tiny = compared(*np.tile([-0.001, -0.002], 5))
    words = in_words(tiny, p_adjusted=0.01, band=0.005)
    assert words.endswith("; no more than 0.5 points all the same")
    sure = compared(*np.full(16, -0.01) + np.arange(16) * 1e-4)
    assert "p < 0.0001, < 0.0001 after" in in_words(sure, p_adjusted=9e-5, band=0.005)
    one = compared(-0.01, 0.02, 0.02)
    assert ", 1 win of 3, " in in_words(one, p_adjusted=1.0, band=0.005)
    # Accuracies: higher is better, and counts as a win.
    words = in_words(HIGHER, p_adjusted=0.01, band=0.005, better="higher")
    assert words.startswith("better than uniform") and "10 wins of 10" in words
