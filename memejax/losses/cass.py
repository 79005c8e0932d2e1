"""Agreement of two arms: the CASS loss and SimSiam's negative cosine."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.losses.cosine import unit_rows


def cass(x: ArrayLike, y: ArrayLike, *, eps: float = 1e-12) -> jax.Array:
    """Compute the CASS loss, the disagreement of two arms' outputs, per example.

    `2 - 2 cos(x, y) = |x / |x| - y / |y||^2`, symmetric, with a gradient to both
    arms. A constant output is a minimiser: combine it with
    `memejax.losses.variance_covariance`, or monitor `memejax.losses.collapse_panel`.

    Args:
        x: one arm's outputs (raw, not a softmax), `[batch, dim]` of any float dtype;
            computed in float32.
        y: the other arm's outputs, the same shape.
        eps: norm up to which a vector counts as zero: its cosine is 0 and no gradient
            flows through it.

    Returns:
        Losses in [0, 4], float32 `[batch]`: 0 parallel, 2 orthogonal, 4 opposite.

    Raises:
        ValueError: if the shapes differ or are scalars.

    References:
        Singh et al., Cross-Architectural Self-Supervision, arXiv 2206.04170.

    >>> print(cass(jnp.array([[3.0, 0.0], [3.0, 0.0]]), jnp.array([[0, 1.0], [1, 0]])))
    [2. 0.]
    """
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    if x.shape != y.shape or x.ndim == 0:
        raise ValueError(
            f"got outputs of shapes {x.shape} and {y.shape}, expected one shape "
            "[batch, dim] for both arms"
        )
    return 2.0 - 2.0 * jnp.sum(unit_rows(x, eps=eps) * unit_rows(y, eps=eps), axis=-1)


def negative_cosine(
    prediction: ArrayLike, target: ArrayLike, *, eps: float = 1e-12
) -> jax.Array:
    """Compute SimSiam's distance from a prediction to a fixed target, per example.

    `2 - 2 cos(prediction, stop_gradient(target))`: SimSiam's `-cos` on the scale of
    `cass` (the gradient is twice SimSiam's).

    Args:
        prediction: the predictor's outputs, `[batch, dim]`, computed in float32.
        target: the other branch's projections, the same shape; receives no gradient.
        eps: as in `cass`.

    Returns:
        Losses in [0, 4], float32 `[batch]`.

    Raises:
        ValueError: if the shapes differ or are scalars.

    References:
        Chen and He, Exploring Simple Siamese Representation Learning,
        arXiv 2011.10566, eq. 1 and 3.

    >>> prediction, target = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> print(negative_cosine(prediction, target))
    [2.]
    >>> print(jax.grad(lambda t: negative_cosine(prediction, t).sum())(target))
    [[0. 0.]]
    """
    return cass(prediction, jax.lax.stop_gradient(target), eps=eps)
