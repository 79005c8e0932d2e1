"""The whole detector and its stages, against torchvision's for seeded weights."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import maskrcnn_cases as cases

from memejax.models.maskrcnn import (
    MaskRCNN,
    Proposals,
    normalize,
    paste_masks,
    rescale_boxes,
    resize,
    resized_size,
)
from memejax.weights.maskrcnn import maskrcnn_variables

with np.load(Path(__file__).parent / "golden" / "maskrcnn.npz") as file:
    GOLDEN = dict(file)


def golden(name):
    keys = [key for key in GOLDEN if key.startswith(f"{name}/")]
    return {key.removeprefix(f"{name}/"): GOLDEN[key] for key in keys}


def variables(name, sizes):
    state = cases.state_dict(json.loads(str(GOLDEN[f"{name}/shapes"])), model=name)
    return maskrcnn_variables(state, sizes=sizes)


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


def stages(model, images, sizes, boxes):
    """What a model makes of images, stage by stage; detections of given proposals."""
    maps = model.feature_maps(images, sizes)
    logits, _ = zip(*(model.rpn(m) for m in maps), strict=True)
    proposals = model.propose(maps, sizes, canvas=images.shape[1:3])
    given = Proposals(boxes, jnp.ones(boxes.shape[:2]), jnp.ones(boxes.shape[:2], bool))
    found = model.detect(maps, sizes, proposals=given)
    found = found._replace(masks=model.segment(maps, found))
    return maps, logits, proposals, found


@pytest.fixture(scope="module")
def small():
    """The compiled stages of the small model, its inputs and torchvision's outputs."""
    model = MaskRCNN(**cases.SMALL)
    expected = golden("small")
    run = jax.jit(partial(model.apply, method=stages))
    run = partial(run, variables("small", cases.SMALL))
    inputs = (
        jnp.asarray(cases.small_images()),
        jnp.asarray(cases.SMALL_SIZES, jnp.int32),
        jnp.asarray(expected["proposals"]),
    )
    return run, inputs, expected


@pytest.fixture(scope="module")
def outputs(small):
    run, inputs, _ = small
    return run(*inputs)


def test_feature_maps(small, outputs):
    expected = small[2]
    maps = outputs[0]
    for i, step in enumerate((4, 2, 1, 1)):
        assert relative(maps[i][:, ::step, 1::step], expected[f"level{i}"]) < 1e-5
    assert relative(maps[4], expected["level4"]) < 1e-5


def test_objectness(small, outputs):
    logits = np.concatenate([x[:, ::7] for x in outputs[1]], axis=1)
    assert relative(logits, small[2]["objectness"]) < 1e-5


def test_proposals(small, outputs):
    expected, proposals = small[2], outputs[2]
    assert proposals.where.all()
    # Boxes and probabilities are exponentials of what 40 layers of random weights
    # make; the same bound as for all that follows.
    assert relative(proposals.boxes, expected["proposals"]) < 1e-4
    assert relative(proposals.scores, expected["proposal_scores"]) < 1e-4


def test_detections_of_their_proposals(small, outputs):
    expected, found = small[2], outputs[3]
    counts = expected["counts"]
    assert min(counts) < cases.SMALL["detections"] == max(counts)
    np.testing.assert_array_equal(found.where, np.arange(14)[None] < counts[:, None])
    np.testing.assert_array_equal(found.labels, expected["labels"])
    for name in ("boxes", "scores", "features"):
        assert relative(getattr(found, name), expected[name]) < 1e-4, name
    assert relative(found.masks[:, :, ::3, 1::3], expected["masks"]) < 1e-4


def test_what_is_beside_a_picture_does_not_matter(small, outputs):
    run, (images, sizes, boxes), _ = small
    dirty = np.array(images)
    for image, (height, width) in zip(dirty, cases.SMALL_SIZES, strict=True):
        image[height:], image[:, width:] = np.nan, np.inf
    same(run(dirty, sizes, boxes), outputs, rtol=0)


