"""Boxes, suppression and RoIAlign by themselves."""

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
    area,
    best_detections,
    best_proposals,
    clip,
    decode,
    has_sides,
    iou,
    level_anchors,
    nms,
    roi_align,
    roi_levels,
)
from memejax.models.maskrcnn.nms import round_down

with np.load(Path(__file__).parent / "golden" / "maskrcnn.npz") as file:
    GOLDEN = {k.removeprefix("function/"): file[k] for k in file if "function/" in k}

examples = settings(deadline=None, derandomize=True, max_examples=30)


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


# ---- Boxes


def test_anchors():
    # 32 / sqrt(1/2) = 45.3 wide and 22.6 high: half of it 23 and 11.
    shapes = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    anchors = level_anchors((2, 3), 32, canvas=(64, 99))
    expected = [
        np.add(shape, [x, y, x, y])
        for y in (0, 32)
        for x in (0, 33, 66)
        for shape in shapes
    ]
    np.testing.assert_array_equal(anchors, expected)


def test_decode():
    # Centre (4, 3), sides 4 and 2. The centre moves by 0.5 * 4 and -1 * 2; the sides
    # become 4 * 2 and 2 * 1000 / 16.
    deltas = jnp.array([[5.0, -10.0, 5 * np.log(2.0), 100.0]])
    box = jnp.array([[2.0, 2.0, 6.0, 4.0]])
    got = jax.jit(partial(decode, weights=(10.0, 10.0, 5.0, 5.0)))(deltas, box)
    np.testing.assert_allclose(got, [[2.0, 1 - 62.5, 10.0, 1 + 62.5]], rtol=1e-6)
    np.testing.assert_array_equal(decode(jnp.zeros((1, 4)), box), box)


def test_clip_sides_and_areas():
    boxes = jnp.array([[[-3.0, -1.0, 50.0, 60.0], [5.0, 5.0, 8.0, 5.5]]])
    got = clip(boxes, jnp.array([[[40, 30]]]))
    np.testing.assert_array_equal(got, [[[0, 0, 30, 40], [5, 5, 8, 5.5]]])
    np.testing.assert_array_equal(has_sides(got, 0.5), [[True, True]])
    np.testing.assert_array_equal(has_sides(got, 0.6), [[True, False]])
    np.testing.assert_array_equal(area(got), [[1200, 1.5]])


def test_iou():
    boxes = jnp.array([[0.0, 0, 4, 2], [3, 3, 3, 3]])
    others = jnp.array([[2.0, 0, 4, 4], [4, 0, 6, 2], [3, 3, 3, 3]])
    # 4 of 8 + 8 - 4; neighbours share no area; an empty box has none to share.
    np.testing.assert_allclose(iou(boxes, others), [[1 / 3, 0, 0], [0, 0, 0]])


# ---- Suppression


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_nms_as_torchvision(threshold):
    """A thousand cases; half have ties, of scores and of overlap with threshold."""
    boxes, scores, counts = cases.suppression(1000, 24)
    where = np.arange(24)[None] < counts[:, None]

    def run(boxes, scores, where):
        return nms(boxes, scores, threshold=threshold, where=where)

    keep = jax.jit(jax.vmap(run))(boxes, scores, where)
    expected = np.unpackbits(GOLDEN[f"nms{threshold}"], axis=-1)[:, :24]
    np.testing.assert_array_equal(keep, expected.astype(bool))


def test_nms_saves_what_its_suppressor_loses():
    # The second goes for the first, so the third, which only it overlaps, stays.
    boxes = jnp.array([[0.0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]])
    scores = jnp.array([0.9, 0.8, 0.7])
    keep = jax.jit(partial(nms, threshold=0.4))
    assert keep(boxes, scores).tolist() == [True, False, True]
    alone = keep(boxes, scores, where=jnp.array([False, True, True]))
    assert alone.tolist() == [False, True, False]
    assert keep(boxes, jnp.array([0.7, 0.9, 0.8])).tolist() == [False, True, False]
    # Of equal scores the first.
    assert keep(boxes[1:], jnp.ones(2)).tolist() == [True, False]


