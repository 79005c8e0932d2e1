"""Collapse of a representation: three measures and a rule to detect it."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.reductions import as_mask

# A tenth of the value for evenly spread unit vectors.
MIN_STD = 0.1
# Two examples are within 18 degrees of each other on average.
MAX_MEAN_COSINE = 0.95
# All examples on one line (a constant output has rank 1).
MIN_EFFECTIVE_RANK = 2.0


def collapse_panel(
    outputs: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """Compute measures of collapse of a batch of outputs, three scalars.

    With u = z / |z| (0 for a zero vector), n examples, d dimensions and p the
    singular values of the (uncentred) outputs over their sum:

        std            = sqrt(d) mean_j std_i(u_ij)
        mean_cosine    = mean_{i != k} <u_i, u_k>
        effective_rank = exp(-sum_k p_k log p_k)

    Args:
        outputs: `[batch, dim]` of any float dtype; computed in float32.
        where: bool `[batch]`, the examples to include; the others have no effect.
        axis_name: the mapped axis (pmap, vmap) that splits the batch, or None; with it
            every device gathers all outputs.

    Returns:
        `{"std", "mean_cosine", "effective_rank"}`, float32 scalars. For collapsed
        outputs std is 0, mean_cosine 1 and effective_rank 1; for evenly spread ones
        they are near 1, near 0 and at most min(n, d). All are NaN with fewer than two
        examples.

    Raises:
        ValueError: if outputs is not `[batch, dim]` or where is not `[batch]`.

    References:
        std: Chen and He, arXiv 2011.10566, section 4.1. effective_rank: Garrido et
        al., RankMe, arXiv 2210.02885, eq. 1 (without its eps: 0 log 0 is 0 here).

    >>> panel = collapse_panel(jnp.array([[2.0, 0.0], [0.0, 2.0]]))
    >>> print({name: round(float(value), 4) for name, value in panel.items()})
    {'std': 0.7071, 'mean_cosine': 0.0, 'effective_rank': 2.0}
    """
    outputs = jnp.asarray(outputs, jnp.float32)
    if outputs.ndim != 2:
        raise ValueError(f"got outputs of shape {outputs.shape}, expected [batch, dim]")
    batch, dim = outputs.shape
    included = as_mask(where, (batch,))
    if axis_name is not None:
        # Singular values do not add up over parts of the batch.
        outputs, included = (
            jax.lax.all_gather(x, axis_name, tiled=True) for x in (outputs, included)
        )
    mask = included[:, None]
    # Rows of zeros add nothing to a sum and only zeros to the singular values.
    outputs = jnp.where(mask, outputs, 0.0)
    count = jnp.sum(included, dtype=jnp.float32)
    enough = count >= 2

    norm = jnp.linalg.norm(outputs, axis=1, keepdims=True)
    units = outputs / jnp.where(norm > 0, norm, 1.0)
    total = jnp.sum(units, axis=0, keepdims=True)
    rows = jnp.maximum(count, 2.0)
    centred = jnp.where(mask, units - total / rows, 0.0)
    std = jnp.mean(jnp.sqrt(jnp.sum(centred**2, axis=0) / rows)) * math.sqrt(dim)
    # |sum u|^2 is the sum over all ordered pairs and each example with itself.
    pairs = jnp.sum(total**2) - jnp.sum(units**2)
    mean_cosine = pairs / (rows * (rows - 1.0))

    rank = _effective_rank(outputs)
    panel = {"std": std, "mean_cosine": mean_cosine, "effective_rank": rank}
    return {name: jnp.where(enough, value, jnp.nan) for name, value in panel.items()}


def is_collapsed(panel: Mapping[str, ArrayLike]) -> tuple[bool, str]:
    """Whether a panel shows collapse, and why; on the host.

    Collapsed if std < `MIN_STD`, mean_cosine > `MAX_MEAN_COSINE` or
    effective_rank < `MIN_EFFECTIVE_RANK`.

    Args:
        panel: result of `collapse_panel`, with concrete values.

    Returns:
        `(True, reason)`, the reason naming each measure beyond its threshold, or
        `(False, "")`. NaN is never beyond a threshold.

    Raises:
        ValueError: if a measure is missing.

    >>> print(*is_collapsed({"std": 0.02, "mean_cosine": 0.5, "effective_rank": 9.0}))
    True std 0.020 is below 0.1
    """
    missing = {"std", "mean_cosine", "effective_rank"} - set(panel)
    if missing:
        raise ValueError(f"got a panel without {sorted(missing)}, expected all three")
    std, cosine, rank = (
        float(jnp.asarray(panel[name]))
        for name in ("std", "mean_cosine", "effective_rank")
    )
    reasons = []
    if std < MIN_STD:
        reasons.append(f"std {std:.3f} is below {MIN_STD}")
    if cosine > MAX_MEAN_COSINE:
        reasons.append(f"mean cosine {cosine:.3f} is above {MAX_MEAN_COSINE}")
    if rank < MIN_EFFECTIVE_RANK:
        reasons.append(f"effective rank {rank:.2f} is below {MIN_EFFECTIVE_RANK}")
    return bool(reasons), ", ".join(reasons)


def _effective_rank(outputs: jax.Array) -> jax.Array:
    """Compute exp of the entropy of the singular values' shares."""
    # By SVD, not from the Gram matrix: its eigenvalues' float32 noise, under a
    # root, would raise the rank of a constant output from 1.0 to about 1.3.
    # Without full_matrices=False a CPU allocates [dim, dim] for unused vectors: 17 GB
    # for DINO's 65536 prototypes.
    singular = jnp.linalg.svd(outputs, full_matrices=False, compute_uv=False)
    share = singular / jnp.maximum(jnp.sum(singular), jnp.finfo(jnp.float32).tiny)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))
