"""Linear and kernel heads against scikit-learn, float64 and each other."""

import jax
import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from memejax.models.feature_heads import (
    KernelFit,
    LinearHead,
    fit_kernel_logistic,
    summed_rbf,
)
from memejax.stages.parts.heads import closed
from memejax.stages.parts.heads.scaling import SCALINGS, scaled, statistics
from memejax.stages.parts.heads.training import Job, make_apply_fn


def data(n=90, seed=0):
    """Features whose product decides, beside a linear part; 70 to train on."""
    rng = np.random.default_rng(seed)
    columns = {
        "image": (3 + rng.normal(size=(n, 7))).astype(np.float32),
        "text": (5 * rng.normal(size=(n, 4))).astype(np.float32),
    }
    columns["image"][:, 2] = 4
    logit = columns["image"][:, 0] - 3 + 0.1 * columns["text"][:, 1]
    labels = (logit + 0.3 * rng.normal(size=n) > 0).astype(np.int32)
    return columns, labels, Job(0, np.arange(70), np.arange(70, n))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def blocks(columns, job, scaling):
    """Both features in float64, scaled by hand."""
    found = {}
    for name, rows in columns.items():
        x = rows.astype(np.float64)
        if scaling != "none":
            x = x - x[job.train].mean(axis=0)
        if scaling == "standard":
            std = x[job.train].std(axis=0)
            x = x / np.where(std > 0, std, np.inf)
        found[name] = unit(x) if scaling == "unit" else x
    return found


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling(scaling):
    columns, _, job = data()
    stats = statistics(columns, job.train, scaling=scaling)
    for name, expected in blocks(columns, job, scaling).items():
        got = scaled(columns[name], **stats[name]) if stats else columns[name]
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    # Nothing but the training memes counts.
    changed = {
        k: np.where(np.arange(90)[:, None] < 70, v, 99) for k, v in columns.items()
    }
    again = statistics(changed, job.train, scaling=scaling)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, again))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_linear_head_is_scikit_learn_s(scaling):
    """With both blocks of mean length 1, times the roots of their shares."""
    columns, labels, job = data()
    fitted = closed.fit_logistic(
        columns,
        labels,
        job,
        strengths=(2.0,),
        shares=(0.3,),
        balance=True,
        scaling=scaling,
    )
    parts = blocks(columns, job, scaling)
    for name, share in (("image", 0.3), ("text", 0.7)):
        length = np.sqrt((parts[name][job.train] ** 2).sum(axis=1).mean())
        parts[name] = np.sqrt(share) * parts[name] / length
    x = np.concatenate([parts["image"], parts["text"]], axis=1)
    model = LogisticRegression(C=2.0, class_weight="balanced", max_iter=5000, tol=1e-8)
    expected = model.fit(x[job.train], labels[job.train]).decision_function(x)
    np.testing.assert_allclose(fitted.logits["head"], expected, atol=2e-3)
    # The variables serve the same logits.
    (served, _), _ = make_apply_fn(LinearHead())(fitted.variables, columns, train=False)
    np.testing.assert_allclose(served, fitted.logits["head"], atol=2e-3)


def test_the_held_out_memes_choose_the_setting():
    columns, labels, job = data()
    options = dict(shares=(0.5, 0.9), balance=False, scaling="standard")
    fitted = closed.fit_logistic(
        columns, labels, job, strengths=(1e-4, 0.1, 10.0), **options
    )
    assert list(fitted.curve) == [1, 2, 3, 4, 5, 6]
    assert fitted.rating == max(fitted.curve.values()) == fitted.curve[fitted.step]
    flipped = labels.copy()
    flipped[job.held_out] = 1 - flipped[job.held_out]
    other = closed.fit_logistic(
        columns, flipped, job, strengths=(1e-4, 0.1, 10.0), **options
    )
    assert other.rating == pytest.approx(1 - min(fitted.curve.values()))
    with pytest.raises(ValueError, match="got no strengths"):
        closed.fit_logistic(columns, labels, job, strengths=(), **options)