def test_pictures_do_not_know_of_each_other(small, outputs):
    run, inputs, _ = small
    order = np.array([2, 0, 1])
    turned = jax.tree.map(lambda x: x[order], outputs)
    same(run(*(x[order] for x in inputs)), turned, rtol=1e-5)


def same(one, two, *, rtol):
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_published_architecture_from_pictures_to_masks():
    expected = golden("full")
    original = np.array(cases.FULL_SIZES, np.int32)
    new = [resized_size(*size, **cases.FULL_SIDES) for size in cases.FULL_SIZES]
    np.testing.assert_array_equal(new, expected["sizes"])
    pictures = np.zeros((3, *original.max(0), 3), np.uint8)
    for row, picture in zip(pictures, cases.full_pictures(), strict=True):
        row[: len(picture), : picture.shape[1]] = picture

    def run(model, pictures, original, new):
        images = resize(
            normalize(pictures), original, new_sizes_b2=new, canvas=cases.FULL_CANVAS
        )
        return model(images, new)

    model = MaskRCNN(**cases.FULL)
    weights = variables("full", cases.FULL)
    assert sum(x.size for x in jax.tree.leaves(weights["params"])) == (
        # As published, where the scales and biases of the frozen layers (26,560
        # channels) do not count as parameters.
        44_401_393 + 2 * 26_560
    )
    found = jax.jit(partial(model.apply, method=run))(
        weights, pictures, jnp.asarray(original), jnp.asarray(new, jnp.int32)
    )
    assert found.where.all()
    np.testing.assert_array_equal(found.labels, expected["labels"])
    assert relative(found.scores, expected["scores"]) < 1e-4
    assert relative(found.features[..., ::16], expected["features"]) < 1e-4
    boxes = rescale_boxes(found.boxes, new, new_sizes=original)
    assert relative(boxes, expected["boxes"]) < 1e-4
    for i, (height, width) in enumerate(cases.FULL_SIZES):
        pasted = paste_masks(found.masks[i], boxes[i], height=height, width=width)
        assert relative(pasted[:, ::7, 1::7], expected[f"masks{i}"]) < 1e-4


def shapes(*, image=(2, 64, 96, 3), sizes=(2, 2), integer=jnp.int32, **attributes):
    model = MaskRCNN(**cases.SMALL | attributes)
    images = jax.ShapeDtypeStruct(image, jnp.float32)
    given = jax.ShapeDtypeStruct(sizes, integer)
    init = partial(model.init_with_output, jax.random.key(0))
    return jax.eval_shape(init, images, given)[0]


def test_half_precision_without_masks():
    found = shapes(dtype=jnp.bfloat16, masks=False, detections=5)._asdict()
    assert found.pop("masks") is None
    assert {k: (v.shape, v.dtype.name) for k, v in found.items()} == {
        "boxes": ((2, 5, 4), "float32"),
        "scores": ((2, 5), "float32"),
        "labels": ((2, 5), "int32"),
        "features": ((2, 5, 32), "float32"),
        "where": ((2, 5), "bool"),
    }


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (dict(image=(2, 60, 96, 3)), "multiples of 32"),
        (dict(image=(2, 64, 96, 1)), "multiples of 32"),
        (dict(image=(64, 96, 3)), "normalised float images"),
        (dict(sizes=(3, 2)), r"expected int32\[2, 2\]"),
        (dict(integer=jnp.float32), r"expected int32\[2, 2\]"),
        (dict(stage_sizes=(1, 1)), r"got stage_sizes \(1, 1\), expected 4"),
    ],
)
def test_wrong_inputs(given, match):
    with pytest.raises(ValueError, match=match):
        shapes(**given)


@pytest.mark.parametrize("size", [(0, 5), (65, 5), (5, 97)])
def test_wrong_sizes(size):
    model = MaskRCNN(**cases.SMALL)
    with pytest.raises(ValueError, match="expected heights from 1 to 64 and widths"):
        model.apply({}, jnp.zeros((1, 64, 96, 3)), jnp.array([size]))
