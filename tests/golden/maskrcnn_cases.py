"""Inputs and weights of the tests of Mask R-CNN, made from their names alone.

Raw bits of PCG64, which numpy never changes, so that the script that makes the golden
file (another Python, another numpy) and the tests have the very same arrays, and the
file holds outputs alone.
"""

import zlib
from typing import Any

import numpy as np

# Our attributes of the small model; its proposals and detections are few.
SMALL: dict[str, Any] = dict(
    classes=7,
    stage_sizes=(1, 2, 1, 1),
    width=8,
    channels=16,
    hidden=32,
    norm_eps=1e-5,
    candidates=60,
    proposals=40,
    # More than one of the images has.
    detections=14,
)
SMALL_CANVAS = (96, 128)
SMALL_SIZES = ((96, 80), (77, 128), (90, 101))

# The published architecture.
FULL: dict[str, Any] = dict(norm_eps=0.0, candidates=200, proposals=50, detections=6)
FULL_SIDES = dict(min_side=96, max_side=160)
FULL_CANVAS = (128, 160)
FULL_SIZES = ((90, 120), (100, 75), (60, 140))

RESIZED = (((37, 53), (60, 85)), ((53, 37), (21, 14)), ((1, 40), (3, 120)))
PICTURE = (30, 37)

# Spread of a layer's outputs, so that scores lie far apart and none near 1, and what
# is added to its biases.
GAINS = {
    "small/rpn.head.cls_logits.weight": 1.5,
    "small/roi_heads.box_predictor.cls_score.weight": 3.0,
    "full/rpn.head.cls_logits.weight": 1.0,
    "full/roi_heads.box_predictor.cls_score.weight": 1.0,
    "rpn.head.bbox_pred.weight": 0.3,
    "roi_heads.mask_predictor.mask_fcn_logits.weight": 2.0,
}
SHIFTS = {"rpn.head.cls_logits.bias": -4.0}


def uniform(name: str, *shape: int) -> np.ndarray:
    """Float32 values in [0, 1), multiples of 2^-24."""
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((bits >> 40).astype(np.float32) / np.float32(2**24)).reshape(shape)


def tensor(name: str, shape: tuple[int, ...], *, model: str) -> np.ndarray:
    """A weight, bias or statistic of torchvision's name and shape."""
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    value = 2 * uniform(f"{model}/{name}", *shape) - 1
    if len(shape) > 1:
        into = shape[0] if "conv5_mask" in name else np.prod(shape[1:])
        # Variance 2 / in keeps the scale through a ReLU, 1 / in through a sum.
        sums = any(part in name for part in ("fpn", "downsample", "predictor"))
        usual = 1.0 if sums else np.sqrt(2.0)
        gain = GAINS.get(f"{model}/{name}", GAINS.get(name, usual))
        return (value * np.sqrt(3.0 / into) * gain).astype(np.float32)
    if name.endswith("running_var"):
        return 1 + np.float32(0.3) * value
    if name.endswith("weight"):
        # The last of a block is small, so that sixteen blocks do not grow too large.
        return np.float32(0.4 if "bn3" in name else 1.0) + np.float32(0.2) * value
    return np.float32(0.2) * value + np.float32(SHIFTS.get(name, 0.0))


def state_dict(shapes: dict[str, list[int]], *, model: str) -> dict[str, np.ndarray]:
    """All tensors of a model, from their shapes by name."""
    return {name: tensor(name, tuple(of), model=model) for name, of in shapes.items()}


def small_images() -> np.ndarray:
    """Normalised images `[3, h, w, 3]`, zero beyond SMALL_SIZES."""
    images = 4 * uniform("small/images", len(SMALL_SIZES), *SMALL_CANVAS, 3) - 2
    for image, (height, width) in zip(images, SMALL_SIZES, strict=True):
        image[height:], image[:, width:] = 0, 0
    return images


def full_pictures() -> list[np.ndarray]:
    """Pictures uint8 `[h, w, 3]` of FULL_SIZES."""
    return [
        np.floor(256 * uniform(f"full/{h}x{w}", h, w, 3)).astype(np.uint8)
        for h, w in FULL_SIZES
    ]


def suppression(cases: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `[cases, n, 4]`, scores `[cases, n]` and how many of them `[cases]`.

    Half of the cases have whole corners of a few pixels and scores of a few values:
    overlaps of exactly 0.5, and ties.
    """
    corner = uniform("nms/corner", cases, n, 2) * 12
    side = uniform("nms/side", cases, n, 2) * 12 + 1
    scores = uniform("nms/scores", cases, n)
    whole = (np.arange(cases) % 2 == 0)[:, None]
    corner, side = (np.where(whole[..., None], x // 2, x) for x in (corner, side))
    scores = np.where(whole, np.floor(scores * 8) / 8, scores)
    boxes = np.concatenate([corner, corner + side], axis=-1).astype(np.float32)
    counts = (uniform("nms/counts", cases) * (n + 1)).astype(np.int64)
    return boxes, scores.astype(np.float32), counts


def regions(count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Boxes `[count, 4]` of all sizes around a canvas of 256 x 320, and four maps.

    The maps are `[1, h, w, 3]`. Some boxes are empty, have whole corners or lie beyond
    the canvas.
    """
    corner = uniform("roi/corner", count, 2) * np.array([400, 330]) - 40
    side = np.exp(uniform("roi/side", count, 2) * np.log(420)) - 1.5
    kind = np.arange(count) % 8
    side[kind == 0] = np.floor(side[kind == 0])
    corner[kind == 0] = np.floor(corner[kind == 0])
    side[kind == 1, 0] = 0
    boxes = np.concatenate([corner, corner + np.maximum(side, 0)], -1)
    maps = [
        2 * uniform(f"roi/map{s}", 1, 256 // s, 320 // s, 3) - 1 for s in (4, 8, 16, 32)
    ]
    return boxes.astype(np.float32), maps


def projections(size: int) -> np.ndarray:
    """Two directions `[2, size, size, 3]` along which regions are compared."""
    return 2 * uniform("roi/projections", 2, size, size, 3) - 1


def pasting() -> tuple[np.ndarray, np.ndarray]:
    """Masks `[6, 28, 28]` and their boxes on a picture of size PICTURE."""
    boxes = np.array(
        [
            [3.2, 4.1, 20.7, 25.3],
            [0, 0, 37, 30],
            [0, 5, 28, 19],
            [30.5, 20.5, 36.9, 29.9],
            [7, 7, 7.3, 7.2],
            [12, 0, 15, 30],
        ],
        np.float32,
    )
    return uniform("paste", 6, 28, 28), boxes
