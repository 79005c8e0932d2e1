"""Pictures onto the canvas, and what was found back onto the pictures."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import maskrcnn_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax.models.maskrcnn import (
    normalize,
    paste_masks,
    rescale_boxes,
    resize,
    resize_scale,
    resized_size,
)

with np.load(Path(__file__).parent / "golden" / "maskrcnn.npz") as file:
    GOLDEN = {k.removeprefix("function/"): file[k] for k in file if "function/" in k}


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


def test_sizes_as_torchvision():
    for height, width, low, high, *expected in GOLDEN["sizes"].tolist():
        got = resized_size(height, width, min_side=low, max_side=high)
        assert list(got) == expected
    # 333 times the float32 of 800 / 333 is below 800.
    assert resized_size(333, 500) == (799, 1201)
    assert resize_scale(600, 400) == 2.0


jitted_resize = jax.jit(partial(resize, canvas=(64, 128)))


@pytest.mark.parametrize("i", range(len(cases.RESIZED)))
def test_resize_as_torchvision(i):
    old, (high, wide) = cases.RESIZED[i]
    images = np.full((1, 53, 53, 3), np.nan, np.float32)
    images[0, : old[0], : old[1]] = 2 * cases.uniform(f"resize/{i}", 1, *old, 3)[0] - 1
    new = jnp.array([[high, wide]])
    got = np.asarray(jitted_resize(images, jnp.array([old]), new_sizes_b2=new))[0]
    assert relative(got[:high:3, :wide:2], GOLDEN[f"resized{i}"]) < 1e-5
    assert not got[high:].any() and not got[:, wide:].any()


def test_normalize():
    white = np.full((1, 1, 3), 255, np.uint8)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalize(jnp.asarray(white))[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(
        normalize(jnp.ones((2, 3)))[1], expected.astype(np.float32), rtol=1e-6
    )


def test_rescale_boxes():
    boxes = np.array([[[10.0, 20, 30, 40]], [[1, 2, 3, 4]]])
    got = rescale_boxes(boxes, [(100, 200), (4, 4)], new_sizes=[(50, 600), (4, 8)])
    np.testing.assert_allclose(got, [[[30, 10, 90, 20]], [[2, 2, 6, 4]]], rtol=1e-6)


def test_paste_as_torchvision():
    masks, boxes = cases.pasting()
    got = paste_masks(masks, boxes, height=30, width=37)
    assert got.dtype == np.float32
    assert relative(got, GOLDEN["pasted"]) < 1e-5
    assert paste_masks(masks[:0], boxes[:0], height=30, width=37).shape == (0, 30, 37)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_pasting_keeps_to_the_box(seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 15, (4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 8, (4, 2))], -1)
    masks = rng.random((4, 28, 28))
    pasted = paste_masks(masks, boxes, height=20, width=20)
    assert pasted.min() >= 0 and pasted.max() <= 1
    y, x = np.mgrid[:20, :20]
    for mask, (x1, y1, x2, y2) in zip(pasted, boxes, strict=True):
        # Grown by a fourteenth of its side at most, and rounded.
        far = (x < x1 - 2) | (x > x2 + 2) | (y < y1 - 2) | (y > y2 + 2)
        assert not mask[far].any()


def test_wrong_inputs():
    with pytest.raises(ValueError, match="got masks"):
        paste_masks(np.zeros((2, 28, 28)), np.zeros((3, 4)), height=5, width=5)
    with pytest.raises(ValueError, match=r"and sizes \[2\] and \[1, 2\]"):
        resize(
            jnp.zeros((1, 4, 4, 3)),
            jnp.array([4, 4]),
            new_sizes_b2=jnp.array([[4, 4]]),
            canvas=(8, 8),
        )
    with pytest.raises(ValueError, match="expected .* uint8 or float"):
        normalize(jnp.zeros((4, 4, 3), jnp.int32))
    with pytest.raises(ValueError, match="at least 1 each"):
        resize_scale(0, 5)
