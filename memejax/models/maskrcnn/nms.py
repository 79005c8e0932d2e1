"""Non-maximum suppression with static shapes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memejax.models.maskrcnn.boxes import iou


def nms(
    boxes_n4: jax.Array,
    scores_n: jax.Array,
    *,
    threshold: float,
    where: jax.Array | None = None,
) -> jax.Array:
    """Apply greedy non-maximum suppression; return a mask of the boxes to keep.

    From the highest score to the lowest, a box is kept unless its intersection over
    union with a box kept before it is greater than `threshold`. Ties go to the lower
    index.

    The greedy choice is the only solution of

        keep_i = not any_j (keep_j and j comes before i and iou_ij > threshold)

    and is found by applying the right side until nothing changes. That takes as many
    passes as the longest chain of boxes that suppress one another: a handful for a
    thousand boxes, where a loop over the boxes takes a thousand steps.

    Args:
        boxes_n4: `[n, 4]`.
        scores_n: `[n]`, without NaN.
        threshold: in [0, 1].
        where: `[n]` bool, the boxes to consider; None for all.

    Returns:
        `[n]` bool.

    Raises:
        ValueError: for arrays of other shapes.
    """
    n = scores_n.shape[0] if scores_n.ndim == 1 else -1
    if boxes_n4.shape != (n, 4) or (where is not None and where.shape != (n,)):
        masked = "" if where is None else f" and where {list(where.shape)}"
        raise ValueError(
            f"got boxes {list(boxes_n4.shape)}, scores {list(scores_n.shape)}{masked}, "
            "expected [n, 4], [n] and [n]"
        )
    considered = jnp.ones(n, bool) if where is None else where
    index = jnp.arange(n)
    higher = scores_n[:, None] > scores_n[None, :]
    tied = scores_n[:, None] == scores_n[None, :]
    before = higher | (tied & (index[:, None] < index[None, :]))
    removes = before & (iou(boxes_n4, boxes_n4) > round_down(threshold))

    def body(state):
        keep, _ = state
        removed = jnp.any(removes & keep[:, None], axis=0)
        after = considered & ~removed
        return after, jnp.any(after != keep)

    return lax.while_loop(lambda state: state[1], body, (considered, n > 0))[0]


def round_down(threshold: float) -> np.float32:
    """Round a threshold down to float32.

    A float32 is above the result exactly if it is above the threshold itself, even if
    the nearest float32 is above the threshold (0.3 is 0.30000001 in float32).
    """
    near = np.float32(threshold)
    return near if float(near) <= threshold else np.nextafter(near, np.float32(-1))
