import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from memejax import metrics
from memejax.metrics import reports

RNG = np.random.default_rng(4)
LABELS = RNG.integers(0, 2, 200)
# Two decimals: many ties.
PROBA = np.clip(0.5 + 0.15 * LABELS + RNG.normal(0, 0.25, 200), 0, 1).round(2)


def test_auroc_by_hand():
    # Pairs (positive, negative): 0.8 beats both, 0.4 ties one and loses one: 2.5 / 4.
    assert metrics.auroc([0.8, 0.4, 0.4, 0.6], [1, 1, 0, 0]) == 0.625
    assert metrics.auroc([0.1, np.inf, -np.inf], [0, 1, 0]) == 1.0
    # The lost pair counts three times: (1 + 1 + 3 x 0) / (1 + 1 + 3).
    weights = [1, 1, 1, 3]
    area = metrics.auroc([0.9, 0.8, 0.1, 0.95], [1, 0, 0, 0], weights=weights)
    assert area == pytest.approx(2 / 5)


def test_auroc_agrees_with_sklearn():
    weights = RNG.uniform(size=200)
    area = metrics.auroc(PROBA, LABELS)
    assert area == pytest.approx(roc_auc_score(LABELS, PROBA), rel=1e-12)
    area = metrics.auroc(PROBA, LABELS, weights=weights)
    expected = roc_auc_score(LABELS, PROBA, sample_weight=weights)
    assert area == pytest.approx(expected, rel=1e-12)


def test_auroc_of_one_class_is_nan():
    assert np.isnan(metrics.auroc([0.1, 0.2], [1, 1]))
    assert np.isnan(metrics.auroc([0.1, 0.2], [1, 0], weights=[1, 0]))
    assert np.isnan(metrics.auroc([], []))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan], [0, 1], "1 scores that are NaN"),
        ([0.1, 0.2], [0, -1], r"labels \[-1\]"),
        ([0.1, 0.2], [0], r"shape \(2,\) and labels of shape \(1,\)"),
    ],
)
def test_wrong_arguments(scores, labels, message):
    for function in (metrics.auroc, metrics.best_threshold, metrics.binary_report):
        with pytest.raises(ValueError, match=message):
            function(scores, labels)