def test_kernel_regression_is_linear_regression_in_its_features():
    """With K = L L^T it is logistic regression on the rows of L, C = 1 / penalty."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3))
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1)) + 1e-9 * np.eye(40)
    labels = (x[:, 0] * x[:, 1] + 0.3 * rng.normal(size=40) > 0).astype(int)
    for penalty in (0.1, 1.0):
        fit = fit_kernel_logistic(kernel, labels, penalty=penalty)
        model = LogisticRegression(C=1 / penalty, max_iter=10_000, tol=1e-10)
        rows = np.linalg.cholesky(kernel)
        expected = model.fit(rows, labels).decision_function(rows)
        np.testing.assert_allclose(kernel @ fit.alpha + fit.bias, expected, atol=1e-4)
        # The optimum's own conditions: alpha = (y - p) / penalty, whose sum is 0.
        p = special.expit(kernel @ fit.alpha + fit.bias)
        np.testing.assert_allclose(fit.alpha, (labels - p) / penalty, atol=1e-5)
        assert abs(fit.alpha.sum()) < 1e-8
    warm = fit_kernel_logistic(
        kernel, labels, penalty=1.0, start=KernelFit(10 * fit.alpha, 3.0)
    )
    np.testing.assert_allclose(warm.alpha, fit.alpha, atol=1e-6)


def test_kernels_that_are_refused():
    labels = np.array([0, 1, 1])
    bad = np.array([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="not positive semidefinite"):
        fit_kernel_logistic(bad, labels, penalty=1e-6)
    # Separable, and hardly penalised: the log odds grow without end.
    with pytest.raises(ValueError, match="has not converged after 50 steps"):
        fit_kernel_logistic(np.eye(3), labels, penalty=1e-300)


def test_the_summed_kernel_by_hand():
    rng = np.random.default_rng(2)
    image, text = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(5, 3)))
    got = summed_rbf(
        *(x.astype(np.float32)[:2] for x in (image, text)),
        image_nd=image.astype(np.float32),
        text_nd=text.astype(np.float32),
        gamma=4.0,
        image_share=0.3,
    )
    expected = np.zeros((2, 5))
    for i in range(2):
        for j in range(5):
            one = ((image[i] - image[j]) ** 2).sum() / 2
            two = ((text[i] - text[j]) ** 2).sum() / 2
            expected[i, j] = 0.3 * np.exp(-4 * one) + 0.7 * np.exp(-4 * two)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(np.diag(got[:, :2]), 1, rtol=1e-6)


def test_the_kernel_head_serves_what_it_was_chosen_for():
    columns, labels, job = data()
    fitted = closed.fit_kernel(
        columns, labels, job, gammas=(1.0, 4.0), penalties=(1.0, 0.1), shares=(0.4,)
    )
    assert list(fitted.curve) == [1, 2, 3, 4]
    assert fitted.rating == max(fitted.curve.values()) == fitted.curve[fitted.step]
    parts = blocks(columns, job, "unit")
    gamma, penalty = [(1, 1), (1, 0.1), (4, 1), (4, 0.1)][fitted.step - 1]
    kernel = 0.4 * np.exp(-gamma * (1 - parts["image"] @ parts["image"].T))
    kernel += 0.6 * np.exp(-gamma * (1 - parts["text"] @ parts["text"].T))
    fit = fit_kernel_logistic(kernel[:70, :70], labels[:70], penalty=penalty)
    expected = kernel[:, :70] @ fit.alpha + fit.bias
    np.testing.assert_allclose(fitted.logits["head"], expected, atol=1e-3)
    served = jax.jit(closed.kernel_scores)(fitted.variables, columns)
    np.testing.assert_allclose(served, expected, atol=1e-3)


def test_too_many_memes_for_a_kernel(monkeypatch):
    columns, labels, job = data()
    monkeypatch.setattr(closed, "LARGEST", 69)
    with pytest.raises(ValueError, match="all pairs of the 70 training memes, at most"):
        closed.fit_kernel(
            columns, labels, job, gammas=(1.0,), penalties=(1.0,), shares=(0.4,)
        )
