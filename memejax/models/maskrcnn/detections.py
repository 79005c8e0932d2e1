"""Detections: the objects that are left in the end.

Shape suffixes: `n` proposals, `c` classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.maskrcnn.boxes import iou
from memejax.models.maskrcnn.nms import below


class Detections(NamedTuple):
    """The objects found in a batch of pictures, k each, the surest first.

    What is not real (`where` False) is 0 everywhere and comes last.

    Attributes:
        boxes: `[b, k, 4]` (x1, y1, x2, y2) in pixels of the canvas.
        scores: `[b, k]` probability of the class.
        labels: `[b, k]` int32, from 1 (0 is the background).
        masks: `[b, k, 28, 28]` probability, on a grid over the box, that a pixel is
            the object's; None where they are not asked for.
        features: `[b, k, 1024]`, fc7 of the proposal that the box was made from: the
            vector that its class, score and place were read from.
        where: `[b, k]` bool, the real ones.
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
    """The first boxes that non-maximum suppression in each class keeps.

    `count` times the highest score is taken, and everything of its class removed that
    overlaps its box by more than the threshold. That is the beginning of greedy
    suppression over all n * c boxes, without a matrix of their overlaps. Of equal
    scores the lower proposal, then the lower class, is first.

    Args:
        boxes_nc4: `[n, c, 4]`, a box a proposal and class.
        scores_nc: `[n, c]`.
        where: `[n, c]` bool, the boxes that take part.
        count: boxes to take.
        nms_threshold: in [0, 1].

    Returns:
        Proposals `[count]` and classes `[count]` int32, and `[count]` bool: whether
        there was one more. In descending order of their scores.
    """
    n, classes = scores_nc.shape
    threshold = below(nms_threshold)
    place = jnp.arange(n * classes).reshape(n, classes)
    columns = jnp.arange(classes)

    def take(left_nc, _):
        best = jnp.argmax(left_nc)
        proposal, label = best // classes, best % classes
        real = left_nc[proposal, label] > -jnp.inf
        overlap = iou(boxes_nc4[proposal, label][None], boxes_nc4[:, label])[0]
        gone = (overlap > threshold)[:, None] & (columns == label)[None, :]
        left_nc = jnp.where(gone | (place == best), -jnp.inf, left_nc)
        return left_nc, (proposal, label, real)

    start = jnp.where(where, scores_nc, -jnp.inf)
    _, (proposal, label, real) = lax.scan(take, start, length=count)
    return proposal.astype(jnp.int32), label.astype(jnp.int32), real
