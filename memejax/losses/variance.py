"""Terms against collapse: standardisation, and VICReg's variance and covariance.

All couple the examples of a batch, so all take a mask `where` and the name of the
mapped axis over which the batch is split.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.reductions import as_mask, sum_over_axis


def standardize(
    outputs: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """Standardise each dimension to mean 0 and variance 1 over the batch.

    `(z - mean z) / sqrt(var z + eps)` with the biased variance (division by n), as
    BatchNorm without its affine part.

    Args:
        outputs: `[batch, dim]` of any float dtype; computed in float32.
        where: bool `[batch]`, the examples to include. The others become 0.
        axis_name: the mapped axis (pmap, vmap) that splits the batch, or None.
        eps: added to the variance.

    Returns:
        float32 `[batch, dim]`.

    Raises:
        ValueError: if outputs is not `[batch, dim]` or where is not `[batch]`.

    References:
        Ioffe and Szegedy, Batch Normalization, arXiv 1502.03167, algorithm 1.

    >>> print(standardize(jnp.array([[1.0, 5.0], [3.0, 5.0]]), eps=0.0001).round(2))
    [[-1.  0.]
     [ 1.  0.]]
    """
    centred, count = _centre(outputs, where, axis_name)
    variance = _sum_rows(centred**2, axis_name) / count
    return centred / jnp.sqrt(variance + eps)


def variance_covariance(
    outputs: ArrayLike,
    *,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
    target: float = 1.0,
    eps: float = 1e-4,
) -> tuple[jax.Array, jax.Array]:
    """Compute VICReg's variance and covariance terms, two scalars.

    With C the covariance over the batch (divided by n - 1) of the d dimensions:

        variance   = mean_j relu(target - sqrt(C_jj + eps))
        covariance = sum_{i != j} C_ij^2 / d

    If the batch is much smaller than d, the off-diagonal sum is computed from the
    products of examples: `sum_ij C_ij^2 = |Z Z^T|_F^2 / (n - 1)^2`, which is equal and
    cheaper.

    Under a mapped axis every device gets both scalars of the global batch, and the
    mean over devices (`pmean`) of the gradients is the global gradient.

    Args:
        outputs: `[batch, dim]` of any float dtype; computed in float32.
        where: bool `[batch]`, the examples to include.
        axis_name: the mapped axis (pmap, vmap) that splits the batch, or None.
        target: the standard deviation below which a dimension is penalised.
        eps: added to the variance under the root.

    Returns:
        `(variance, covariance)`, float32 scalars, both at least 0.

    Raises:
        ValueError: if outputs is not `[batch, dim]` or where is not `[batch]`.

    References:
        Bardes, Ponce and LeCun, VICReg, arXiv 2105.04906, eq. 1 to 4.

    >>> outputs = jnp.array([[1.0, 1.0], [-1.0, -1.0]])  # C is 2 everywhere
    >>> variance, covariance = variance_covariance(outputs)
    >>> print(variance, covariance)
    0.0 4.0
    """
    centred, count = _centre(outputs, where, axis_name)
    freedom = jnp.maximum(count - 1.0, 1.0)
    variances = _sum_rows(centred**2, axis_name) / freedom
    variance = jnp.mean(jax.nn.relu(target - jnp.sqrt(variances + eps)))
    squares = _off_diagonal(centred, variances, freedom, axis_name)
    return variance, squares / centred.shape[1]


def _off_diagonal(
    centred: jax.Array,
    variances: jax.Array,
    freedom: jax.Array,
    axis_name: str | None,
) -> jax.Array:
    """Sum the squares of the covariance's off-diagonal elements."""
    batch, dim = centred.shape
    shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    # Full precision, as GPUs round factors to 10 bits by default and the diagonal is
    # subtracted from the sum below.
    high = jax.lax.Precision.HIGHEST
    # From d = 2n on the off-diagonal part outweighs the diagonal (C has rank n - 1
    # at most), so that the subtraction loses nothing.
    if dim >= 2 * batch * shards:
        rows = centred
        if axis_name is not None:
            rows = jax.lax.all_gather(centred, axis_name, tiled=True)
        gram = jnp.matmul(centred, rows.T, precision=high)
        total = sum_over_axis(jnp.sum(gram**2), axis_name) / freedom**2
        # Rounding could bring it below 0.
        return jax.nn.relu(total - jnp.sum(variances**2))
    products = jnp.matmul(centred.T, centred, precision=high)
    matrix = sum_over_axis(products, axis_name) / freedom
    return jnp.sum(jnp.where(jnp.eye(dim, dtype=bool), 0.0, matrix) ** 2)


def _centre(
    outputs: ArrayLike, where: ArrayLike | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return centred float32 outputs, 0 where masked, and the number of examples."""
    outputs = jnp.asarray(outputs, jnp.float32)
    if outputs.ndim != 2:
        raise ValueError(f"got outputs of shape {outputs.shape}, expected [batch, dim]")
    included = as_mask(where, outputs.shape[:1])
    mask = included[:, None]
    # Masked before anything else: a padded row may hold anything, even NaN.
    outputs = jnp.where(mask, outputs, 0.0)
    count = jnp.sum(included, dtype=jnp.float32)
    count = jnp.maximum(sum_over_axis(count, axis_name), 1.0)
    mean = _sum_rows(outputs, axis_name) / count
    return jnp.where(mask, outputs - mean, 0.0), count


def _sum_rows(values: jax.Array, axis_name: str | None) -> jax.Array:
    """Sum over the (global) batch, `[1, dim]`."""
    return sum_over_axis(jnp.sum(values, axis=0, keepdims=True), axis_name)
