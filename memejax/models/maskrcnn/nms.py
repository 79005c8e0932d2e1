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
    """Which boxes greedy non-maximum suppression keeps.

    From the highest score to the lowest, a box is kept unless its intersection over
    union with a box kept before it is greater than `threshold`. Of equal scores, the
    box of the lower index comes first.

    The greedy choice is the only solution of

        keep_i = not any_j (keep_j and j comes before i and iou_ij > threshold)

    and is found by applying the right side until nothing changes, which takes as
    many passes as the longest chain of boxes that save one another: a handful for
    a thousand boxes, where the loop over the boxes takes a thousand steps.

    Args:
        boxes_n4: `[n, 4]`.
        scores_n: `[n]`, without NaN.
        threshold: in [0, 1].
        where: `[n]` bool, the boxes that take part; None for all.

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
    takes_part = jnp.ones(n, bool) if where is None else where
    place = jnp.arange(n)
    higher = scores_n[:, None] > scores_n[None, :]
    tied = scores_n[:, None] == scores_n[None, :]
    before = higher | (tied & (place[:, None] < place[None, :]))
    removes = before & (iou(boxes_n4, boxes_n4) > below(threshold))

    def again(state):
        keep, _ = state
        removed = jnp.any(removes & keep[:, None], axis=0)
        after = takes_part & ~removed
        return after, jnp.any(after != keep)

    return lax.while_loop(lambda state: state[1], again, (takes_part, n > 0))[0]


def below(threshold: float) -> np.float32:
    """The largest float32 that is not above a threshold.

    A float32 is above it exactly where it is above the threshold itself, also where
    the float32 next to the threshold is (0.3 is 0.30000001 in float32).
    """
    near = np.float32(threshold)
    return near if float(near) <= threshold else np.nextafter(near, np.float32(-1))
