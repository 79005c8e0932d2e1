import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import rgcl_contrastive, rgcl_hinge, weighted_mean

RNG = np.random.default_rng(1)
G, P, H = RNG.normal(size=(3, 8, 5))
LABELS = np.array([0, 1, 0, 0, 1, 0, 1, 0])
HAS_P = np.array([1, 1, 1, 0, 1, 1, 0, 1], bool)
HAS_H = np.array([1, 0, 1, 1, 1, 1, 0, 1], bool)
WHERE = np.array([1, 1, 1, 1, 0, 1, 1, 0], bool)
LOSSES = {"hinge": rgcl_hinge, "contrastive": rgcl_contrastive}


def cosine(a, b):
    return np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))


def reference(kind, g, labels, p, h, has_p, has_h, where, knob):
    """Either loss in float64, one example and one pair at a time."""
    losses = []
    for i in range(len(g)):
        others = [
            cosine(g[i], g[j])
            for j in range(len(g))
            if where[j] and labels[j] != labels[i]
        ]
        hard = [cosine(g[i], h[i])] if has_h[i] else []
        if not where[i]:
            losses.append(0.0)
        elif kind == "hinge":
            near = cosine(g[i], p[i]) if has_p[i] else 0.0
            mean = sum(others) / len(others) if others else 0.0
            losses.append(max(0.0, mean + sum(hard) - near + knob))
        elif not has_p[i]:
            losses.append(0.0)
        else:
            near = np.exp(cosine(g[i], p[i]) / knob)
            far = sum(np.exp(c / knob) for c in hard + others)
            losses.append(-np.log(near / (near + far)))
    return np.array(losses)


def knob(kind, value):
    return {"margin" if kind == "hinge" else "temperature": value}


