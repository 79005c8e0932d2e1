"""Torchvision's tensors into Mask R-CNN's variables."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import maskrcnn_cases as cases

from memejax.weights.maskrcnn import is_maskrcnn, maskrcnn_variables

with np.load(Path(__file__).parent / "golden" / "maskrcnn.npz") as file:
    SHAPES = {
        name: json.loads(str(file[f"{name}/shapes"])) for name in ("small", "full")
    }


@pytest.fixture(scope="module")
def tensors():
    return cases.state_dict(SHAPES["small"], model="small")


@pytest.fixture(scope="module")
def tree(tensors):
    return convert(tensors)


def old(name):
    """The spelling of the file published in 2019."""
    name = re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    head = re.match(r"(roi_heads\.mask_head\.)(\d)\.0\.(.*)", name)
    if head:
        name = f"{head[1]}mask_fcn{int(head[2]) + 1}.{head[3]}"
    return name


def convert(tensors):
    return maskrcnn_variables(tensors, sizes=cases.SMALL)


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_places(tensors, tree):
    """Every layout, value by value."""
    params, statistics = tree["params"], tree["batch_stats"]

    def equal(ours, name, axes):
        np.testing.assert_array_equal(ours, tensors[name].transpose(axes))

    conv, vector = (2, 3, 1, 0), (0,)
    equal(params["body"]["stem"]["conv"]["kernel"], "backbone.body.conv1.weight", conv)
    block, theirs = params["body"]["stage1_block0"], "backbone.body.layer2.0"
    equal(block["layer1"]["conv"]["kernel"], f"{theirs}.conv2.weight", conv)
    equal(block["shortcut"]["conv"]["kernel"], f"{theirs}.downsample.0.weight", conv)
    equal(block["shortcut"]["norm"]["scale"], f"{theirs}.downsample.1.weight", vector)
    equal(block["layer2"]["norm"]["bias"], f"{theirs}.bn3.bias", vector)
    norm = statistics["body"]["stage3_block0"]["layer0"]["norm"]
    equal(norm["mean"], "backbone.body.layer4.0.bn1.running_mean", vector)
    equal(norm["var"], "backbone.body.layer4.0.bn1.running_var", vector)
    inner, out = params["pyramid"]["inner2"], params["pyramid"]["out3"]
    name = "backbone.fpn.inner_blocks.2.0.weight"
    equal(inner["conv"]["kernel"], name, conv)
    equal(out["bias"], "backbone.fpn.layer_blocks.3.0.bias", vector)
    deltas = params["rpn"]["deltas"]["conv"]["kernel"]
    equal(deltas, "rpn.head.bbox_pred.weight", conv)
    name = "roi_heads.box_predictor.cls_score.weight"
    equal(params["box"]["logits"]["kernel"], name, (1, 0))
    mask, theirs = params["mask"], "roi_heads.mask_predictor"
    equal(mask["up"]["kernel"], f"{theirs}.conv5_mask.weight", (0, 2, 3, 1))
    equal(
        mask["logits"]["kernel"][None, None], f"{theirs}.mask_fcn_logits.weight", conv
    )

    kernel = params["box"]["fc6"]["kernel"]
    weight = tensors["roi_heads.box_head.fc6.weight"]
    # Channel 5 of row 2 and column 6, of 16 channels and 7 x 7 bins.
    np.testing.assert_array_equal(
        kernel[(2 * 7 + 6) * 16 + 5], weight[:, 5 * 49 + 2 * 7 + 6]
    )
    assert np.sort(kernel, None).tolist() == np.sort(weight, None).tolist()


def test_every_tensor_is_used_once(tensors, tree):
    leaves = jax.tree.leaves(tree)
    counted = [n for n in tensors if not n.endswith("num_batches_tracked")]
    assert len(leaves) == len(counted) < len(tensors)
    assert sum(x.size for x in leaves) == sum(tensors[n].size for n in counted)


def test_published_names():
    # Frozen BatchNorm has no counter. The pyramid's 16 tensors, 2 of the proposal
    # network's and 8 of the mask head's have been renamed since.
    shapes = SHAPES["full"]
    assert len(shapes) == 307
    assert sum(old(name) != name for name in shapes) == 26
    tensors = {old(k): np.broadcast_to(np.float32(0), v) for k, v in shapes.items()}
    assert is_maskrcnn(tensors)
    assert len(jax.tree.leaves(maskrcnn_variables(tensors))) == 307


def test_old_names_without_counters_mean_the_same(tensors, tree):
    given = {old(k): v for k, v in tensors.items() if "num_batches" not in k}
    same(convert(given), tree)


def test_all_faults_are_named(tensors):
    given = dict(tensors)
    del given["rpn.head.bbox_pred.bias"], given["backbone.body.bn1.running_var"]
    given["roi_heads.keypoint_head.0.weight"] = np.zeros(3)
    given["rpn.head.num_batches_tracked"] = np.zeros(())
    given["roi_heads.box_head.fc6.weight"] = np.zeros((32, 783))
    given["rpn.head.conv.bias"] = given["rpn.head.conv.0.0.bias"]
    with pytest.raises(ValueError, match="do not fit the Mask R-CNN") as caught:
        convert(given)
    found = str(caught.value).removeprefix("tensors do not fit the Mask R-CNN: ")
    missing, unexpected, misshapen, twice = found.split("; ")
    assert set(missing.removeprefix("missing: ").split(", ")) == {
        "rpn.head.bbox_pred.bias",
        "backbone.body.bn1.running_var",
    }
    assert unexpected == (
        "unexpected: roi_heads.keypoint_head.0.weight, rpn.head.num_batches_tracked"
    )
    assert misshapen == (
        "misshapen: roi_heads.box_head.fc6.weight (got [32, 783], expected [32, 784])"
    )
    assert twice == "given twice: rpn.head.conv.bias"


def test_is_maskrcnn(tensors):
    assert is_maskrcnn(list(tensors))
    assert is_maskrcnn({old(k) for k in tensors})
    boxes_alone = [k for k in tensors if "mask" not in k]
    assert not is_maskrcnn(boxes_alone)
    assert not is_maskrcnn(["embedder.embedder.convolution.weight"])
