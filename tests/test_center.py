"""DINO's centre: by hand, under a mask, in parts, over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import dino, sum_teacher, update_center, update_center_from_sums

V, B, K = 3, 8, 5
WHERE = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    center, teacher = rng.normal(size=K), rng.normal(size=(V, B, K))
    return center.astype(np.float32), teacher.astype(np.float32)


def by_float64(center, teacher, momentum, where):
    rows = [row for view in np.asarray(teacher, np.float64) for row in view[where]]
    return momentum * np.asarray(center, np.float64) + (1 - momentum) * np.mean(
        rows, axis=0
    )


def close(got, expected, rtol=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=rtol * np.abs(expected).max()
    )


def test_by_hand():
    # Two views of two examples: the mean is (3, 1); a quarter of it, 3/4 of (1, -1).
    teacher = np.array([[[2.0, 0.0], [4.0, 0.0]], [[6.0, 4.0], [0.0, 0.0]]])
    update = jax.jit(functools.partial(update_center, momentum=0.75))
    np.testing.assert_allclose(update(np.array([1.0, -1.0]), teacher), [1.5, -0.5])
    # The second example alone: (2, 0).
    masked = update(np.array([1.0, -1.0]), teacher, where=np.array([False, True]))
    np.testing.assert_allclose(masked, [1.25, -0.75])


@pytest.mark.parametrize("where", [None, WHERE])
def test_agrees_with_float64_and_with_the_loss(where):
    center, teacher = inputs()
    new = jax.jit(update_center)(center, teacher, momentum=0.8, where=where)
    assert new.dtype == jnp.float32
    rows = np.ones(B, bool) if where is None else where
    close(new, by_float64(center, teacher, 0.8, rows))
    _, of_loss = jax.jit(dino)(
        np.zeros((V, B, K)),
        teacher,
        center_k=center,
        center_momentum=0.8,
        where=where,
    )
    np.testing.assert_array_equal(new, of_loss)


@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e9])
def test_masked_examples_leave_no_trace(spoil):
    center, teacher = inputs()
    expected = update_center(center, teacher[:, WHERE])
    spoilt = np.where(WHERE[None, :, None], teacher, spoil)
    close(update_center(center, spoilt, where=WHERE), expected, 1e-6)
    nobody = update_center(center, spoilt, where=np.zeros(B, bool))
    np.testing.assert_array_equal(nobody, center)


@pytest.mark.parametrize("mapped", [jax.vmap, jax.pmap])
def test_over_a_mapped_axis(mapped):
    center, teacher = inputs()
    parts = np.stack(np.split(teacher, 4, axis=1))

    def update(part, where):
        return update_center(center, part, where=where, axis_name="data")

    new = mapped(update, axis_name="data")(parts, WHERE.reshape(4, 2))
    for device in range(4):
        close(new[device], by_float64(center, teacher, 0.9, WHERE))


def test_sums_of_parts_add_up():
    center, teacher = inputs()
    sums = [
        sum_teacher(part, where=where)
        for part, where in zip(
            np.split(teacher, 4, axis=1), WHERE.reshape(4, 2), strict=True
        )
    ]
    total, count = jax.tree.map(lambda *x: sum(x), *sums)
    assert float(count) == V * WHERE.sum()
    close(
        update_center_from_sums(center, (total, count), momentum=0.3),
        by_float64(center, teacher, 0.3, WHERE),
    )


def test_no_gradient():
    center, teacher = inputs()
    for argument in (0, 1):
        gradient = jax.grad(lambda *x: update_center(*x).sum(), argument)
        assert not np.any(gradient(center, teacher))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(center_k=np.zeros(3)), r"center_k of shape \(3,\), expected \(5,\)"),
        (dict(teacher_logits_vbk=np.zeros((B, K))), r"expected \[v, batch, k\]"),
        (dict(where=np.ones(3)), r"where of shape \(3,\), expected \(8,\)"),
        (dict(momentum=1.5), "momentum 1.5, expected 0 to 1"),
        (dict(momentum=np.zeros(2)), r"momentum of shape \(2,\), expected a scalar"),
    ],
)
def test_errors(change, message):
    center, teacher = inputs()
    given = dict(center_k=center, teacher_logits_vbk=teacher) | change
    with pytest.raises(ValueError, match=message):
        update_center(**given)
