"""Calibration against minima found independently, and against known distortions."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special

from memejax.metrics import calibration


def memes(n=4000, *, slope=1.0, intercept=0.0, seed=0):
    """Scores whose logits are off by a slope and an intercept, and their labels."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.5, n)
    labels = (rng.random(n) < special.expit(z)).astype(int)
    return special.expit((z - intercept) / slope), labels


def nll(z, targets):
    return np.mean(np.logaddexp(0, z) - targets * z)


def test_temperature_is_the_minimum_of_the_log_loss():
    proba, labels = memes(slope=0.4)
    z = special.logit(proba)
    found = calibration.fit(proba, labels, kind="temperature")
    best = optimize.minimize_scalar(lambda s: nll(s * z, labels), bounds=(0.01, 10))
    assert_allclose(found.slope, best.x, rtol=1e-4)
    assert_allclose(found.slope, 0.4, atol=0.03)
    assert_allclose(found.apply(proba), special.expit(found.slope * z), rtol=1e-12)


def test_platt_is_the_minimum_with_his_targets():
    proba, labels = memes(slope=0.5, intercept=-1.0)
    z = special.logit(proba)
    n1 = labels.sum()
    targets = np.where(labels, (n1 + 1) / (n1 + 2), 1 / (len(labels) - n1 + 2))
    best = optimize.minimize(lambda ab: nll(ab[0] * z + ab[1], targets), [1.0, 0.0])
    found = calibration.fit(proba, labels, kind="platt")
    assert_allclose([found.slope, found.intercept], best.x, rtol=1e-3)
    assert_allclose([found.slope, found.intercept], [0.5, -1.0], atol=0.08)


def test_isotonic_by_hand():
    proba = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.95])
    labels = np.array([0, 1, 0, 1, 1, 1])
    found = calibration.fit(proba, labels, kind="isotonic")
    # The second and third are pooled; certainties are 1 / (n + 2) away from 0 and 1.
    expected = [1 / 8, 0.5, 0.5, 7 / 8, 7 / 8, 7 / 8]
    assert_allclose(found.apply(proba), expected)
    assert_allclose(found.apply([0.0, 0.15, 1.0]), [1 / 8, (1 / 8 + 0.5) / 2, 7 / 8])


def test_what_was_distorted_is_chosen_and_undone():
    for slope, intercept, kind in ((0.4, 0.0, "temperature"), (1.0, -1.5, "platt")):
        proba, labels = memes(900, slope=slope, intercept=intercept)
        found, losses = calibration.choose(proba, labels)
        assert found.kind == kind, losses
        assert set(losses) == {"none", "temperature", "platt"}
        new, truth = memes(20_000, slope=slope, intercept=intercept, seed=1)
        before = calibration.calibration_report(new, truth)
        after = calibration.calibration_report(found.apply(new), truth)
        assert after["log_loss"] < before["log_loss"]
        assert after["brier"] < before["brier"]
        assert_allclose(after["slope"], 1, atol=0.15)
        assert after["ece"] < 0.03 < before["ece"]


def test_calibrated_probabilities_are_left_alone():
    """Of several samples the most keep what is right already."""
    kinds = [calibration.choose(*memes(600, seed=s))[0].kind for s in range(9)]
    assert kinds.count("none") >= 4
    assert "isotonic" not in kinds


def test_a_curve_that_no_line_describes_takes_isotonic():
    rng = np.random.default_rng(0)
    proba = rng.random(6000)
    labels = (rng.random(6000) < np.where(proba < 0.5, 0.05, 0.6)).astype(int)
    found, losses = calibration.choose(proba, labels)
    assert found.kind == "isotonic", losses


def test_folds_keep_a_group_together():
    """Copies of a meme on both sides of a fold would make isotonic memorise them."""
    rng = np.random.default_rng(0)
    one, truth = rng.random(120), rng.integers(0, 2, 120)
    proba, labels = np.repeat(one, 10), np.repeat(truth, 10)
    apart = calibration.choose(proba, labels)[1]
    together = calibration.choose(proba, labels, groups=np.repeat(np.arange(120), 10))[
        1
    ]
    assert apart["isotonic"] + 0.02 < together["isotonic"]


def test_json_and_back():
    proba, labels = memes(1200)
    for kind in calibration.KINDS:
        found = calibration.fit(proba, labels, kind=kind)
        back = calibration.Calibration.from_json(
            json.loads(json.dumps(found.as_json()))
        )
        assert back == found
        assert (np.diff(back.apply(np.linspace(0, 1, 101))) >= 0).all()


def test_reliability_by_hand():
    rows = calibration.reliability([0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1], bins=2)
    assert [row["n"] for row in rows] == [2, 2]
    assert_allclose([row["proba"] for row in rows], [0.2, 0.7])
    assert [row["positive"] for row in rows] == [0, 1]
    # 0 of 2: 1 - 0.025^(1/2).
    assert_allclose(rows[0]["high"], 1 - 0.025**0.5)
    assert_allclose(rows[1]["low"], 0.025**0.5)
    found = calibration.expected_calibration_error(
        [0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1], bins=2
    )
    assert_allclose(found, 0.25)


def test_error_of_a_calibrated_model_is_not_zero_on_a_small_split():
    proba, labels = memes(150)
    small = calibration.calibration_report(proba, labels)
    assert 0.03 < small["ece_if_calibrated"] < 0.12
    large = calibration.calibration_report(*memes(20_000))
    assert large["ece_if_calibrated"] < 0.01
    assert_allclose(large["ece"], large["ece_if_calibrated"], atol=0.01)


def test_prior_shift_by_bayes():
    # Odds 1 : 1 at a share of 0.5 are 1 : 3 at one of 0.25.
    assert_allclose(
        calibration.shift_prior([0.5, 0, 1], old=0.5, new=0.25), [0.25, 0, 1]
    )
    rng = np.random.default_rng(0)
    labels = rng.random(50_000) < 0.2
    x = rng.normal(np.where(labels, 1.0, -1.0))
    # Log odds of the two densities are 2 x; at even shares, nothing is added.
    shifted = calibration.shift_prior(special.expit(2 * x), old=0.5, new=0.2)
    report = calibration.calibration_report(shifted, labels.astype(int))
    assert_allclose([report["slope"], report["intercept"]], [1, 0], atol=0.05)


def test_refusals():
    with pytest.raises(ValueError, match="both labels"):
        calibration.fit([0.2, 0.3], [1, 1], kind="platt")
    with pytest.raises(ValueError, match="unknown kind"):
        calibration.fit([0.2, 0.3], [0, 1], kind="beta")
    with pytest.raises(ValueError, match="at least 5"):
        calibration.choose([0.2, 0.3, 0.1], [0, 1, 1])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration.fit([0.2, 1.3], [0, 1], kind="platt")
    with pytest.raises(ValueError, match="share"):
        calibration.shift_prior([0.1], old=0.3, new=1.0)
