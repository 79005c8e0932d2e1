"""Grad-CAM: the image regions that raise a score of a residual network's features.

`grad_cam` is a pure function on arrays; `resnet_grad_cam` runs an encoder through its
`apply_fn` (a module's `apply`).

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Score of each example from its pooled features: [b, d] -> [b].
ScoreFn = Callable[[jax.Array], jax.Array]
# `(variables, images_bhwc, train=False, method=)`, a module's `apply`.
ApplyFn = Callable[..., Any]
Variables = Mapping[str, Any]


def grad_cam(
    maps_bhwd: ArrayLike, score_fn: ScoreFn, *, normalize: bool = True
) -> jax.Array:
    """Grad-CAM of a score of globally averaged features.

    `a_d = mean_ij dy / dA_ijd` (eq. 1), `map_ij = relu(sum_d a_d A_ijd)` (eq. 2), for
    a score y of features f that are the mean of the feature map A. Then
    `dy / dA_ijd = (dy / df_d) / (h w)`, so the network below the map is not run again.

    Args:
        maps_bhwd: the last feature map, `[b, h, w, d]`.
        score_fn: `(features [b, d]) -> [b]`; an example's score must depend on its own
            features only. Pass the negative score to show the regions that lower it.
        normalize: whether to divide each map by its largest value (a map of zeros
            stays zero); without it, maps are comparable between examples.

    Returns:
        `[b, h, w]`, at least 0; at most 1 if normalised.

    Raises:
        ValueError: if the map or the scores do not have that shape.

    References:
        Selvaraju et al., arXiv 1610.02391, eq. 1 and 2.

    >>> maps = jnp.array([[[[1.0, 0.0], [0.0, 4.0]]]])
    >>> print(grad_cam(maps, lambda f: f[:, 0] - f[:, 1], normalize=False))
    [[[0.5 0. ]]]
    """
    maps = jnp.asarray(maps_bhwd)
    if maps.ndim != 4:
        raise ValueError(f"got a map {list(maps.shape)}, expected [b, h, w, d]")
    b, h, w, d = maps.shape
    scores, pull_back = jax.vjp(score_fn, jnp.mean(maps, axis=(1, 2)))
    if scores.shape != (b,):
        raise ValueError(f"got scores {list(scores.shape)}, expected [{b}]")
    (gradient,) = pull_back(jnp.ones_like(scores))
    slopes = jnp.broadcast_to(gradient[:, None, None] / (h * w), (b, h, w, d))
    return cam_of_gradient(maps, slopes, normalize=normalize)


def cam_of_gradient(
    maps_bhwd: ArrayLike, slopes_bhwd: ArrayLike, *, normalize: bool = True
) -> jax.Array:
    """Grad-CAM of a score whose gradient by the feature map is known.

    Args:
        maps_bhwd: the feature map A, `[b, h, w, d]`.
        slopes_bhwd: `dy / dA`, of the same shape.
        normalize: as in `grad_cam`.

    Returns:
        `[b, h, w]`, at least 0; at most 1 if normalised.

    References:
        Selvaraju et al., arXiv 1610.02391, eq. 1 and 2.
    """
    maps, slopes = jnp.asarray(maps_bhwd), jnp.asarray(slopes_bhwd)
    weights = slopes.mean((1, 2))
    cam = jax.nn.relu(jnp.einsum("bd,bhwd->bhw", weights, maps))
    if normalize:
        largest = jnp.max(cam, axis=(1, 2), keepdims=True)
        cam = cam / jnp.where(largest > 0, largest, 1.0)
    return cam


def own_direction(features_bd: jax.Array) -> jax.Array:
    """Length of an embedding along its own fixed direction, as a score.

    `s = <f, stop_gradient(f / |f|)>`, whose gradient is `f / |f|`: its Grad-CAM shows,
    without a label or a head, the regions whose features resemble those of the whole
    picture.

    Args:
        features_bd: `[b, d]`.

    Returns:
        `[b]`, the norms; 0, with a gradient of 0, for a zero embedding.
    """
    squared = jnp.sum(jnp.square(features_bd), axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return jnp.sum(features_bd * jax.lax.stop_gradient(features_bd / norm), axis=-1)


def resnet_grad_cam(
    apply_fn: ApplyFn,
    variables: Variables,
    *,
    images_bhwc: ArrayLike,
    score_fn: ScoreFn | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Grad-CAM of the last stage of a residual network.

    Args:
        apply_fn: `apply` of `memejax.models.ResNet`, or of another encoder whose
            features are the mean of the last of its `feature_maps`.
        variables: its params and batch_stats.
        images_bhwc: `[b, h, w, c]` float, normalised.
        score_fn: as in `grad_cam`, a score of the network's features by some head;
            default `own_direction`, which needs no head.
        normalize: as in `grad_cam`.

    Returns:
        float32 `[b, h / 32, w / 32]` for four stages, sides rounded up.

    Raises:
        ValueError: as in `grad_cam`.
    """
    maps = apply_fn(
        variables, jnp.asarray(images_bhwc), train=False, method="feature_maps"
    )
    return grad_cam(maps[-1], score_fn or own_direction, normalize=normalize)
