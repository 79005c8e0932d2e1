"""Attributions as pure functions: integrated gradients, words, regions, modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax import explain
from memejax.explain.nearest import unit_rows
from memejax.explain.overlay import NEGATIVE, POSITIVE, overlay
from memejax.explain.words import without_span

rng = np.random.default_rng(0)


# --- integrated gradients


def test_a_linear_score_is_exact_in_one_step():
    weights = jnp.array([2.0, -3.0, 0.5])
    found = explain.integrated_gradients(
        lambda x: x @ weights,
        jnp.array([1.0, 1.0, 4.0]),
        baseline=jnp.array([0.0, 2.0, 0.0]),
        steps=1,
    )
    np.testing.assert_allclose(found.values, [2.0, 3.0, 2.0])
    assert found.total == 7.0 and found.gap == 0
    assert (found.score, found.baseline_score) == (1.0, -6.0)


def test_a_quadratic_score_by_hand():
    """Its gradient is linear, so the midpoint is exact: (x - x') (x + x')."""
    found = explain.integrated_gradients(
        lambda x: (x**2).sum(1), jnp.array([3.0, 1.0]), baseline=jnp.array([1.0, 2.0])
    )
    np.testing.assert_allclose(found.values, [8.0, -3.0], rtol=1e-6)


def test_a_cubic_score_by_the_midpoint_rule():
    def by(steps):
        return explain.integrated_gradients(
            lambda x: x[:, 0] ** 3, jnp.ones(1), baseline=jnp.zeros(1), steps=steps
        )

    # 3/n sum ((k - 1/2) / n)^2 = 1 - 1 / (4 n^2).
    np.testing.assert_allclose(by(1).values, [0.75], rtol=1e-6)
    np.testing.assert_allclose(by(2).values, [1 - 1 / 16], rtol=1e-6)
    np.testing.assert_allclose(by(2).gap, 1 / 16, rtol=1e-5)


def network(key):
    one, two = jax.random.split(key)
    inner = jax.random.normal(one, (6, 16))
    outer = jax.random.normal(two, (16,))
    return lambda x: jax.nn.gelu(x.reshape(len(x), -1) @ inner) @ outer


def test_completeness_of_a_network():
    score = network(jax.random.key(1))
    x, base = rng.normal(size=(2, 2, 3)).astype(np.float32)
    rough, fine = (
        explain.integrated_gradients(
            score, jnp.asarray(x), baseline=jnp.asarray(base), steps=steps
        )
        for steps in (2, 128)
    )
    assert fine.gap < 0.01 and fine.gap < rough.gap
    np.testing.assert_allclose(fine.score, score(x[None])[0], rtol=1e-5)
    np.testing.assert_allclose(fine.baseline_score, score(base[None])[0], rtol=1e-5)


def test_batches_and_trees_change_nothing():
    score = network(jax.random.key(2))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    whole = explain.integrated_gradients(
        score, jnp.asarray(x), baseline=jnp.zeros((2, 3)), steps=12
    )
    parts = jax.jit(
        lambda tree: explain.integrated_gradients(
            lambda t: score(jnp.stack([t["a"], t["b"]], 1)),
            tree,
            baseline={"a": jnp.zeros(3), "b": jnp.zeros(3)},
            steps=12,
            batch=4,
        )
    )({"a": x[0], "b": x[1]})
    np.testing.assert_allclose(parts.values["a"], whole.values[0], rtol=1e-4)
    np.testing.assert_allclose(parts.values["b"], whole.values[1], rtol=1e-4)
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-4)


def test_refusals_of_integrated_gradients():
    with pytest.raises(ValueError, match="expected a divisor of 5"):
        explain.integrated_gradients(
            jnp.sum, jnp.zeros(2), baseline=jnp.zeros(2), steps=5, batch=2
        )
    with pytest.raises(ValueError, match="got a baseline of shapes"):
        explain.integrated_gradients(jnp.sum, jnp.zeros(2), baseline=jnp.zeros(3))


# --- words


def test_word_sums_by_hand():
    values = jnp.array([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0], [5.0, -6.0]])
    members = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_allclose(explain.word_sums(values, members), [10.0, -1.0, 0.0])
    with pytest.raises(ValueError, match="got values"):
        explain.word_sums(values, members[:, :2])


@pytest.mark.parametrize(
    ("caption", "span", "rest"),
    [
        ("bad word here", (0, 3), "word here"),
        ("a bad word", (2, 5), "a word"),
        ("the last", (4, 8), "the "),
        ("one", (0, 3), ""),
        ("中文字", (1, 2), "中字"),
    ],
)
def test_without_span(caption, span, rest):
    assert without_span(caption, span) == rest


def test_leave_one_out_by_hand():
    worth = {"good": -2.0, "bad": 3.0, "meme": 0.0}

    def score(texts):
        # "bad" counts twice beside "meme": what is left out depends on the rest.
        return np.array(
            [
                sum(worth[w] for w in text.split())
                + (3.0 if {"bad", "meme"} <= set(text.split()) else 0.0)
                for text in texts
            ]
        )

    found = explain.leave_one_out(
        score, "good bad meme", spans=[(0, 4), (5, 8), (9, 13)]
    )
    np.testing.assert_allclose(found, [-2.0, 6.0, 3.0])
    none = explain.leave_one_out(score, "", spans=[])
    assert none.shape == (0,)


# --- regions


def naive_occlusion(score, picture, filling, window, stride):
    """Square by square, in numpy."""
    cells = picture.shape[0] // stride
    side = window // stride
    total, count = np.zeros((cells, cells)), np.zeros((cells, cells))
    for top in range(1 - side, cells):
        for left in range(1 - side, cells):
            rows = slice(max(top, 0), min(top + side, cells))
            columns = slice(max(left, 0), min(left + side, cells))
            covered = picture.copy()
            area = (
                slice(rows.start * stride, rows.stop * stride),
                slice(columns.start * stride, columns.stop * stride),
            )
            covered[area] = filling[area]
            total[rows, columns] += score(picture) - score(covered)
            count[rows, columns] += 1
    return total / count


@pytest.mark.parametrize(("window", "batch"), [(2, 32), (4, 5), (6, 7)])
def test_occlusion_agrees_with_a_naive_version(window, batch):
    picture = rng.random((8, 8, 3)).astype(np.float32)
    filling = np.full_like(picture, 0.5)
    weights = rng.normal(size=(8, 8, 3)).astype(np.float32)
    found = jax.jit(
        lambda x: explain.occlusion(
            lambda p: jnp.tanh((p * weights[None]).sum((1, 2, 3))),
            x,
            filling_hwc=filling,
            window=window,
            stride=2,
            batch=batch,
        )
    )(picture)
    expected = naive_occlusion(
        lambda p: np.tanh((p * weights).sum()), picture, filling, window, 2
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_smoothed_is_the_occlusion_of_a_sum():
    values = rng.normal(size=(4, 4)).astype(np.float32)
    ones = jnp.ones((4, 4, 1))
    for side in (1, 2, 3):
        covered = explain.occlusion(
            lambda p: (p[..., 0] * values[None]).sum((1, 2)),
            ones,
            filling_hwc=jnp.zeros((4, 4, 1)),
            window=side,
            stride=1,
        )
        np.testing.assert_allclose(explain.smoothed(values, side), covered, atol=1e-5)
    np.testing.assert_allclose(explain.smoothed(values, 1), values, rtol=1e-6)


def test_patch_sums_by_hand():
    values = np.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_array_equal(
        explain.patch_sums(values, 2), [[0 + 1 + 4 + 5, 18], [42, 50]]
    )
    with pytest.raises(ValueError, match="expected a divisor"):
        explain.patch_sums(values, 3)


def test_blurred_keeps_constants_and_spreads_a_point():
    flat = np.full((6, 5, 2), 0.25, np.float32)
    np.testing.assert_allclose(explain.blurred(flat, 2.0), flat, rtol=1e-6)
    point = np.zeros((9, 9, 1), np.float32)
    point[4, 4] = 1
    spread = np.asarray(explain.blurred(point, 1.0))[..., 0]
    ratio = spread[4, 5] / spread[4, 4]
    np.testing.assert_allclose(ratio, np.exp(-0.5), rtol=1e-5)
    np.testing.assert_allclose(spread, spread.T, atol=1e-7)


def test_refusals_of_regions():
    picture = np.zeros((8, 8, 3))
    for window, stride in ((3, 2), (4, 3), (2, 4)):
        with pytest.raises(ValueError, match="expected a stride that divides"):
            explain.occlusion(
                lambda p: p.sum((1, 2, 3)),
                picture,
                filling_hwc=picture,
                window=window,
                stride=stride,
            )


# --- modalities


def test_an_additive_score_has_no_interaction():
    f, g = rng.normal(size=5), rng.normal(size=7)
    found = explain.modalities(f[:, None] + g[None])
    np.testing.assert_allclose(found.interaction, 0, atol=1e-6)
    for part, values in ((found.picture, f), (found.caption, g)):
        alone = values[0] - values[1:].mean()
        np.testing.assert_allclose(part - found.neither, alone, rtol=1e-5)


def test_a_product_is_all_interaction():
    f, g = rng.normal(size=5), rng.normal(size=7)
    f[1:] -= f[1:].mean()
    g[1:] -= g[1:].mean()
    found = explain.modalities(f[:, None] * g[None])
    np.testing.assert_allclose(found.interaction, f[0] * g[0], rtol=1e-5)
    np.testing.assert_allclose(found.picture, 0, atol=1e-6)
    with pytest.raises(ValueError, match="at least one reference"):
        explain.modalities(np.zeros((1, 3)))


# --- neighbours


def test_nearest_agrees_with_numpy():
    store = rng.normal(size=(200, 16)).astype(np.float32)
    own = rng.normal(size=(5, 16)).astype(np.float32)
    rows, cosines = explain.nearest(own, store, k=7)
    expected = (own / np.linalg.norm(own, axis=1, keepdims=True)) @ (
        store / np.linalg.norm(store, axis=1, keepdims=True)
    ).T
    order = np.argsort(-expected, axis=1)[:, :7]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(
        cosines, np.take_along_axis(expected, order, 1), rtol=1e-5
    )


def test_ties_self_and_zeros():
    store = np.array([[0, 1], [2, 0], [1, 0], [0, 0], [-1, 0]], np.float32)
    rows, cosines = explain.nearest(store[1:2], store, k=3)
    np.testing.assert_array_equal(rows, [[1, 2, 0]])
    np.testing.assert_allclose(cosines, [[1, 1, 0]], atol=1e-7)
    alone = np.arange(5) != 1
    rows, _ = explain.nearest(store[1:2], store, k=1, where=alone)
    np.testing.assert_array_equal(rows, [[2]])
    _, cosines = explain.nearest(store[1:2], store, k=2, where=np.arange(5) == 4)
    np.testing.assert_array_equal(cosines, [[-1, -np.inf]])
    np.testing.assert_array_equal(unit_rows(store)[3], [0, 0])
    for k in (0, 6):
        with pytest.raises(ValueError, match="expected 1 to 5"):
            explain.nearest(store[:1], store, k=k)
    with pytest.raises(ValueError, match="expected"):
        explain.nearest(np.zeros((1, 3)), store, k=1)


# --- overlay


def test_overlay_by_hand():
    picture = np.full((2, 2, 3), 100, np.uint8)
    drawn = overlay(picture, [[1.0, 0.0], [-0.5, 0.0]], side=4)
    assert drawn.shape == (4, 4, 3) and drawn.dtype == np.uint8
    expected = np.round(0.2 * 100 + 0.8 * np.array(POSITIVE))
    np.testing.assert_array_equal(drawn[0, 1], expected)
    np.testing.assert_array_equal(drawn[1, 2], [100, 100, 100])
    expected = np.round(0.6 * 100 + 0.4 * np.array(NEGATIVE))
    np.testing.assert_array_equal(drawn[3, 0], expected)
    np.testing.assert_array_equal(overlay(picture, [[0.0]], side=2), picture)
    with pytest.raises(ValueError, match="finite"):
        overlay(picture, [[np.nan]])
    with pytest.raises(ValueError, match="expected uint8"):
        overlay(picture / 1.0, [[0.0]])
