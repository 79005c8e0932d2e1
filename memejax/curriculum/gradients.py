"""Expected gradient length as an active score.

As in `scores`: high = harder, float32, NaN only if the example's own values are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.curriculum.scores import checked

Tree = Any


def expected_gradient_length(
    loss_fn: Callable[[Tree, Tree, jax.Array], jax.Array],
    params: Tree,
    inputs: Tree,
    *,
    probs: ArrayLike,
) -> jax.Array:
    """Expected length of an example's gradient over its predicted label.

    `sum_c p_c || grad_params loss(params, x, c) ||_2`, the norm over all parameters.

    Classes are processed one after another, and for each class the gradients of all
    examples at once: this takes n times the memory of params, so pass few examples, or
    the parameters of the last layers only. `last_layer_gradient_length` is the closed
    form for a linear last layer.

    Args:
        loss_fn: (params, one example, int32 class) -> scalar loss. The example has no
            batch axis.
        params: tree of float arrays, differentiated.
        inputs: tree of arrays `[n, ...]`.
        probs: `[n, C]` of any float dtype: predicted probabilities.

    Returns:
        float32 `[n]`, at least 0, high = harder.

    Raises:
        ValueError: if probs is not `[n, C]` with C >= 2, or if a leaf of inputs has
            another number of examples.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (2.4).

    >>> def squared_error(w, x, label):
    ...     return (w * x - label) ** 2 / 2  # gradient (w x - label) x
    >>> lengths = expected_gradient_length(
    ...     squared_error, 1.0, jnp.array([2.0]), probs=jnp.array([[0.25, 0.75]])
    ... )
    >>> print(lengths)  # 0.25 * 2 * 2 + 0.75 * 1 * 2
    [2.5]
    """
    probs = checked(probs, "probs")
    if probs.ndim != 2:
        raise ValueError(
            f"got probs of shape {probs.shape}, expected [examples, classes]"
        )
    examples, classes = probs.shape
    for leaf in jax.tree.leaves(inputs):
        if jnp.ndim(leaf) < 1 or jnp.shape(leaf)[0] != examples:
            raise ValueError(
                f"got inputs of shape {jnp.shape(leaf)} and probs of shape "
                f"{probs.shape}, expected inputs of shape ({examples}, ...)"
            )

    def length(example: Tree, label: jax.Array) -> jax.Array:
        gradient = jax.grad(loss_fn)(params, example, label)
        leaves = (jnp.asarray(x, jnp.float32) for x in jax.tree.leaves(gradient))
        return _root(jnp.asarray(sum(jnp.sum(leaf**2) for leaf in leaves)))

    lengths_cn = jax.lax.map(
        lambda label: jax.vmap(length, in_axes=(0, None))(inputs, label),
        jnp.arange(classes, dtype=jnp.int32),
    )
    return jnp.sum(probs * lengths_cn.T, axis=-1)


def last_layer_gradient_length(
    features_nd: ArrayLike, probs_nc: ArrayLike, *, bias: bool = True
) -> jax.Array:
    """Expected gradient length of a linear last layer under softmax cross-entropy.

    `sum_c p_c ||p - e_c||_2 sqrt(||h||^2 + 1)`, without the 1 if there is no bias: the
    logits are `W h + b`, the gradient of `-ln p_c` is `(p - e_c) h^T` for W and
    `p - e_c` for b, and the norm of an outer product is the product of the norms.

    Args:
        features_nd: `[..., d]` of any float dtype: h, the input of the last layer.
        probs_nc: `[..., C]` of any float dtype: the softmax of its logits.
        bias: whether the layer has b.

    Returns:
        float32 `[...]`, at least 0, high = harder.

    Raises:
        ValueError: if C < 2 or the leading axes differ.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (2.4), for these parameters.

    >>> features = jnp.array([[2.0, 2.0]])
    >>> print(last_layer_gradient_length(features, jnp.array([[0.5, 0.5]])))
    [2.1213202]
    """
    probs = checked(probs_nc, "probs_nc")
    features = jnp.asarray(features_nd, jnp.float32)
    if features.ndim < 1 or features.shape[:-1] != probs.shape[:-1]:
        raise ValueError(
            f"got features_nd of shape {features.shape} and probs_nc of shape "
            f"{probs.shape}, expected the same leading axes"
        )
    # ||p - e_c||^2 = (1 - p_c)^2 + the squares of the others. These are the total minus
    # p_c^2, except for the largest p_c, where the difference would cancel.
    squares = probs**2
    largest = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1]) > 0
    rest = jnp.sum(jnp.where(largest, 0.0, squares), axis=-1, keepdims=True)
    total = jnp.sum(squares, axis=-1, keepdims=True)
    others = jnp.where(largest, rest, total - squares)
    error = jnp.sum(probs * _root((1.0 - probs) ** 2 + others), axis=-1)
    return error * _root(jnp.sum(features**2, axis=-1) + (1.0 if bias else 0.0))


def _root(x: jax.Array) -> jax.Array:
    """Square root with gradient 0, instead of infinity, at 0."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))
