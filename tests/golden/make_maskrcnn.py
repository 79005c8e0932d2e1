"""Makes the golden file of Mask R-CNN: torchvision's outputs for seeded weights.

    python3 tests/golden/make_maskrcnn.py

Written with torchvision 0.14.1 and torch 1.13, as Debian 12 packages them. Inputs and
weights are those of maskrcnn_cases.py; the file holds what torchvision makes of them,
and the script refuses cases in which the order of two scores hangs on their last bits.
"""

import json
from collections import OrderedDict
from functools import partial
from pathlib import Path

import maskrcnn_cases as cases
import numpy as np
import torch
import torchvision
from torchvision.models.detection import (
    backbone_utils,
    faster_rcnn,
    image_list,
    transform,
)
from torchvision.models.detection import mask_rcnn as reference
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import misc

HERE = Path(__file__).parent
DETECTED = ("boxes", "scores", "labels")


def shapes(model):
    """Shapes of a model's tensors by name."""
    return {k: list(v.shape) for k, v in model.state_dict().items()}


def seeded(model, name):
    """Give every tensor of a model its seeded value."""
    state = cases.state_dict(shapes(model), model=name)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return model.eval()


def small_model():
    """Torchvision's own parts, narrow."""
    s = cases.SMALL
    width, channels = s["width"], s["channels"]
    body = ResNet(Bottleneck, [1, 1, 1, 1])
    body.inplanes = width
    body.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
    body.bn1 = torch.nn.BatchNorm2d(width)
    for i, blocks in enumerate(s["stage_sizes"]):
        stride = 1 if i == 0 else 2
        layer = body._make_layer(Bottleneck, width * 2**i, blocks, stride=stride)
        setattr(body, f"layer{i + 1}", layer)
    backbone = backbone_utils.BackboneWithFPN(
        body,
        {f"layer{i + 1}": str(i) for i in range(4)},
        [4 * width * 2**i for i in range(4)],
        channels,
    )
    model = reference.MaskRCNN(
        backbone,
        rpn_pre_nms_top_n_test=s["candidates"],
        rpn_post_nms_top_n_test=s["proposals"],
        box_detections_per_img=s["detections"],
        box_head=faster_rcnn.TwoMLPHead(channels * 49, s["hidden"]),
        box_predictor=faster_rcnn.FastRCNNPredictor(s["hidden"], s["classes"]),
        mask_head=reference.MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=reference.MaskRCNNPredictor(channels, channels, s["classes"]),
    )
    return seeded(model, "small")


def full_model():
    """The published architecture, BatchNorm frozen as with the published weights."""
    s = cases.FULL
    body = torchvision.models.resnet50(norm_layer=misc.FrozenBatchNorm2d)
    model = reference.MaskRCNN(
        backbone_utils._resnet_fpn_extractor(body, 3),
        91,
        min_size=cases.FULL_SIDES["min_side"],
        max_size=cases.FULL_SIDES["max_side"],
        rpn_pre_nms_top_n_test=s["candidates"],
        rpn_post_nms_top_n_test=s["proposals"],
        box_detections_per_img=s["detections"],
    )
    for module in model.modules():
        if isinstance(module, misc.FrozenBatchNorm2d):
            module.eps = s["norm_eps"]
    return seeded(model, "full")


def channels_first(array):
    """`[..., h, w, c]` as PyTorch has it."""
    return torch.from_numpy(np.moveaxis(array, -1, -3).copy())


def far_apart(scores, *, least, what):
    """Refuse scores two of which are nearly equal."""
    scores = np.sort(np.ravel(scores))
    gap = np.diff(scores).min() / np.abs(scores).max()
    print(
        f"{what}: {len(scores)} from {scores[0]:.4g} to {scores[-1]:.4g}, gap {gap:.2g}"
    )
    if gap < least:
        raise SystemExit(f"{what}: a gap of {gap:.2g}, expected at least {least}")


