"""Rules, and thresholds that keep them as often as they promise."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from memejax.metrics import thresholds
from memejax.metrics.thresholds import (
    CannotCertifyError,
    best_start,
    certify,
    parse_rule,
    tail,
)


def test_rules_are_read():
    assert parse_rule("precision>=0.9") == thresholds.Rule("precision", 0.9)
    assert parse_rule(" Recall >= .8 ") == thresholds.Rule("recall", 0.8)
    assert parse_rule("fpr<=0.05") == thresholds.Rule("fpr", 0.05)
    assert parse_rule("cost=5:1") == thresholds.Rule("cost", costs=(5.0, 1.0))
    for text in ("precision>=0.9", "recall>=0.8", "fpr<=0.05", "cost=5:1", "accuracy"):
        assert str(parse_rule(text)) == text


@pytest.mark.parametrize(
    "text, message",
    [
        ("f1>=0.9", "unknown rule"),
        ("precision<=0.9", "unknown rule"),
        ("precision>=0.9.1", "unknown rule"),
        ("precision>=1", "outside"),
        ("recall>=0", "outside"),
        ("cost=0:1", "above 0"),
        ("cost=nan:1", "unknown rule"),
    ],
)
def test_other_rules_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rule(text)


def test_fewest_memes_by_hand():
    """All of n right: target^n at most delta."""
    for target, n in ((0.9, 29), (0.95, 59), (0.99, 299)):
        assert thresholds.fewest(target) == n
        assert target**n <= 0.05 < target ** (n - 1)
    # One wrong: n p^(n-1) (1 - p) + p^n.
    n = thresholds.fewest(0.9, errors=1)
    assert 0.9**n + n * 0.9 ** (n - 1) * 0.1 <= 0.05
    assert n == 46


def test_bounds_against_scipy():
    found = stats.binomtest(40, 50, 0.7, alternative="greater")
    assert_allclose(thresholds.tail(40, 50, 0.7), found.pvalue)
    low = found.proportion_ci(0.95, method="exact").low
    assert_allclose(thresholds.lower_bound(40, 50), low)
    assert thresholds.lower_bound(0, 50) == 0


def ranked(positives):
    """Probabilities from high to low, with these labels."""
    n = len(positives)
    return np.linspace(0.99, 0.01, n), np.asarray(positives)


def test_precision_by_hand():
    """30 right, then one wrong and one right in turn."""
    proba, labels = ranked([1] * 30 + [0, 1] * 35)
    found = certify(proba, labels, parse_rule("precision>=0.9"))
    # 29 and 30 of as many hold (0.9^30 = 0.042); 30 of 31 do not.
    assert (found.n, found.right) == (30, 30)
    assert proba[30] < found.threshold < proba[29]
    assert_allclose(found.p, 0.9**30)


def test_the_first_threshold_of_precision_is_chosen_by_others():
    """Against the expected power, worked out one number of flagged at a time."""
    rule = parse_rule("precision>=0.8")
    proba = np.repeat([0.97, 0.9, 0.1], [20, 20, 40])
    powers = []
    for k in range(1, 41):
        q = np.sort(proba)[::-1][: 2 * k].mean()
        right = next((r for r in range(k + 1) if tail(r, k, 0.8) <= 0.05), None)
        powers.append(0.0 if right is None else tail(right, k, q))
    best = int(np.argmax(powers)) + 1
    # All of the good ones, a few less for the steps of the binomial.
    assert 14 <= best <= 20
    assert best_start(proba, rule, n=40) == best / 40
    assert best_start(proba, parse_rule("recall>=0.8"), n=40) is None
    assert best_start(np.zeros(9), rule, n=40) is None


def test_a_later_start_survives_early_errors():
    rule = parse_rule("precision>=0.8")
    proba, labels = ranked([1, 0, 0, 0] + [1] * 36 + [0] * 40)
    with pytest.raises(CannotCertifyError):
        certify(proba, labels, rule)
    found = certify(proba, labels, rule, start=0.5)
    assert (found.n, found.right) == (40, 37)


def test_recall_by_hand():
    proba, labels = ranked([1] * 50 + [0] * 20 + [1] + [0] * 29)
    found = certify(proba, labels, parse_rule("recall>=0.9"))
    # Of 51 positives 50 may be enough, 49 are not: tails 0.031 and 0.094.
    assert thresholds.tail(50, 51, 0.9) < 0.05 < thresholds.tail(49, 51, 0.9)
    assert (found.n, found.right) == (51, 50)
    assert proba[50] < found.threshold < proba[49]


def test_false_positive_rate_by_hand():
    proba, labels = ranked([1] * 10 + [0] + [1] * 5 + [0] * 60)
    found = certify(proba, labels, parse_rule("fpr<=0.05"))
    # Of 61 negatives none may be flagged (0.95^61 = 0.044): before the first.
    assert (found.n, found.right) == (61, 61)
    assert proba[10] < found.threshold < proba[9]


def test_cost_by_enumeration():
    rng = np.random.default_rng(0)
    proba, labels = rng.random(60).round(1), rng.integers(0, 2, 60)
    found = certify(proba, labels, parse_rule("cost=5:1"))

    def cost(threshold):
        flagged = proba > threshold
        return 5 * (labels[~flagged] == 1).sum() + (labels[flagged] == 0).sum()

    assert cost(found.threshold) == min(cost(t) for t in np.linspace(-0.05, 1, 211))
    assert found.p is None


def test_accuracy_is_the_best_threshold():
    proba, labels = ranked([1, 1, 0, 1, 0, 0])
    found = certify(proba, labels, parse_rule("accuracy"))
    assert (found.n, found.right) == (6, 5)


def test_what_cannot_be_promised_says_what_it_takes():
    with pytest.raises(CannotCertifyError, match="at least 59 flagged memes.* 40 in"):
        certify(*ranked([1] * 40), parse_rule("precision>=0.95"))
    with pytest.raises(CannotCertifyError, match="at least 29 positive.*about 145 lab"):
        certify(*ranked([1] * 10 + [0] * 40), parse_rule("recall>=0.9"))
    proba, labels = ranked([1, 1, 1, 1, 0] * 40)
    with pytest.raises(CannotCertifyError, match="would not help"):
        certify(proba, labels, parse_rule("precision>=0.9"))
    with pytest.raises(CannotCertifyError, match="about .* flagged memes would do"):
        certify(proba, labels, parse_rule("precision>=0.7"), delta=1e-6)
    with pytest.raises(CannotCertifyError, match="no labelled"):
        certify([], [], parse_rule("cost=1:1"))


def test_equal_probabilities_are_flagged_together():
    proba = np.repeat([0.9, 0.5, 0.1], 40)
    labels = np.repeat([1, 0, 0], 40)
    found = certify(proba, labels, parse_rule("precision>=0.9"))
    assert (found.n, found.threshold) == (40, 0.7)


def keeps(rule, threshold):
    """Whether logits of mean -0.5 and deviation 2, calibrated, keep a rule."""
    grid = np.linspace(-9, 9, 4001)
    density, truth = stats.norm.pdf(grid, -0.5, 2.0), special.expit(grid)
    above = density * (truth > threshold)
    if rule.kind == "precision":
        return above @ truth >= rule.bound * above.sum()
    if rule.kind == "recall":
        return above @ truth >= rule.bound * (density @ truth)
    return above @ (1 - truth) <= rule.bound * (density @ (1 - truth))


def drawn(rng, n=250):
    z = rng.normal(-0.5, 2.0, n)
    return special.expit(z), (rng.random(n) < special.expit(z)).astype(int)


@pytest.mark.parametrize(
    "rule, others",
    [
        ("precision>=0.8", False),
        ("precision>=0.8", True),
        ("recall>=0.8", False),
        ("fpr<=0.1", False),
    ],
)
def test_promises_are_kept(rule, others):
    """Of 400 splits at most 5 %, and three standard errors, break the rule."""
    rule = parse_rule(rule)
    broken, refused = 0, 0
    rng = np.random.default_rng(0)
    for _ in range(400):
        start = best_start(drawn(rng)[0], rule, n=250) if others else None
        try:
            found = certify(*drawn(rng), rule, start=start)
        except CannotCertifyError:
            refused += 1
            continue
        broken += not keeps(rule, found.threshold)
    assert refused < 200
    assert broken <= 0.05 * 400 + 3 * math.sqrt(0.05 * 0.95 * 400)
