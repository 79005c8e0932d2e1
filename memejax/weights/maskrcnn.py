"""Mask R-CNN from torchvision's state dict: its tensors to our variables.

`maskrcnn_variables` is pure: a mapping of tensor names to arrays in, a tree of numpy
arrays out, with identical float32 values. It accepts the names of the file published in
2019 (`backbone.fpn.inner_blocks.0.weight`, `rpn.head.conv.weight`,
`roi_heads.mask_head.mask_fcn1.weight`) and those of torchvision in memory
(`...inner_blocks.0.0.weight`, `rpn.head.conv.0.0.weight`,
`roi_heads.mask_head.0.0.weight`). BatchNorm's counters are ignored; every other tensor
must be expected, and every expected one present.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from memejax.models.maskrcnn import MaskRCNN

Tensors = Mapping[str, Any]
Variables = dict[str, Any]
Rules = tuple[tuple[str, str], ...]

# Substitutions from our path to their name, applied in order.
NAMES: Rules = (
    (r"^body\.stem\.conv\.", "backbone.body.conv1."),
    (r"^body\.stem\.norm\.", "backbone.body.bn1."),
    # Their stages, convolutions and BatchNorms count from 1.
    (r"^body\.stage0_", "backbone.body.layer1."),
    (r"^body\.stage1_", "backbone.body.layer2."),
    (r"^body\.stage2_", "backbone.body.layer3."),
    (r"^body\.stage3_", "backbone.body.layer4."),
    (r"\.block(\d+)\.", r".\1."),
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.layer0\.conv\.", ".conv1."),
    (r"\.layer1\.conv\.", ".conv2."),
    (r"\.layer2\.conv\.", ".conv3."),
    (r"\.layer0\.norm\.", ".bn1."),
    (r"\.layer1\.norm\.", ".bn2."),
    (r"\.layer2\.norm\.", ".bn3."),
    (r"^pyramid\.inner(\d+)\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^pyramid\.out(\d+)\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^rpn\.conv\.", "rpn.head.conv.0.0."),
    (r"^rpn\.logits\.", "rpn.head.cls_logits."),
    (r"^rpn\.deltas\.", "rpn.head.bbox_pred."),
    (r"^box\.(fc\d)\.", r"roi_heads.box_head.\1."),
    (r"^box\.logits\.", "roi_heads.box_predictor.cls_score."),
    (r"^box\.deltas\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^mask\.conv(\d)\.", r"roi_heads.mask_head.\1.0."),
    (r"^mask\.up\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"^mask\.logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
    (r"\.conv\.kernel$", ".weight"),
    (r"\.(kernel|scale)$", ".weight"),
    (r"\.(mean|var)$", r".running_\1"),
)

# Spellings of the file published in 2019.
SPELLINGS: Rules = (
    (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.mask_head\.mask_fcn1\.", "roi_heads.mask_head.0.0."),
    (r"^roi_heads\.mask_head\.mask_fcn2\.", "roi_heads.mask_head.1.0."),
    (r"^roi_heads\.mask_head\.mask_fcn3\.", "roi_heads.mask_head.2.0."),
    (r"^roi_heads\.mask_head\.mask_fcn4\.", "roi_heads.mask_head.3.0."),
)

EXTRAS = r"backbone\.body\..*\.num_batches_tracked$"

# Tensors of every Mask R-CNN of torchvision, whatever its body.
MARKS = (
    "rpn.head.cls_logits.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.weight",
)


def is_maskrcnn(names: Iterable[str]) -> bool:
    """Whether tensors with these names are a Mask R-CNN of torchvision."""
    return set(MARKS) <= set(names)


def maskrcnn_variables(
    tensors: Tensors, *, sizes: Mapping[str, Any] | None = None
) -> Variables:
    """Variables of `MaskRCNN(**sizes)` from torchvision's `maskrcnn_resnet50_fpn`.

    Args:
        tensors: arrays by name.
        sizes: attributes of MaskRCNN; None for the published COCO weights. The value
            of `norm_eps` is not among the tensors: 0 belongs to the published ones and
            1e-5 to a retrained model.

    Returns:
        {"params": ..., "batch_stats": ...}, float32 numpy arrays.

    Raises:
        ValueError: naming every missing, unexpected and misshapen tensor, and those
            given twice, under an old name and a new one.
    """
    shapes = _shapes(MaskRCNN(**({} if sizes is None else dict(sizes))))
    paths = {_rewrite(".".join(path[1:]), NAMES): path for path in shapes}
    leaves, twice, unexpected, misshapen = {}, [], [], []
    for given, tensor in tensors.items():
        if re.match(EXTRAS, given):
            continue
        path = paths.get(_rewrite(given, SPELLINGS))
        if path is None:
            unexpected.append(given)
            continue
        if path in leaves:
            twice.append(given)
            continue
        theirs, view, axes = _layout(path, shapes[path])
        if np.shape(tensor) != theirs:
            got = list(np.shape(tensor))
            misshapen.append(f"{given} (got {got}, expected {list(theirs)})")
            leaves[path] = None
            continue
        leaf = np.asarray(tensor, np.float32).reshape(view).transpose(axes)
        leaves[path] = np.array(leaf, order="C").reshape(shapes[path])
    faults = {
        "missing": [name for name, path in paths.items() if path not in leaves],
        "unexpected": unexpected,
        "misshapen": misshapen,
        "given twice": twice,
    }
    if any(faults.values()):
        listed = "; ".join(f"{k}: {', '.join(v)}" for k, v in faults.items() if v)
        raise ValueError(f"tensors do not fit the Mask R-CNN: {listed}")
    return traverse_util.unflatten_dict(leaves)


def _shapes(model: MaskRCNN) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of the module's variables by path, without computing them."""
    # Always with masks: their head is always among the tensors.
    model = model.clone(masks=True)

    def init(images, sizes):
        return model.init(jax.random.key(0), images, sizes)

    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    tree = traverse_util.flatten_dict(jax.eval_shape(init, images, sizes))
    return {path: leaf.shape for path, leaf in tree.items()}


def _rewrite(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _layout(
    path: tuple[str, ...], ours: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape of their tensor, the shape to view it in, and the axes to transpose."""
    if path[-1] != "kernel":
        return ours, ours, tuple(range(len(ours)))
    match path[1:-1]:
        case ("mask", "up"):
            into, high, wide, out = ours
            theirs = (into, out, high, wide)
            return theirs, theirs, (0, 2, 3, 1)
        case ("mask", "logits"):
            # A convolution of 1 x 1.
            theirs = (ours[1], ours[0], 1, 1)
            return theirs, theirs[:2], (1, 0)
        case ("box", "fc6"):
            # Their rows are flattened regions [channel, 7, 7], ours [7, 7, channel].
            theirs = (ours[1], ours[0])
            return theirs, (ours[1], ours[0] // 49, 7, 7), (2, 3, 1, 0)
    if len(ours) == 2:
        return (ours[1], ours[0]), (ours[1], ours[0]), (1, 0)
    theirs = (ours[3], ours[2], ours[0], ours[1])
    return theirs, theirs, (2, 3, 1, 0)