def test_threshold_between_two_floats():
    # 0.3 is nearer to 0.30000001 in float32, which is above it and must count so.
    assert (
        float(round_down(0.3))
        < 0.3
        < float(np.nextafter(round_down(0.3), np.float32(1)))
    )
    assert round_down(0.5) == 0.5
    # An overlap of 3 in 10.
    boxes = jnp.array([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    keep = jax.jit(partial(nms, threshold=0.3))
    assert keep(boxes, jnp.array([1.0, 0.5])).tolist() == [True, False]


def greedy(boxes, scores, threshold):
    """The loop of the definition, in float64: places kept, the best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        overlaps = [overlap(boxes[i], boxes[j]) for j in kept]
        if scores[i] > -np.inf and not any(o > threshold for o in overlaps):
            kept.append(i)
    return kept


def overlap(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def random_boxes(seed, *shape):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 10, (*shape, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 8, (*shape, 2))], -1)
    return boxes.astype(np.float32), rng


jitted_nms = jax.jit(partial(nms, threshold=0.45))


@examples
@given(st.integers(0, 2**32 - 1))
def test_nms_is_greedy_wherever_the_boxes_stand(seed):
    boxes, rng = random_boxes(seed, 20)
    scores = rng.permutation(20).astype(np.float32)
    kept = np.asarray(jitted_nms(boxes, scores))
    assert set(np.flatnonzero(kept)) == set(greedy(boxes, scores, 0.45))
    order = rng.permutation(20)
    np.testing.assert_array_equal(jitted_nms(boxes[order], scores[order]), kept[order])


jitted_best = jax.jit(partial(best_detections, count=9, nms_threshold=0.45))


@examples
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_best_detections(seed, share):
    """Greedy suppression in each class, then the highest scores of all classes."""
    boxes, rng = random_boxes(seed, 12, 3)
    # A few values: ties in a class and between classes.
    scores = (rng.integers(0, 12, (12, 3)) / 16).astype(np.float32)
    where = rng.random((12, 3)) < share
    masked = np.where(where, scores, -np.inf)
    kept = [
        (i, label)
        for label in range(3)
        for i in greedy(boxes[:, label], masked[:, label], 0.45)
    ]
    kept = sorted(kept, key=lambda place: (-scores[place], place))[:9]
    proposal, label, real = jitted_best(boxes, scores, where=where)
    assert real.tolist() == [i < len(kept) for i in range(9)]
    got = list(zip(proposal.tolist(), label.tolist(), strict=True))
    assert got[: len(kept)] == [(int(i), k) for i, k in kept]


def test_few_proposals():
    """Fewer boxes than places: the rest is zero, and small boxes never come."""
    logits = [jnp.array([[2.0, -1.0, 3.0]]), jnp.array([[0.5, 1.0, 9.0]])]
    # Far to the left, out of the picture: a box without width.
    away = jnp.zeros((1, 3, 4)).at[0, 2, 0].set(-10.0)
    best = partial(
        best_proposals,
        grids=[(1, 1), (1, 1)],
        canvas=(32, 32),
        sizes=jnp.array([[32, 24]]),
        candidates=2,
        count=10,
        nms_threshold=0.9,
    )
    found = jax.jit(best)(logits, [jnp.zeros((1, 3, 4)), away])
    # Anchors around the corner (0, 0), cut by the picture.
    expected = np.zeros((1, 4, 4))
    expected[0, :3] = [[0, 0, 11, 23], [0, 0, 23, 11], [0, 0, 24, 32]]
    np.testing.assert_array_equal(found.boxes, expected)
    assert found.where.tolist() == [[True, True, True, False]]
    sigmoid = 1 / (1 + np.exp(-np.array([3.0, 2.0, 1.0])))
    np.testing.assert_allclose(found.scores[0, :3], sigmoid, rtol=1e-6)
    assert found.scores[0, 3] == 0


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"got boxes \[3, 4\], scores \[2\]"):
        nms(jnp.zeros((3, 4)), jnp.zeros(2), threshold=0.5)
    maps = [jnp.zeros((2, 4, 4, 3))]
    with pytest.raises(ValueError, match="expected .* one stride per map"):
        roi_align(maps, jnp.zeros((2, 5, 4)), size=7, strides=(4, 8))
    with pytest.raises(ValueError, match="got maps"):
        roi_align(maps, jnp.zeros((1, 5, 4)), size=7, strides=(4,))


# ---- RoIAlign


@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("levels", ["all", "one"])
def test_roi_align_as_torchvision(levels, size):
    """A thousand boxes, some empty, beyond the canvas or with corners on values."""
    boxes, maps = cases.regions(1000)
    maps, strides = (maps, (4, 8, 16, 32)) if levels == "all" else (maps[1:2], (8,))
    got = jax.jit(partial(roi_align, size=size, strides=strides))(maps, boxes[None])
    got = np.einsum("rhwc,phwc->pr", got[0], cases.projections(size))
    # Coordinates of float32 and slopes of up to 2 a value: 1e-5 of a region's place.
    assert relative(got, GOLDEN[f"roi_{levels}{size}"]) < 5e-5


def test_roi_align_of_a_plane():
    """Bilinear samples of an affine map are the map at the middle of each bin."""
    y, x = np.mgrid[:20, :24].astype(np.float32)
    plane = jnp.stack([1 + 2 * x + 3 * y, jnp.ones_like(x)], -1)[None]
    box = jnp.array([[[8.0, 16.0, 64.0, 44.0]]])
    align = jax.jit(partial(roi_align, size=7, strides=(4, 8)))
    got = align([plane, plane * 0], box)
    # 14 x 7 values from (2, 4): bins of 2 x 1.
    middle_x, middle_y = 2 + 2 * (np.arange(7) + 0.5), 4 + (np.arange(7) + 0.5)
    expected = 1 + 2 * middle_x[None, :] + 3 * middle_y[:, None]
    np.testing.assert_allclose(got[0, 0, ..., 0], expected, rtol=1e-6)
    np.testing.assert_allclose(got[0, 0, ..., 1], 1, rtol=1e-6)


def test_roi_align_reads_its_own_image():
    maps = [jnp.full((3, 4, 4, 1), jnp.arange(3.0).reshape(3, 1, 1, 1))]
    boxes = jnp.tile(jnp.array([[[0.0, 0, 12, 12], [4, 4, 16, 16]]]), (3, 1, 1))
    got = jax.jit(partial(roi_align, size=2, strides=(4,)))(maps, boxes)
    np.testing.assert_array_equal(
        got[..., 0], np.tile([[[[0]]], [[[1]]], [[[2]]]], (1, 2, 2, 2))
    )


def test_roi_align_has_gradients():
    """Finite ones, of empty boxes too, that share out the weight of each bin."""
    boxes = jnp.array([[[0.0, 0, 12, 12], [5, 5, 5, 5]]])

    def total(image):
        return roi_align([image], boxes, size=2, strides=(4,)).sum()

    gradient = jax.jit(jax.grad(total))(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_allclose(gradient.sum(), 2 * 2 * 2, rtol=1e-5)
    assert (gradient >= 0).all()


def test_roi_levels():
    sides = [0.0, 20, 111.9, 112, 223.9, 224, 447, 448, 2000]
    boxes = jnp.array([[10, 10, 10 + side, 10 + side] for side in sides])
    levels = jax.jit(partial(roi_levels, strides=(4, 8, 16, 32)))(boxes)
    assert levels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    levels = jax.jit(partial(roi_levels, strides=(8, 16)))(boxes)
    assert levels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
