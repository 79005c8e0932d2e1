"""The mean of word vectors, and its place as a text encoder."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models.fusion import Arm
from memejax.models.words import AveragedWords

IDS = np.array(
    [
        [2, 5, 7, 3, 0],
        [2, 6, 6, 9, 3],
        [2, 0, 0, 0, 0],  # position 0 alone
        [2, 5, 7, 3, 0],  # nothing
        [2, 8, 8, 4, 3],  # a hole in the mask
    ]
)
MASK = np.array(
    [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 1, 0, 1],
    ]
)
# Which tokens count, by hand.
COUNTED = [[5, 7, 3], [6, 6, 9, 3], [2], [], [8, 3]]
TABLE = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
PARAMS = {"words": jnp.asarray(TABLE)}


@partial(jax.jit, static_argnames=("model", "train"))
def apply(params, ids, mask, *, model=None, train=False, key=None):
    model = model or AveragedWords(10, hidden=6)
    rngs = None if key is None else {"dropout": key}
    return model.apply({"params": params}, ids, mask, train=train, rngs=rngs)


def test_it_is_the_mean_of_the_counted_words():
    got = apply(PARAMS, IDS, MASK)
    assert got.shape == (5, 1, 6) and got.dtype == jnp.float32
    table = TABLE.astype(np.float64)
    for row, words in zip(got[:, 0], COUNTED, strict=True):
        expected = np.mean(table[words], axis=0) if words else np.zeros(6)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_worked_by_hand():
    params = {"words": jnp.array([[9.0, 9.0], [1.0, 2.0], [3.0, -2.0]])}
    got = apply(
        params,
        np.array([[0, 1, 2], [0, 0, 0]]),
        np.array([[1, 1, 1], [1, 0, 0]]),
        model=AveragedWords(3, hidden=2),
    )
    np.testing.assert_array_equal(got, [[[2.0, 0.0]], [[9.0, 9.0]]])


def test_a_bool_mask_and_one_token():
    ids, mask = IDS[:, :1], MASK[:, :1].astype(bool)
    got = apply(PARAMS, ids, mask)[:, 0]
    np.testing.assert_array_equal(got, np.where(mask, TABLE[2], 0))


def test_neither_order_nor_padding_matters():
    got = apply(PARAMS, IDS, MASK)
    shuffled = IDS.copy()
    shuffled[1, 1:] = IDS[1, [4, 2, 1, 3]]
    shuffled[0, 0] = 4
    shuffled[0, 4] = 9
    np.testing.assert_allclose(apply(PARAMS, shuffled, MASK)[:2], got[:2], rtol=1e-5)
    # Not even padding outside of the table, whose lookup is NaN.
    shuffled[0, 4] = 99
    longer = np.pad(shuffled, ((0, 0), (0, 3)), constant_values=99)
    mask = np.pad(MASK, ((0, 0), (0, 3)))
    np.testing.assert_allclose(apply(PARAMS, longer, mask)[:2], got[:2], rtol=1e-5)


def test_gradients_are_shares_of_the_words():
    """d sum(u) / dE[w] is how often w counts, over how many words count."""
    grads = jax.jit(jax.grad(lambda p: apply(p, IDS, MASK).sum()))(PARAMS)["words"]
    expected = np.zeros(10)
    for words in COUNTED:
        for word in words:
            expected[word] += 1 / len(words)
    assert np.isfinite(grads).all()
    np.testing.assert_allclose(grads, np.tile(expected[:, None], 6), rtol=1e-5)


def test_bfloat16_rounds_the_vectors_and_no_more():
    model = AveragedWords(10, hidden=6, dtype=jnp.bfloat16)
    got = apply(PARAMS, IDS, MASK, model=model)
    assert got.dtype == jnp.float32
    exact = apply(PARAMS, IDS, MASK)
    # Eight bits: each vector is off by 2**-9 of itself at most.
    error = np.abs(np.asarray(got - exact)).max()
    assert 0 < error < 2**-8 * np.abs(TABLE).max()


def test_dropout():
    model = AveragedWords(10, hidden=6, dropout=0.5)
    got = apply(PARAMS, IDS, MASK, model=model, train=True, key=jax.random.key(0))
    mean = apply(PARAMS, IDS, MASK)
    zero = np.asarray(got == 0)
    np.testing.assert_allclose(got, np.where(zero, 0, 2 * mean), rtol=1e-5)
    assert 0.2 < zero[[0, 1, 2, 4]].mean() < 0.8
    # At prediction there is none.
    np.testing.assert_array_equal(apply(PARAMS, IDS, MASK, model=model), mean)


def test_vectors_start_about_unit_length():
    model = AveragedWords(500)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), IDS, MASK)
    words = variables["params"]["words"]
    assert words.shape == (500, 150)
    lengths = np.linalg.norm(words, axis=1)
    assert 0.97 < lengths.mean() < 1.03 and lengths.std() < 0.1


class Blank(nn.Module):
    """An image encoder of nothing."""

    def __call__(self, images_bhwc, *, train):
        return images_bhwc.mean(axis=(1, 2))


def test_an_arm_reads_it_as_a_text_encoder():
    arm = Arm(
        image_encoder=Blank(),
        text_encoder=AveragedWords(10, hidden=6),
        image_width=0,
        embed=4,
        fused=8,
        out=4,
    )
    inputs = {
        "image": np.zeros((5, 8, 8, 3), np.float32),
        "input_ids": IDS,
        "attention_mask": MASK,
    }
    method = partial(arm.apply, train=False, method="classify")
    variables = jax.jit(partial(arm.init, train=False, method="classify"))(
        jax.random.key(0), inputs
    )
    assert variables["params"]["text_encoder"]["words"].shape == (10, 6)
    logits = jax.jit(method)(variables, inputs)
    other = jax.jit(method)(variables, inputs | {"input_ids": 9 - IDS})
    assert logits.shape == (5,)
    difference = np.abs(np.asarray(logits - other))
    # The row of no words is the same whatever its ids.
    assert difference[3] == 0 and difference[[0, 1, 2, 4]].min() > 1e-4


@pytest.mark.parametrize(
    ("ids", "mask"), [((2, 3), (2, 4)), ((3,), (3,)), ((2, 0), (2, 0))]
)
def test_shapes_are_checked(ids, mask):
    with pytest.raises(ValueError, match="expected the same"):
        apply(PARAMS, np.zeros(ids, np.int32), np.zeros(mask, np.int32))
