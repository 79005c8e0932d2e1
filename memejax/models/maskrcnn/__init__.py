"""Mask R-CNN with a ResNet-50 and a feature pyramid, for inference.

`MaskRCNN` finds the objects of a batch of pictures; all shapes are static, so that it
compiles once per canvas size. `resized_size`, `normalize` and `resize` place pictures
on a canvas, `rescale_boxes` and `paste_masks` map detections back to the pictures. Its
building blocks (`decode`, `clip`, `iou`, `nms`, `roi_align`, ...) can be used alone.

Boxes are `(x1, y1, x2, y2)` in pixels of the canvas, whose pixel (0, 0) covers the
square from 0 to 1.
"""

from memejax.models.maskrcnn.anchors import level_anchors
from memejax.models.maskrcnn.boxes import area, clip, decode, has_sides, iou
from memejax.models.maskrcnn.detections import Detections, best_detections
from memejax.models.maskrcnn.detector import MaskRCNN
from memejax.models.maskrcnn.nms import nms
from memejax.models.maskrcnn.paste import paste_masks, rescale_boxes
from memejax.models.maskrcnn.proposals import Proposals, best_proposals
from memejax.models.maskrcnn.resize import (
    normalize,
    resize,
    resize_scale,
    resized_size,
)
from memejax.models.maskrcnn.roi_align import roi_align, roi_levels

__all__ = [
    "Detections",
    "MaskRCNN",
    "Proposals",
    "area",
    "best_detections",
    "best_proposals",
    "clip",
    "decode",
    "has_sides",
    "iou",
    "level_anchors",
    "nms",
    "normalize",
    "paste_masks",
    "rescale_boxes",
    "resize",
    "resize_scale",
    "resized_size",
    "roi_align",
    "roi_levels",
]
