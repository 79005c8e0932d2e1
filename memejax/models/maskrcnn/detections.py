"""Detections: the final objects of a picture.

Shape suffixes: `n` proposals, `c` classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.maskrcnn.boxes import iou
from memejax.models.maskrcnn.nms import round_down


class Detections(NamedTuple):
    """The objects found in a batch of pictures, k each, by descending score.

    Padding (`where` False) is 0 everywhere and comes last.

    Attributes:
        boxes: `[b, k, 4]` (x1, y1, x2, y2) in pixels of the canvas.
        scores: `[b, k]` probability of the class.
        labels: `[b, k]` int32, from 1 (0 is the background).
        masks: `[b, k, 28, 28]` probability, on a grid over the box, that a pixel
            belongs to the object; None if disabled.
        features: `[b, k, 1024]`, fc7 of the box's proposal: the input of the layers
            that predict its class, score and box.
        where: `[b, k]` bool, False on padding.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    masks: jax.Array | None
    features: jax.Array
    where: jax.Array


def best_detections(
    boxes_nc4: jax.Array,
    scores_nc: jax.Array,
    *,
    where: jax.Array,
    count: int,
    nms_threshold: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Select the first boxes that per-class non-maximum suppression keeps.

    `count` times, take the highest score and remove all boxes of its class that overlap
    its box by more than the threshold. These are the first steps of greedy suppression
    over all n * c boxes, without a matrix of their overlaps. Ties go to the lower
    proposal, then to the lower class.

    Args:
        boxes_nc4: `[n, c, 4]`, one box per proposal and class.
        scores_nc: `[n, c]`.
        where: `[n, c]` bool, the boxes to consider.
        count: number of boxes to select.
        nms_threshold: in [0, 1].

    Returns:
        Proposals `[count]` and classes `[count]` int32, by descending score, and
        `[count]` bool, False where no box was left.
    """
    n, classes = scores_nc.shape
    threshold = round_down(nms_threshold)
    flat_index = jnp.arange(n * classes).reshape(n, classes)
    columns = jnp.arange(classes)

    def take(scores_nc, _):
        best = jnp.argmax(scores_nc)
        proposal, label = best // classes, best % classes
        real = scores_nc[proposal, label] > -jnp.inf
        overlap = iou(boxes_nc4[proposal, label][None], boxes_nc4[:, label])[0]
        removed = (overlap > threshold)[:, None] & (columns == label)[None, :]
        scores_nc = jnp.where(removed | (flat_index == best), -jnp.inf, scores_nc)
        return scores_nc, (proposal, label, real)

    start = jnp.where(where, scores_nc, -jnp.inf)
    _, (proposal, label, real) = lax.scan(take, start, length=count)
    return proposal.astype(jnp.int32), label.astype(jnp.int32), real