def slope(function, x, step=1e-6):
    """The gradient of a float64 function by central differences."""
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = [np.array(x), np.array(x)]
        moved[0][place] += step
        moved[1][place] -= step
        out[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return out


def close(got, expected, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * scale)


def test_hinge_golden():
    # Labels 1, 1, 0 at 0, 90 and 60 degrees; all positives at 180, negatives at 60.
    g = jnp.array([[3.0, 0.0], [0.0, 2.0], [0.5, 0.75**0.5]])
    p = jnp.array([[-1.0, 0.0]] * 3)
    h = jnp.array([[1.0, 3.0**0.5]] * 3)
    got = rgcl_hinge(g, jnp.array([1, 1, 0]), positives=p, negatives=h)
    # cos with the batch's others, with h, with p: 1/2 + 1/2 + 1 + m;
    # r + r - 0 + m with r = sqrt 3 / 2; (1/2 + r) / 2 + 1 + 1/2 + m.
    r = 0.75**0.5
    expected = [2.1, 2 * r + 0.1, (0.5 + r) / 2 + 1.6]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    # A positive at the example's own place, a negative opposite: nothing to pay.
    got = rgcl_hinge(g, jnp.array([1, 1, 1]), positives=g, negatives=-g)
    np.testing.assert_array_equal(got, [0.0, 0.0, 0.0])


def test_contrastive_golden():
    g = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    got = rgcl_contrastive(
        g,
        jnp.array([0, 1]),
        positives=g,
        negatives=-g,
        where_negative=jnp.array([True, False]),
        temperature=0.5,
    )
    # Logits of 2 and -2, 0; the second has no hard negative.
    expected = np.log([1 + np.exp(-4) + np.exp(-2), 1 + np.exp(-2)])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("value", [0.1, 0.7])
def test_value_and_gradients_agree_with_float64(kind, value):
    masks = dict(where_positive=HAS_P, where_negative=HAS_H, where=WHERE)

    def loss(g, p, h):
        given = dict(positives=p, negatives=h) | masks | knob(kind, value)
        losses = LOSSES[kind](g, LABELS, **given)
        return losses.sum(), losses

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    spoilt = [
        np.where(kept[:, None], x, np.nan)
        for x, kept in ((G, WHERE), (P, HAS_P & WHERE), (H, HAS_H & WHERE))
    ]
    got, losses = gradient(*spoilt)
    arrays = [G, P, H]
    expected = reference(kind, G, LABELS, P, H, HAS_P, HAS_H, WHERE, value)
    assert np.count_nonzero(expected) >= 2
    close(losses, expected)
    for i in range(3):

        def total(x, i=i):
            g, p, h = [x if i == j else y for j, y in enumerate(arrays)]
            return reference(kind, g, LABELS, p, h, HAS_P, HAS_H, WHERE, value).sum()

        close(got[i], slope(total, arrays[i]), 2e-5)
        assert np.abs(got[i]).max() > 0.01


@pytest.mark.parametrize("kind", LOSSES)
def test_without_masks_and_with_one_class(kind):
    everything = np.ones(8, bool)
    loss = jax.jit(functools.partial(LOSSES[kind], **knob(kind, 0.3)))
    for labels in (LABELS, np.zeros(8, int), np.arange(8)):
        expected = reference(
            kind, G, labels, P, H, everything, everything, everything, 0.3
        )
        close(loss(G, labels, positives=P, negatives=H), expected)
    # Neither a negative in the batch nor a hard one.
    nothing = np.zeros(8, bool)
    alone = loss(G, np.zeros(8, int), positives=P, negatives=H, where_negative=nothing)
    expected = reference(
        kind, G, np.zeros(8, int), P, H, everything, nothing, everything, 0.3
    )
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_scale_and_order_do_not_matter(kind):
    scales = RNG.uniform(0.01, 100, (3, 8, 1))
    order = RNG.permutation(8)
    g, p, h = (np.array([G, P, H]) * scales)[:, order]
    got = LOSSES[kind](
        g,
        LABELS[order],
        positives=p,
        negatives=h,
        where_negative=HAS_H[order],
        **knob(kind, 0.2),
    )
    every = np.ones(8, bool)
    expected = reference(kind, G, LABELS, P, H, every, HAS_H, every, 0.2)
    close(got, expected[order])


@pytest.mark.parametrize("kind", LOSSES)
def test_zero_vectors_have_no_gradient(kind):
    zeros = np.arange(8) % 3 == 0
    g = np.where(zeros[:, None], 0.0, G)

    def loss(g, p):
        return LOSSES[kind](
            g, LABELS, positives=p, negatives=H, **knob(kind, 0.9)
        ).sum()

    value, (to_g, to_p) = jax.jit(jax.value_and_grad(loss, (0, 1)))(g, g)
    assert np.isfinite(value)
    assert not np.any(to_g[zeros]) and not np.any(to_p[zeros])
    assert np.isfinite(to_g).all() and np.abs(to_g[~zeros]).max() > 0.01


@pytest.mark.parametrize("kind", LOSSES)
def test_an_unknown_label_that_counts_is_nan(kind):
    labels = np.where(np.arange(8) == 2, -1, LABELS)
    loss = functools.partial(LOSSES[kind], G, labels, positives=P, negatives=H)
    np.testing.assert_array_equal(np.isnan(loss()), np.arange(8) == 2)
    assert np.isfinite(loss(where=labels >= 0)).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_a_split_batch_has_the_negatives_of_all(kind):
    split = [x.reshape(4, 2, *x.shape[1:]) for x in (G, LABELS, P, H, HAS_H, WHERE)]

    def loss(g, labels, p, h, has_h, where, axis_name=None):
        losses = LOSSES[kind](
            g,
            labels,
            positives=p,
            negatives=h,
            where_negative=has_h,
            where=where,
            axis_name=axis_name,
            **knob(kind, 0.4),
        )
        weight = where.astype(np.float32)
        return weighted_mean(losses, weight, axis_name=axis_name), losses

    @jax.jit
    @functools.partial(jax.vmap, axis_name="devices")
    def sharded(*arrays):
        whole = functools.partial(loss, axis_name="devices")
        return jax.value_and_grad(whole, has_aux=True)(*arrays)

    (mean, losses), gradient = sharded(*split)
    every = np.ones(8, bool)

    def expected(g):
        return reference(kind, g, LABELS, P, H, every, HAS_H, WHERE, 0.4)

    close(losses.reshape(8), expected(G))
    np.testing.assert_allclose(mean, np.full(4, expected(G)[WHERE].mean()), rtol=1e-5)
    # As everywhere under a mapped axis: pmean turns the gradients into the global one.
    by_hand = slope(lambda g: expected(g)[WHERE].mean(), G)
    close(gradient.reshape(8, 5) / 4, by_hand, 2e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_large_logits_stay_finite(kind):
    loss = functools.partial(LOSSES[kind], positives=-G, negatives=G)
    sharp = dict(margin=5e3) if kind == "hinge" else dict(temperature=1e-3)
    value, gradient = jax.value_and_grad(lambda g: loss(g, LABELS, **sharp).sum())(
        G.astype(np.float32)
    )
    assert 8e3 < value < 1e5 and np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_errors(kind):
    loss = LOSSES[kind]
    with pytest.raises(ValueError, match=r"embeddings of shape \(8,\), expected \[n"):
        loss(G[:, 0], LABELS, positives=P, negatives=H)
    with pytest.raises(ValueError, match=r"labels float\d+\[8\], expected integers"):
        loss(G, LABELS.astype(float), positives=P, negatives=H)
    with pytest.raises(ValueError, match=r"positives of shape \(7, 5\), expected"):
        loss(G, LABELS, positives=P[:7], negatives=H)
    with pytest.raises(ValueError, match=r"negatives of shape \(8, 4\)"):
        loss(G, LABELS, positives=P, negatives=H[:, :4])
    with pytest.raises(ValueError, match=r"where of shape \(3,\), expected \(8,\)"):
        loss(G, LABELS, positives=P, negatives=H, where_positive=HAS_P[:3])
    with pytest.raises(ValueError, match="margin -1|temperature -1"):
        loss(G, LABELS, positives=P, negatives=H, **knob(kind, -1))