def test_probabilities_are_probabilities():
    with pytest.raises(ValueError, match=r"from -1.0 to 2.0, expected \[0, 1\]"):
        metrics.best_threshold([-1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="no examples"):
        metrics.binary_report([], [])
    with pytest.raises(ValueError, match="weights"):
        metrics.auroc([0.1, 0.2], [0, 1], weights=[1.0, -1.0])


@pytest.mark.parametrize(
    ("proba", "labels", "expected"),
    [
        ([0.1, 0.2, 0.4, 0.9], [0, 0, 1, 1], 0.3),
        # 0.175 and 0.7 are right on three of four; 0.7 is nearer to 0.5.
        ([0.1, 0.25, 0.6, 0.8], [0, 1, 0, 1], 0.7),
        # All positive, all negative: the outer neighbours 0 and 1.
        ([0.4, 0.6], [1, 1], 0.2),
        ([0.4, 0.6], [0, 0], 0.8),
        # Nothing above 1, everything above -1.
        ([0.0, 1.0], [1, 1], -1.0),
        ([0.0, 1.0], [0, 0], 1.0),
        # Below 0.25 and above 0.75 are as right and as near: the lower.
        ([0.25, 0.75], [1, 0], 0.125),
    ],
)
def test_best_threshold_by_hand(proba, labels, expected):
    assert metrics.best_threshold(proba, labels) == pytest.approx(expected)


def test_best_threshold_is_the_best():
    threshold = metrics.best_threshold(PROBA, LABELS)
    grid = [-0.001, *np.arange(0.005, 1.01, 0.01)]
    accuracies = [((t < PROBA) == LABELS).mean() for t in grid]
    assert ((threshold < PROBA) == LABELS).mean() == max(accuracies)
    close = np.nextafter(0.3, 1)
    assert metrics.best_threshold([0.3, close], [0, 1]) == 0.3


def test_report_by_hand():
    proba = [0.9, 0.7, 0.6, 0.4, 0.3, 0.1]
    report = metrics.binary_report(proba, [1, 0, 1, 1, 0, 0], threshold=0.35)
    assert report["n"] == 6 and report["positives"] == 3
    assert report["confusion"] == {"tn": 2, "fp": 1, "fn": 0, "tp": 3}
    expected = {
        "auroc": 7 / 9,
        "average_precision": (1 + 2 / 3 + 3 / 4) / 3,
        "accuracy": 4 / 6,
        "threshold": 0.35,
        "threshold_accuracy": 5 / 6,
        "f1": 6 / 7,
        "precision": 3 / 4,
        "recall": 1.0,
    }
    for name, value in expected.items():
        assert report[name] == pytest.approx(value), name
    assert all(type(v) in (int, float, dict) for v in report.values())


def test_exactly_one_half_is_negative():
    report = metrics.binary_report([0.5, 0.5], [0, 1], bootstrap=0)
    assert report["confusion"] == {"tn": 1, "fp": 0, "fn": 1, "tp": 0}
    assert report["precision"] == report["f1"] == 0
    assert np.isnan(report["auroc_low"])


def test_one_class_has_no_area():
    report = metrics.binary_report([0.4, 0.9], [1, 1])
    for name in ("auroc", "auroc_low", "auroc_high", "average_precision"):
        assert np.isnan(report[name])
    assert report["accuracy"] == 0.5


@pytest.mark.parametrize("block", [10**6, 1000])
def test_interval_is_the_naive_bootstraps(monkeypatch, block):
    monkeypatch.setattr(reports, "_BLOCK", block)
    proba, labels = PROBA[:60], LABELS[:60]
    rng, areas = np.random.default_rng(7), []
    for _ in range(100):
        draw = rng.integers(0, 60, 60)
        areas.append(roc_auc_score(labels[draw], proba[draw]))
    report = metrics.binary_report(proba, labels, bootstrap=100, seed=7)
    low, high = np.percentile(areas, [2.5, 97.5])
    assert report["auroc_low"] == pytest.approx(low, rel=1e-12)
    assert report["auroc_high"] == pytest.approx(high, rel=1e-12)


def test_resamples_with_one_class_are_left_out():
    # 2 of 4 resamples of two examples have one class; the others are perfect.
    report = metrics.binary_report([0.1, 0.9], [0, 1])
    assert (report["auroc_low"], report["auroc_high"]) == (1.0, 1.0)


def test_constant_report():
    report = metrics.constant_report([0] * 5 + [1] * 3)
    assert report["auroc"] == report["auroc_low"] == report["auroc_high"] == 0.5
    assert report["accuracy"] == 0.625
    assert report["confusion"] == {"tn": 5, "fp": 0, "fn": 3, "tp": 0}
    assert report["average_precision"] == 3 / 8
    assert metrics.constant_report([0, 1, 1])["accuracy"] == pytest.approx(2 / 3)
    assert set(report) == set(metrics.binary_report(PROBA, LABELS))


def test_mean_std():
    mean, std = metrics.mean_std([1.0, 2.0, 6.0])
    assert (mean, std) == (3.0, pytest.approx(7**0.5))
    mean, std = metrics.mean_std([2.5])
    assert mean == 2.5 and np.isnan(std)
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        metrics.mean_std([])


def test_predictions_survive_the_file(tmp_path):
    path = tmp_path / "test.csv"
    proba = np.array([0.1, 0.5, np.nextafter(0.5, 1), 1 / 3], np.float64)
    metrics.write_predictions(path, ["01235", 42, "a,b", 7], proba=proba)
    ids, read, labels = metrics.read_predictions(path)
    assert ids == ["01235", "42", "a,b", "7"]
    np.testing.assert_array_equal(read, proba)
    np.testing.assert_array_equal(labels, [0, 0, 1, 0])
    metrics.write_predictions(path, [1], proba=np.float32([0.75]))
    assert path.read_text() == "id,proba,label\n1,0.75,1\n"


def test_prediction_errors(tmp_path):
    path = tmp_path / "test.csv"
    with pytest.raises(ValueError, match="1 ids and 2"):
        metrics.write_predictions(path, [1], proba=[0.1, 0.2])
    path.write_text("id,label\n1,0\n")
    with pytest.raises(ValueError, match="got columns"):
        metrics.read_predictions(path)


def test_collected_scores_come_back_in_order():
    # The last batch is filled up: once with padding, once with an example again.
    collected = metrics.Scores.empty()
    for index, weight in (([3, 0, 4], [1, 1, 1]), ([1, 3, 9], [1, 1, 0])):
        index = jnp.array(index)
        collected = collected.merge(
            metrics.Scores.from_model_output(
                logits=10.0 * index, weight=jnp.array(weight), index=index
            )
        )
    scores = metrics.by_index(collected.compute())
    np.testing.assert_array_equal(scores["index"], [0, 1, 3, 4])
    np.testing.assert_array_equal(scores["logits"], [0, 10, 30, 40])
