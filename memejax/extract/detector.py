"""Objects in pictures of any sizes, by Mask R-CNN.

A picture is resized as in the reference: its shorter side to `min_side` pixels, or its
longer one to `max_side`, if that is less. Portrait and landscape pictures each have a
canvas that all of them fit on, so that the detector is compiled twice and no picture
takes more memory than it needs.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from memejax import parallel
from memejax.extract.entities import Entities, Finder
from memejax.models.maskrcnn import (
    Detections,
    MaskRCNN,
    normalize,
    rescale_boxes,
    resize,
    resized_size,
)
from memejax.weights import files
from memejax.weights.maskrcnn import is_maskrcnn, maskrcnn_variables

Tree = Any
# Epsilon of torchvision's BatchNorm, and of the frozen one of its published weights.
TRAINED_EPS, FROZEN_EPS = 1e-5, 0.0


class Detector(NamedTuple):
    """Weights of a detector.

    Attributes:
        variables: of `MaskRCNN(**sizes)`.
        sizes: attributes of MaskRCNN.
    """

    variables: Mapping[str, Tree]
    sizes: Mapping[str, Any]


def load_detector(name: str | os.PathLike[str]) -> Detector:
    """Read torchvision's `maskrcnn_resnet50_fpn`.

    The number of classes is that of the file. BatchNorms with counters were trained,
    with an epsilon of 1e-5; the published file has frozen ones, with 0.

    Args:
        name: of the file, see `weights.files.find`.

    Raises:
        ValueError: if there is no such file, it is another model, or has non-finite
            values.
    """
    tensors = files.read(files.find(name))
    if not is_maskrcnn(tensors):
        raise ValueError(
            f"{name} is not a Mask R-CNN of torchvision: expected the file of "
            "maskrcnn_resnet50_fpn"
        )
    files.check_finite(tensors)
    trained = any(tensor.endswith("num_batches_tracked") for tensor in tensors)
    sizes = {
        "classes": len(tensors["roi_heads.box_predictor.cls_score.bias"]),
        "norm_eps": TRAINED_EPS if trained else FROZEN_EPS,
    }
    try:
        return Detector(maskrcnn_variables(tensors, sizes=sizes), sizes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def mask_rcnn(
    detector: Detector,
    *,
    most: int,
    score: float,
    min_side: int,
    max_side: int,
    masks: bool,
    mesh: Mesh,
    batch: int,
) -> Finder:
    """Make a finder of the objects with the highest scores.

    Args:
        detector: the weights.
        most: objects per picture, at least 1.
        score: probability that an object must exceed.
        min_side: pixels of the resized shorter side,
        max_side: unless the longer side would exceed this.
        masks: whether to make masks.
        mesh: of the devices that a batch is split over.
        batch: pictures per batch.

    Raises:
        ValueError: for a batch that is not divisible by the number of devices, or no
            objects.
    """
    parallel.check_batch(mesh, batch)
    if most < 1 or not 1 <= min_side <= max_side:
        raise ValueError(
            f"got k={most} and sides of {min_side} and {max_side} pixels, expected at "
            "least 1 entity and 1 <= min_side <= max_side"
        )
    module = MaskRCNN(
        **detector.sizes, detections=most, score_threshold=score, masks=masks
    )
    # Short and long side of a canvas, as multiples of the pyramid's 32 pixels.
    short, long = -(-min_side // 32) * 32, -(-max_side // 32) * 32

    def detect(variables: Tree, inputs: Mapping[str, jax.Array]) -> Detections:
        images = resize(
            normalize(inputs["image"]),
            inputs["size"],
            new_sizes_b2=inputs["new_size"],
            canvas=inputs["image"].shape[1:3],
        )
        found = module.apply(variables, images, inputs["new_size"])
        if not isinstance(found, Detections):
            raise TypeError(f"got {type(found)}, expected Detections")
        return found

    apply = parallel.jit_predict(detect, mesh)
    placed = jax.device_put(detector.variables, parallel.replicated(mesh))

    def on_canvas(pictures: Sequence[np.ndarray], canvas: tuple[int, int]) -> Entities:
        """Find entities in pictures of one canvas, at most a batch."""
        n = len(pictures)
        inputs, sizes = _inputs(
            pictures, canvas, min_side=min_side, max_side=max_side, batch=batch
        )
        found = jax.device_get(apply(placed, inputs))
        boxes = rescale_boxes(found.boxes[:n], inputs["new_size"][:n], new_sizes=sizes)
        soft = None if found.masks is None else np.rint(255 * found.masks[:n])
        return Entities(
            boxes=boxes,
            scores=found.scores[:n].astype(np.float32),
            classes=found.labels[:n].astype(np.int32),
            where=found.where[:n],
            features=found.features[:n].astype(np.float32),
            masks=None if soft is None else soft.astype(np.uint8),
        )

    find = functools.partial(_by_canvas, on_canvas, sides=(short, long), batch=batch)
    return Finder(find, most=most, width=module.hidden)


def _by_canvas(
    on_canvas: Callable[..., Entities],
    pictures: Sequence[np.ndarray],
    *,
    sides: tuple[int, int],
    batch: int,
) -> Entities:
    """Find entities in pictures of both orientations, in their order."""
    upright = np.array([p.shape[0] > p.shape[1] for p in pictures], bool)
    rows, parts = [], []
    for mask, canvas in ((~upright, sides), (upright, sides[::-1])):
        places = np.flatnonzero(mask)
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            rows.append(some)
            parts.append(on_canvas([pictures[i] for i in some], canvas))
    order = np.argsort(np.concatenate(rows))

    def joined(columns: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(columns)[order]

    # Either all parts have masks, or none.
    masks = [part.masks for part in parts if part.masks is not None]
    features = [part.features for part in parts if part.features is not None]
    return Entities(
        boxes=joined([part.boxes for part in parts]),
        scores=joined([part.scores for part in parts]),
        classes=joined([part.classes for part in parts]),
        where=joined([part.where for part in parts]),
        features=joined(features) if features else None,
        masks=joined(masks) if masks else None,
    )


def _inputs(
    pictures: Sequence[np.ndarray],
    canvas: tuple[int, int],
    *,
    min_side: int,
    max_side: int,
    batch: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make a padded batch for one canvas; also return the picture sizes `[n, 2]`."""
    sizes = np.array([p.shape[:2] for p in pictures], np.int32)
    # The shorter side of a strip would be rounded down to 0.
    new = [
        resized_size(int(h), int(w), min_side=min_side, max_side=max_side)
        for h, w in sizes
    ]
    new = np.maximum(np.array(new, np.int32), 1)
    inputs = {
        "image": np.zeros((batch, *canvas, 3), np.uint8),
        "size": np.ones((batch, 2), np.int32),
        "new_size": np.ones((batch, 2), np.int32),
    }
    for row, (picture, target) in enumerate(zip(pictures, new, strict=True)):
        if any(np.less(target, picture.shape[:2])):
            # Too large for the canvas: shrunk here, not on the device.
            picture = _shrunk(picture, int(target[0]), int(target[1]))
        height, width = picture.shape[:2]
        inputs["image"][row, :height, :width] = picture
        inputs["size"][row], inputs["new_size"][row] = (height, width), target
    return inputs, sizes


def _shrunk(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink bilinearly from the four nearest pixels, unsmoothed as on the device."""
    values = picture
    for axis, new in enumerate((height, width)):
        old = picture.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = at.astype(np.int64)
        high = np.minimum(low + 1, old - 1)
        share = (at - low).astype(np.float32).reshape((-1, 1, 1))
        share = share if axis == 0 else share.reshape((1, -1, 1))
        near, far = (values.take(i, axis).astype(np.float32) for i in (low, high))
        values = near + share * (far - near)
    return np.rint(values).astype(np.uint8)