def from_proposals(features, proposals, *, heads, sizes, found):
    """The box head's features and the place in them of every detection."""
    pooled = heads.box_roi_pool(features, proposals, sizes)
    fc7 = heads.box_head(pooled)
    logits, deltas = heads.box_predictor(fc7)
    counts = [len(p) for p in proposals]
    boxes = heads.box_coder.decode(deltas, proposals).split(counts)
    vectors = []
    for i, (size, fc7_i, boxes_i) in enumerate(
        zip(sizes, fc7.split(counts), boxes, strict=True)
    ):
        boxes_i = torchvision.ops.clip_boxes_to_image(boxes_i, size)
        chosen = boxes_i[:, found[i]["labels"]]
        same = (chosen == found[i]["boxes"]).all(-1)
        assert (same.sum(0) == 1).all()
        vectors.append(fc7_i[same.float().argmax(0)])
        far_apart(found[i]["scores"], least=1e-5, what="detections")
    return vectors, logits.reshape(len(sizes), -1, logits.shape[-1])


def padded(arrays, count):
    """Arrays of up to `count` rows as one, zeros behind."""
    arrays = [np.asarray(a) for a in arrays]
    out = np.zeros((len(arrays), count, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def small_case():
    """Every stage of the small model, on three sizes."""
    model, sizes = small_model(), list(cases.SMALL_SIZES)
    images = cases.small_images()
    images = image_list.ImageList(channels_first(images), sizes)
    features = model.backbone(images.tensors)
    head = model.rpn.head(list(features.values()))
    for level in head[0]:
        n = min(level[0].numel(), cases.SMALL["candidates"] + 1)
        for one in level:
            far_apart(one.flatten().topk(n)[0], least=3e-6, what="logits")
    with_scores = model.rpn.filter_proposals
    kept = {}

    def remember(*args):
        kept["boxes"], kept["scores"] = with_scores(*args)
        return kept["boxes"], kept["scores"]

    model.rpn.filter_proposals = remember
    proposals, _ = model.rpn(images, features)
    for scores in kept["scores"]:
        far_apart(scores, least=1e-6, what="proposals")
    found, _ = model.roi_heads(features, proposals, sizes)
    vectors, logits = from_proposals(
        features, proposals, heads=model.roi_heads, sizes=sizes, found=found
    )
    count = cases.SMALL["proposals"]
    assert all(len(p) == count for p in proposals)
    most = cases.SMALL["detections"]
    assert {len(f["boxes"]) == most for f in found} == {True, False}
    levels = [np.moveaxis(v.numpy(), 1, -1) for v in features.values()]
    out = {f"level{i}": v[:, ::step, 1::step] for i, (v, step) in
           enumerate(zip(levels, (4, 2, 1, 1, 1), strict=True)) if i < 4}  # fmt: skip
    out["level4"] = levels[4]
    # The levels share their head.
    objectness = [x.permute(0, 2, 3, 1).flatten(1)[:, ::7] for x in head[0]]
    return out | dict(
        shapes=json.dumps(shapes(model)),
        objectness=torch.cat(objectness, 1),
        proposals=torch.stack(proposals),
        proposal_scores=torch.stack(kept["scores"]),
        class_logits=logits,
        counts=np.array([len(f["boxes"]) for f in found]),
        masks=padded([f["masks"][:, 0, ::3, 1::3] for f in found], most),
        features=padded(vectors, most),
        **{k: padded([f[k] for f in found], most) for k in DETECTED},
    )


def full_case():
    """From pictures to masks on them, through all of the published architecture."""
    model = full_model()
    tensors = [channels_first(p).float() / 255 for p in cases.full_pictures()]
    inner = {}

    def remember(module, args, output):
        inner["proposals"], inner["sizes"] = args[1], args[2]
        inner["found"] = [dict(f) for f in output[0]]

    model.roi_heads.register_forward_hook(remember)
    found = model(tensors)
    for f, p in zip(found, inner["proposals"], strict=True):
        print(len(p), f["labels"].tolist(), f["scores"].tolist())
    images, _ = model.transform(tensors)
    assert images.tensors.shape[-2:] == cases.FULL_CANVAS
    features = model.backbone(images.tensors)
    vectors, _ = from_proposals(
        features,
        inner["proposals"],
        heads=model.roi_heads,
        sizes=inner["sizes"],
        found=inner["found"],
    )
    return dict(
        shapes=json.dumps(shapes(model)),
        sizes=np.array(inner["sizes"]),
        features=torch.stack(vectors)[..., ::16],
        **{k: torch.stack([f[k] for f in found]) for k in DETECTED},
        **{f"masks{i}": f["masks"][:, 0, ::7, 1::7] for i, f in enumerate(found)},
    )


def function_cases():
    """Suppression, RoIAlign, resizing and pasting by themselves."""
    out = {}
    boxes, scores, counts = cases.suppression(1000, 24)
    for threshold in (0.5, 0.3):
        keep = np.zeros(scores.shape, bool)
        for i, n in enumerate(counts):
            given = torch.from_numpy(boxes[i, :n]), torch.from_numpy(scores[i, :n])
            keep[i, torchvision.ops.nms(*given, threshold).numpy()] = True
        out[f"nms{threshold}"] = np.packbits(keep, axis=-1)

    boxes, maps = cases.regions(1000)
    maps = [channels_first(m) for m in maps]
    boxes = torch.from_numpy(boxes)
    pool = partial(torchvision.ops.MultiScaleRoIAlign, sampling_ratio=2)
    for size in (7, 14):
        names = [str(i) for i in range(4)]
        levels = OrderedDict(zip(names, maps, strict=True))
        all_levels = pool(names, size)(levels, [boxes], [(256, 320)])
        batch = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
        one = torchvision.ops.roi_align(maps[1], batch, size, 1 / 8, 2)
        directions = cases.projections(size)
        for name, regions in dict(all=all_levels, one=one).items():
            regions = regions.permute(0, 2, 3, 1).double().numpy()
            out[f"roi_{name}{size}"] = np.einsum("rhwc,phwc->pr", regions, directions)

    for i, ((height, width), (high, wide)) in enumerate(cases.RESIZED):
        image = 2 * cases.uniform(f"resize/{i}", 1, height, width, 3) - 1
        size = dict(size=(high, wide), mode="bilinear", align_corners=False)
        made = torch.nn.functional.interpolate(channels_first(image), **size)
        out[f"resized{i}"] = made[0].permute(1, 2, 0)[::3, ::2]
    masks, boxes = (torch.from_numpy(x) for x in cases.pasting())
    out["pasted"] = paste_masks_in_image(masks[:, None], boxes, cases.PICTURE)[:, 0]
    return out


def resized_sizes():
    """Rows of height, width, sides asked for, and what torchvision makes of them."""
    rows = []
    for height, width in ((600, 450), (333, 500), (1200, 400), (799, 801), (77, 1999)):
        for sides in ((800, 1333), (100, 160)):
            prepare = transform.GeneralizedRCNNTransform(*sides, [0.0] * 3, [1.0] * 3)
            sizes = prepare([torch.zeros(3, height, width)])[0].image_sizes
            rows.append((height, width, *sides, *sizes[0]))
    return np.array(rows)


@torch.no_grad()
def main():
    """Write the file beside this one."""
    torch.set_num_threads(1)
    out = {f"small/{k}": v for k, v in small_case().items()}
    out |= {f"full/{k}": v for k, v in full_case().items()}
    out |= {f"function/{k}": v for k, v in function_cases().items()}
    out["function/sizes"] = resized_sizes()
    arrays = {}
    for name, value in out.items():
        value = np.asarray(value)
        single = value.astype(np.float32) if value.dtype == np.float64 else value
        arrays[name] = single.astype(np.int32) if single.dtype == np.int64 else single
    np.savez_compressed(HERE / "maskrcnn.npz", **arrays)


if __name__ == "__main__":
    main()
