"""Kernel logistic regression on both features, a head without a width.

Shape suffixes: `n` training memes, `b` memes, `d` features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Newton's steps; from a neighbouring penalty five are enough.
MOST = 50
# Largest change of a log odds at which Newton's method has arrived.
TOLERANCE = 1e-6


class KernelFit(NamedTuple):
    """A fitted kernel machine, `f(x) = sum_j alpha_j k(x, x_j) + bias`.

    Attributes:
        alpha: float64 `[n]`.
        bias: a number.
    """

    alpha: np.ndarray
    bias: float


def summed_rbf(
    image_bd: jax.Array,
    text_bd: jax.Array,
    *,
    image_nd: jax.Array,
    text_nd: jax.Array,
    gamma: float | jax.Array,
    image_share: float | jax.Array,
) -> jax.Array:
    """Compute the kernel of memes with training memes, `[b, n]`.

        k = s exp(-gamma (1 - v . v')) + (1 - s) exp(-gamma (1 - t . t'))

    v and t are unit vectors of picture and caption, s the share of the pictures. For
    unit vectors 1 - v . v' is half of their squared distance: both are RBF kernels.

    Args:
        image_bd: pictures, float32 `[b, d]`, rows of length 1.
        text_bd: captions, likewise.
        image_nd: pictures of the training memes, likewise.
        text_nd: captions of the training memes, likewise.
        gamma: above 0.
        image_share: s in [0, 1].
    """
    sides = []
    for one, other in ((image_bd, image_nd), (text_bd, text_nd)):
        # Full float32: a GPU would use TF32, whose cosines are good to 3 digits.
        cosine = jnp.matmul(one, other.T, precision=lax.Precision.HIGHEST)
        sides.append(jnp.exp(-gamma * (1 - cosine)))
    return image_share * sides[0] + (1 - image_share) * sides[1]


def fit_kernel_logistic(
    kernel_nn: np.ndarray,
    labels: np.ndarray,
    *,
    penalty: float,
    start: KernelFit | None = None,
) -> KernelFit:
    """Fit kernel logistic regression by Newton's method, in float64.

        min_{alpha, b} sum_i log(1 + exp(-z_i f_i)) + penalty / 2 alpha^T K alpha,
        f = K alpha + b,  z_i = 2 y_i - 1

    Each step is a weighted ridge regression: with p = sigmoid(f), w = p (1 - p) and
    r = f + (y - p) / w it solves (K + penalty / w) alpha = r - b, sum(alpha) = 0.

    Args:
        kernel_nn: K, float `[n, n]`, symmetric and positive semidefinite.
        labels: y, 0 or 1, `[n]`, both occur.
        penalty: above 0.
        start: a fit with another penalty, to begin with.

    Raises:
        ValueError: if it does not arrive after `MOST` steps, or K is not as above.

    References:
        Jaakkola and Haussler 1999, Probabilistic kernel regression models; Rasmussen
        and Williams 2006, Gaussian processes for machine learning, algorithm 3.1.
    """
    kernel, y = np.asarray(kernel_nn, np.float64), np.asarray(labels, np.float64)
    if start is None:
        share = y.mean()
        start = KernelFit(np.zeros(len(y)), float(np.log(share / (1 - share))))
    alpha, bias = start

    def values(alpha: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
        """Return f and the objective."""
        smooth = kernel @ alpha
        f = smooth + bias
        losses = np.logaddexp(0, (1 - 2 * y) * f)
        return f, float(losses.sum() + penalty / 2 * (alpha @ smooth))

    f, objective = values(alpha, bias)
    change = np.inf
    for _ in range(MOST):
        to_alpha, to_bias = _newton(kernel, y, f, penalty=penalty)
        step = 1.0
        new, reached = values(to_alpha, to_bias)
        # From afar a whole step may overshoot; the objective is convex.
        while not reached <= objective + 1e-9 * abs(objective) and step > 1e-6:
            step /= 2
            tried = alpha + step * (to_alpha - alpha), bias + step * (to_bias - bias)
            new, reached = values(*tried)
        alpha = alpha + step * (to_alpha - alpha)
        bias = bias + step * (to_bias - bias)
        change = float(np.abs(new - f).max())
        f, objective = new, reached
        if change < TOLERANCE:
            return KernelFit(alpha, bias)
    raise ValueError(
        f"kernel logistic regression with a penalty of {penalty} has not converged "
        f"after {MOST} steps (a log odds still changes by {change:.2g})"
    )


def _newton(
    kernel: np.ndarray, y: np.ndarray, f: np.ndarray, *, penalty: float
) -> tuple[np.ndarray, float]:
    """Return alpha and bias after a whole step of Newton's method."""
    # Imported here: every command imports the networks, and few fit a kernel.
    from scipy import linalg, special

    p = special.expit(f)
    # Of memes that are certain the weight vanishes, and its inverse grows.
    weight = np.maximum(p * (1 - p), 1e-10)
    target = f + (y - p) / weight
    system = kernel + np.diag(penalty / weight)
    try:
        factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError as error:
        reason = f"the kernel is not positive semidefinite: {error}"
        raise ValueError(reason) from error
    sides = np.stack([target, np.ones(len(y))], axis=1)
    solved = linalg.cho_solve(factor, sides, check_finite=False)
    bias = float(solved[:, 0].sum() / solved[:, 1].sum())
    return solved[:, 0] - bias * solved[:, 1], bias
