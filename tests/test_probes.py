import warnings

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from memejax.metrics import probes

RNG = np.random.default_rng(3)


def clusters(n, *, classes=3, d=6, spread=0.1, seed=0):
    """Embeddings around orthogonal directions, each of another length."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    directions = np.eye(classes, d) + spread * rng.normal(size=(classes, d))
    noise = spread * rng.normal(size=(n, d))
    return (directions[labels] + noise) * rng.uniform(0.5, 20, (n, 1)), labels


def naive_knn(train, labels, test, *, classes, k, temperature):
    scores = np.zeros((len(test), classes))
    for row, x in enumerate(test):
        cosine = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        for i in sorted(range(len(train)), key=lambda i: -cosine[i])[:k]:
            scores[row, labels[i]] += np.exp(cosine[i] / temperature)
    return scores / scores.sum(1, keepdims=True)


def test_knn_by_hand():
    # Cosines to (1, 0): 1, 0.8, 0 and -1; of the first three, e^10 and e^0 for
    # class 0, e^8 for class 1.
    train = [[2.0, 0.0], [0.8, 0.6], [0.0, 5.0], [-1.0, 0.0]]
    got = probes.knn(
        train, [0, 1, 0, 1], test=[[3.0, 0.0]], classes=3, k=3, temperature=0.1
    )
    zero, one = np.exp(10) + 1, np.exp(8)
    np.testing.assert_allclose(got, [[zero, one, 0] / (zero + one)], rtol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_agrees_with_a_naive_one_and_with_sklearn(k, temperature):
    train, test = RNG.normal(size=(40, 5)), RNG.normal(size=(23, 5))
    labels = RNG.integers(0, 4, 40)
    labels[:4] = range(4)
    got = probes.knn(
        train, labels, test=test, classes=4, k=k, temperature=temperature, chunk=10
    )
    assert got.shape == (23, 4) and got.dtype == np.float32
    args = dict(classes=4, k=k, temperature=temperature)
    np.testing.assert_allclose(
        got, naive_knn(train, labels, test, **args), rtol=1e-4, atol=1e-6
    )
    other = KNeighborsClassifier(
        k, metric="cosine", weights=lambda far: np.exp((1 - far) / temperature)
    )
    expected = other.fit(train, labels).predict_proba(test)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_knn_looks_at_directions_only_and_not_at_the_chunk():
    train, labels = clusters(30, spread=0.5)
    test, _ = clusters(17, spread=0.5, seed=1)
    expected = probes.knn(train, labels, test=test, classes=3, k=5)
    # Sums of another order differ in the last digits.
    scales = RNG.uniform(0.1, 10, (30, 1))
    for changed in (
        probes.knn(train * scales, labels, test=test * 1e-3, classes=3, k=5),
        probes.knn(train, labels, test=test * 1e200, classes=3, k=5),
        probes.knn(train, labels, test=test, classes=3, k=5, chunk=1),
        probes.knn(train, labels, test=test, classes=3, k=5, chunk=16),
    ):
        np.testing.assert_allclose(changed, expected, rtol=1e-4)
    order = RNG.permutation(30)
    shuffled = probes.knn(train[order], labels[order], test=test, classes=3, k=5)
    np.testing.assert_allclose(shuffled, expected, rtol=1e-4)
    # exp(1 / T) overflows float32 where T is 0.01.
    cold = probes.knn(train, labels, test=test, classes=3, k=5, temperature=0.01)
    np.testing.assert_allclose(cold.sum(1), 1.0, rtol=1e-5)


def test_knn_of_a_collapsed_encoder_votes_by_the_first():
    same = np.ones((6, 4))
    got = probes.knn(same, [0, 0, 1, 1, 1, 1], test=same[:2], classes=2, k=4)
    np.testing.assert_allclose(got, 0.5, rtol=1e-6)
    # Zero embeddings have no direction, and no NaN.
    got = probes.knn(0 * same, [0, 1, 1, 1, 1, 1], test=same, classes=2, k=6)
    np.testing.assert_allclose(got, [[1 / 6, 5 / 6]] * 6, rtol=1e-5)


@pytest.mark.parametrize("probe", [probes.knn, probes.linear_probe])
def test_probes_are_perfect_on_clusters_and_at_chance_on_noise(probe):
    train, labels = clusters(90)
    test, truth = clusters(60)
    scores = probe(train, labels, test=test, classes=3)
    assert probes.accuracy(scores, truth) == 1.0
    np.testing.assert_allclose(scores.sum(1), 1.0, rtol=1e-5)
    noise = RNG.normal(size=(600, 4))
    labels, truth = np.arange(300) % 2, np.arange(300) % 2
    scores = probe(noise[:300], labels, test=noise[300:], classes=2)
    figures = probes.report(scores, truth)
    # Of 300 coins, all but one in 10^4 give 0.5 +- 0.115.
    assert abs(figures["accuracy"] - 0.5) < 0.115
    assert abs(figures["auroc"] - 0.5) < 0.13


def test_linear_probe_reads_what_lies_along_a_line_whatever_its_scale():
    # The class is in one direction of ten, a thousand times smaller than the others.
    x = RNG.normal(size=(400, 10)) * [1e-3] + 0.0
    x[:, 1:] *= 1e3
    y = (x[:, 0] > 0).astype(int)
    scores = probes.linear_probe(x[:300], y[:300], test=x[300:], classes=2)
    assert probes.accuracy(scores, y[300:]) > 0.93
    # Affine changes of a feature are undone by the standardisation.
    moved = probes.linear_probe(
        5 * x[:300] + 2, y[:300], test=5 * x[300:] + 2, classes=2
    )
    np.testing.assert_allclose(moved, scores, atol=1e-3)
    again = probes.linear_probe(x[:300], y[:300], test=x[300:], classes=2)
    np.testing.assert_array_equal(again, scores)


def test_linear_probe_is_careful_with_noise():
    """The penalty is chosen: on noise the probabilities stay near the prior."""
    x, y = RNG.normal(size=(150, 100)), np.arange(150) % 2
    scores = probes.linear_probe(x, y, test=RNG.normal(size=(50, 100)), classes=2)
    assert np.abs(scores - 0.5).max() < 0.2


def test_linear_probe_of_few_examples_and_of_absent_classes():
    train, test = [[0.0, 1.0], [1.0, 0.0], [0.1, 1.0]], [[0.0, 0.9], [0.9, 0.0]]
    scores = probes.linear_probe(train, [1, 3, 1], test=test, classes=5)
    assert scores.shape == (2, 5) and scores.argmax(1).tolist() == [1, 3]
    np.testing.assert_array_equal(scores[:, [0, 2, 4]], 0.0)
    # A collapsed encoder leaves the prior.
    same = np.ones((30, 4))
    scores = probes.linear_probe(same, np.arange(30) % 3 // 2, test=same, classes=2)
    np.testing.assert_allclose(scores, [[2 / 3, 1 / 3]] * 30, atol=1e-4)


def test_report():
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 0])
    figures = probes.report(scores, labels)
    # Of the pairs (positive, negative) two of four are in order.
    assert figures == {"accuracy": 0.5, "auroc": 0.5}
    assert figures["auroc"] == roc_auc_score(labels, scores[:, 1])
    assert probes.report(np.eye(3), [0, 1, 0]) == {"accuracy": pytest.approx(2 / 3)}
    assert np.isnan(probes.report(scores, [1, 1, 1, 1])["auroc"])


def test_the_map_keeps_clusters_apart_and_repeats():
    x, labels = clusters(60, d=80)
    points, index = probes.embedding_map(x, seed=1)
    assert points.shape == (60, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(index, np.arange(60))
    centres = np.stack([points[labels == c].mean(0) for c in range(3)])
    far = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    np.testing.assert_array_equal(far.argmin(1), labels)
    again, _ = probes.embedding_map(x, seed=1)
    np.testing.assert_array_equal(again, points)


def test_the_map_draws_where_there_are_many():
    x, _ = clusters(50)
    points, index = probes.embedding_map(x, limit=12, seed=5)
    assert points.shape == (12, 2) and len(set(index.tolist())) == 12
    assert (np.diff(index) > 0).all() and index[-1] < 50
    _, other = probes.embedding_map(x, limit=12, seed=6)
    assert other.tolist() != index.tolist()
    only, _ = probes.embedding_map(x[index], seed=5)
    assert only.shape == points.shape


@pytest.mark.parametrize("shape", [(4, 1), (4, 30), (9, 2)])
def test_the_map_of_few_or_of_equal_embeddings_is_finite(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (RNG.normal(size=shape), np.full(shape, 0.1)):
            points, _ = probes.embedding_map(x)
            assert points.shape == (shape[0], 2) and np.isfinite(points).all()


def test_jax_arrays_of_any_float_dtype_are_taken():
    train, labels = clusters(30)
    low = jax.numpy.asarray(train, jax.numpy.bfloat16)
    scores = probes.knn(low, jax.numpy.asarray(labels), test=low, classes=3, k=3)
    assert probes.accuracy(scores, labels) == 1.0


X, Y = np.eye(4), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: probes.knn(X, Y, test=X, classes=2, k=5), "k = 5, expected from 1 to"),
        (lambda: probes.knn(X, Y, test=X, classes=2, k=0), "got k = 0"),
        (lambda: probes.knn(X, Y, test=X, classes=2, k=1, temperature=0), "got temp"),
        (lambda: probes.knn(X, Y, test=X[:, :3], classes=2, k=1), "of the same d"),
        (lambda: probes.knn(X, Y[:3], test=X, classes=2, k=1), r"expected ints \[4\]"),
        (lambda: probes.knn(X, Y + 1, test=X, classes=2, k=1), "from 1 to 2, expected"),
        (lambda: probes.knn(X, Y / 2, test=X, classes=2, k=1), "got labels float64"),
        (lambda: probes.knn(X * np.nan, Y, test=X, classes=2, k=1), "4 rows of train"),
        (lambda: probes.knn(X, Y, test=X[:0], classes=2, k=1), "both at least 1"),
        (lambda: probes.linear_probe(X, 0 * Y, test=X, classes=2), r"one class, \[0\]"),
        (lambda: probes.accuracy(X, Y[:2]), r"expected ints \[4\]"),
        (lambda: probes.accuracy(X[:0], Y[:0]), "n >= 1"),
        (lambda: probes.embedding_map(X[:3]), "got 3 embeddings and a limit of 2000"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
