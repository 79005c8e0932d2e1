"""Integrated gradients: a score's difference from a baseline, divided among inputs.

Shape suffixes: `m` points on the path, `...` of an input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any
# Scores of m inputs: trees of [m, ...] -> [m]. A score depends on its own input only.
ScoreFn = Callable[[Tree], jax.Array]


class Integrated(NamedTuple):
    """Attributions of one input.

    Attributes:
        values: tree of arrays in the shapes of the input; positive raises the score.
        score: of the input, scalar.
        baseline_score: of the baseline, scalar.
        total: sum of all values, scalar, which more steps bring nearer to
            `score - baseline_score`.
    """

    values: Tree
    score: jax.Array
    baseline_score: jax.Array
    total: jax.Array

    @property
    def gap(self) -> jax.Array:
        """Relative error of the total; complete attributions have 0, scalar."""
        difference = self.score - self.baseline_score
        error = jnp.abs(self.total - difference)
        return error / jnp.maximum(jnp.abs(difference), jnp.finfo(jnp.float32).tiny)


def integrated_gradients(
    score_fn: ScoreFn,
    inputs: Tree,
    *,
    baseline: Tree,
    steps: int = 32,
    batch: int | None = None,
) -> Integrated:
    """Attribute a score to its inputs along the line from a baseline.

        a_i = (x_i - x'_i) 1/n sum_k dF/dx_i (x' + (k - 1/2) / n (x - x')),  k = 1..n

    the midpoint rule for the integral, which is exact if the gradient is linear.

    Args:
        score_fn: F, `(tree of [m, ...]) -> [m]`, differentiable.
        inputs: x, a tree of float arrays of one example.
        baseline: x', a tree of the same structure and shapes.
        steps: n, points on the path.
        batch: number of points per call of `score_fn`, a divisor of `steps`; all at
            once if None.

    Returns:
        Integrated.

    Raises:
        ValueError: if `batch` does not divide `steps`, or the shapes differ.

    References:
        Sundararajan et al., arXiv 1703.01365, eq. 1 and 3, proposition 1.

    >>> found = integrated_gradients(
    ...     lambda x: x[:, 0] * x[:, 1], jnp.array([2.0, 3.0]), baseline=jnp.zeros(2)
    ... )
    >>> print(found.values, found.total)
    [3. 3.] 6.0
    """
    batch = batch or steps
    if steps < 1 or steps % batch:
        raise ValueError(f"got batch {batch}, expected a divisor of {steps} steps")
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (inputs, baseline)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"got a baseline of shapes {shapes[1]}, expected {shapes[0]} as of the "
            "inputs"
        )
    difference = jax.tree.map(lambda x, y: x - y, inputs, baseline)

    def points(weights: jax.Array) -> Tree:
        return jax.tree.map(
            lambda x, d: x[None] + weights.reshape(-1, *[1] * x.ndim) * d[None],
            baseline,
            difference,
        )

    def add(total: Tree, weights: jax.Array) -> tuple[Tree, None]:
        slopes = jax.grad(lambda x: score_fn(x).sum())(points(weights))
        return jax.tree.map(lambda t, s: t + s.sum(0), total, slopes), None

    weights = ((jnp.arange(steps) + 0.5) / steps).reshape(-1, batch)
    zeros = jax.tree.map(jnp.zeros_like, difference)
    summed, _ = jax.lax.scan(add, zeros, weights)
    values = jax.tree.map(lambda d, s: d * s / steps, difference, summed)
    # As many points as before, so that a score function of one batch size will do.
    ends = score_fn(points((jnp.arange(batch) > 0).astype(jnp.float32)))
    alone = score_fn(points(jnp.ones(batch)))
    total = sum(leaf.sum() for leaf in jax.tree.leaves(values))
    return Integrated(values, alone[0], ends[0], jnp.asarray(total))
