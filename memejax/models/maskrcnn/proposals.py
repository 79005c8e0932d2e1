"""Proposals: boxes that may contain an object of any class.

Shape suffixes: `b` batch, `n` anchors per level, `r` proposals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.layers import Dtype
from memejax.models.maskrcnn.anchors import RATIOS, SIZES, level_anchors
from memejax.models.maskrcnn.boxes import clip, decode, has_sides
from memejax.models.maskrcnn.layers import BiasedConv
from memejax.models.maskrcnn.nms import nms

MIN_SIDE = 1e-3


class Proposals(NamedTuple):
    """Boxes `[b, r, 4]`, objectness `[b, r]` in [0, 1], and the mask `[b, r]`.

    By descending score; padding (`where` False) is 0 and comes last.
    """

    boxes: jax.Array
    scores: jax.Array
    where: jax.Array


class ProposalHead(nn.Module):
    """Objectness and deltas of every anchor of a level, shared by all levels.

    Parameters: `conv` (3x3), `logits` and `deltas` (1x1), each a `BiasedConv`.
    """

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, map_bhwc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map `[b, h, w, c]` to logits `[b, n]` and deltas `[b, n, 4]`, float32."""
        shapes = len(RATIOS)
        conv = BiasedConv(self.channels, 3, self.dtype, name="conv")
        x = nn.relu(conv(map_bhwc))
        logits = BiasedConv(shapes, 1, self.dtype, name="logits")(x)
        deltas = BiasedConv(4 * shapes, 1, self.dtype, name="deltas")(x)
        b = x.shape[0]
        return (
            logits.astype(jnp.float32).reshape(b, -1),
            deltas.astype(jnp.float32).reshape(b, -1, 4),
        )


def best_proposals(
    logits: Sequence[jax.Array],
    deltas: Sequence[jax.Array],
    *,
    grids: Sequence[tuple[int, int]],
    canvas: tuple[int, int],
    sizes: jax.Array,
    candidates: int,
    count: int,
    nms_threshold: float,
) -> Proposals:
    """Select the best boxes of all levels.

    In each level the `candidates` anchors with the highest logits are decoded, clipped
    to the image and, if both sides are at least 1e-3, go through non-maximum
    suppression within the level. The `count` highest sigmoids of all levels are kept.
    Equal sigmoids are ordered by level, then by descending logit; equal logits by
    anchor. (The reference does not define the order of ties. Logits of 17 and more all
    have a sigmoid of 1 in float32.)

    Args:
        logits: `[b, n]` of each level.
        deltas: `[b, n, 4]` of each level.
        grids: height and width of each level's map.
        canvas: height and width of the canvas.
        sizes: `[b, 2]` true height and width of the images.
        candidates: largest number of boxes per level before suppression.
        count: largest number of boxes in total.
        nms_threshold: in [0, 1].

    Returns:
        `min(count, levels * candidates)` proposals per image.

    References:
        Ren et al. 2015, arXiv:1506.01497, section 3.1.
    """
    most = min(candidates, max(x.shape[1] for x in logits))
    boxes, scores = [], []
    for i, grid in enumerate(grids):
        n = min(candidates, logits[i].shape[1])
        best, index = lax.top_k(logits[i], n)
        anchors = level_anchors(grid, SIZES[i], canvas=canvas)[index]
        chosen = jnp.take_along_axis(deltas[i], index[..., None], axis=1)
        # Pad levels to one length, so that all go through one suppression.
        pad = ((0, 0), (0, most - n))
        boxes.append(jnp.pad(decode(chosen, anchors), (*pad, (0, 0))))
        scores.append(jnp.pad(jax.nn.sigmoid(best), pad, constant_values=-1.0))
    boxes = clip(jnp.stack(boxes, axis=1), sizes[:, None, None])
    scores = jnp.stack(scores, axis=1)
    where = has_sides(boxes, MIN_SIDE) & (scores >= 0.0)

    def suppress(boxes, scores, where):
        return nms(boxes, scores, threshold=nms_threshold, where=where)

    keep = jax.vmap(jax.vmap(suppress))(boxes, scores, where)
    b, levels, _ = scores.shape
    scores = jnp.where(keep, scores, -1.0).reshape(b, -1)
    scores, index = lax.top_k(scores, min(count, levels * most))
    boxes = jnp.take_along_axis(boxes.reshape(b, -1, 4), index[..., None], axis=1)
    where = scores >= 0.0
    boxes = jnp.where(where[..., None], boxes, 0.0)
    return Proposals(boxes, jnp.maximum(scores, 0.0), where)
