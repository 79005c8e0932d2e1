"""Retrieval-guided contrastive losses: a meme against retrieved ones and its batch.

Positives and hard negatives come in as embeddings, retrieved by
`memejax.losses.mine`. Gradients flow to them as to everything else: the caller stops
them, or not.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from memejax.losses.cosine import as_integers, as_rows, unit_rows
from memejax.losses.reductions import as_mask, check_scalar


def rgcl_hinge(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    positives: ArrayLike,
    negatives: ArrayLike,
    margin: float | jax.Array = 0.1,
    where_positive: ArrayLike | None = None,
    where_negative: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute RGCL's loss as its code has it, per example.

        max(0, mean_{j: y_j != y_i} cos(g_i, g_j) + cos(g_i, h_i) - cos(g_i, p_i) + m)

    j runs over the batch. A term without an example (no other label in the batch, no
    hard negative, no positive) is 0. The code adds the binary cross-entropy, both with
    weight 1/2. The paper has a softmax: `rgcl_contrastive`.

    In the code the positives and negatives are embeddings of an index that is made at
    the first step of each epoch, with gradient, and detached after that step. Pass
    `jax.lax.stop_gradient` of them for the loss of all other steps. The gradient of
    the batch's own cosines flows to both examples, as in the code.

    Args:
        embeddings: g, `[batch, dim]` of any float dtype, not normalised; computed in
            float32. A zero vector has the cosine 0 and receives no gradient.
        labels: integers `[batch]`, at least 0. Unknown labels (-1) must be masked by
            where: their loss is NaN.
        positives: p, `[batch, dim]`, an example of the same label for each.
        negatives: h, `[batch, dim]`, one of another label.
        margin: m, a scalar, at least 0.
        where_positive: bool `[batch]`, False if there is no positive.
        where_negative: bool `[batch]`, False if there is no hard negative.
        where: bool `[batch]`, the examples to include. The others' loss and gradient
            are 0, and they are no one's negatives.
        axis_name: the mapped axis (pmap, shard_map, vmap) that splits the batch, or
            None; with it the mean is over the global batch.

    Returns:
        float32 `[batch]`, at least 0.

    Raises:
        ValueError: if shapes or dtypes do not fit, or a concrete margin is below 0.

    References:
        Mei et al., Improving Hateful Meme Detection through Retrieval-Guided
        Contrastive Learning, arXiv 2311.08110.

    >>> g, h = jnp.eye(2), jnp.array([[2.0, 0.0], [2.0, 0.0]])
    >>> p, labels = jnp.array([[0.0, 1.0], [0.0, 1.0]]), jnp.array([1, 0])
    >>> print(rgcl_hinge(g, labels, positives=p, negatives=h, margin=0.5))
    [1.5 0. ]
    """
    check_scalar("margin", margin, expected="at least 0", holds=lambda m: m >= 0)
    own, labels, mask = _prepare(embeddings, labels, where=where)
    has_positive = mask & as_mask(where_positive, mask.shape)
    has_negative = mask & as_mask(where_negative, mask.shape)
    to_positive = _cosine_to(own, positives, name="positives", where=has_positive)
    to_negative = _cosine_to(own, negatives, name="negatives", where=has_negative)
    cosine, opposite = _batch_cosines(own, labels, where=mask, axis_name=axis_name)
    count = jnp.sum(opposite, axis=1, dtype=jnp.float32)
    in_batch = jnp.sum(jnp.where(opposite, cosine, 0.0), axis=1)
    in_batch = in_batch / jnp.maximum(count, 1.0)
    loss = jax.nn.relu(in_batch + to_negative - to_positive + margin)
    return _finish(loss, labels, mask)


def rgcl_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    positives: ArrayLike,
    negatives: ArrayLike,
    temperature: float | jax.Array = 1.0,
    where_positive: ArrayLike | None = None,
    where_negative: ArrayLike | None = None,
    where: ArrayLike | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute RGCL's loss as the paper has it, per example.

        -log (e^{s(g_i, p_i)} / (e^{s(g_i, p_i)} + sum_k e^{s(g_i, n_k)}))

    with s the cosine over the temperature; the n_k are the hard negative h_i and all
    examples of another label in the batch. The paper adds the binary cross-entropy. An
    example without a positive has a loss of 0, as has one without any negative.

    The index is fixed in the paper's formula: pass `jax.lax.stop_gradient` of the
    positives and negatives.

    Args:
        embeddings: as in `rgcl_hinge`.
        labels: as in `rgcl_hinge`.
        positives: as in `rgcl_hinge`.
        negatives: as in `rgcl_hinge`.
        temperature: a scalar above 0; the paper has none, that is 1.
        where_positive: as in `rgcl_hinge`.
        where_negative: as in `rgcl_hinge`.
        where: as in `rgcl_hinge`.
        axis_name: as in `rgcl_hinge`; the sum is over the global batch.

    Returns:
        float32 `[batch]`, at least 0.

    Raises:
        ValueError: if shapes or dtypes do not fit, or a concrete temperature is not
            above 0.

    References:
        Mei et al., Improving Hateful Meme Detection through Retrieval-Guided
        Contrastive Learning, arXiv 2311.08110.

    >>> g = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> loss = rgcl_contrastive(g, jnp.array([1, 0]), positives=g, negatives=g)
    >>> round(float(loss[0]), 4)  # ln 3
    1.0986
    """
    check_scalar("temperature", temperature, expected="above 0", holds=lambda t: t > 0)
    own, labels, mask = _prepare(embeddings, labels, where=where)
    has_positive = mask & as_mask(where_positive, mask.shape)
    has_negative = mask & as_mask(where_negative, mask.shape)
    to_positive = _cosine_to(own, positives, name="positives", where=has_positive)
    to_negative = _cosine_to(own, negatives, name="negatives", where=has_negative)
    cosine, opposite = _batch_cosines(own, labels, where=mask, axis_name=axis_name)
    to_others = jnp.concatenate(
        [
            jnp.where(has_negative, to_negative / temperature, -jnp.inf)[:, None],
            jnp.where(opposite, cosine / temperature, -jnp.inf),
        ],
        axis=1,
    )
    # Of the differences to the positive's logit, 0, so that the sum is never empty.
    differences = to_others - (to_positive / temperature)[:, None]
    loss = jax.nn.logsumexp(jnp.pad(differences, ((0, 0), (1, 0))), axis=1)
    return _finish(jnp.where(has_positive, loss, 0.0), labels, mask)


def _prepare(
    embeddings: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return unit embeddings, 0 where masked, labels, and the mask."""
    rows = as_rows("embeddings", embeddings)
    mask = as_mask(where, (len(rows),))
    # Before the norm, so that masked values cannot reach the gradient.
    own = unit_rows(jnp.where(mask[:, None], rows, 0.0))
    return own, as_integers("labels", labels, length=len(rows)), mask


def _cosine_to(
    own: jax.Array, others: ArrayLike, *, name: str, where: jax.Array
) -> jax.Array:
    """Return the cosine of each row with its counterpart, 0 where masked."""
    rows = as_rows(name, others, dim=own.shape[1])
    if rows.shape != own.shape:
        raise ValueError(f"got {name} of shape {rows.shape}, expected {own.shape}")
    return jnp.sum(own * unit_rows(jnp.where(where[:, None], rows, 0.0)), axis=1)


def _batch_cosines(
    own: jax.Array, labels: jax.Array, *, where: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return cosines with the global batch `[batch, n]`, and which are of negatives."""
    others = own, labels, where
    if axis_name is not None:
        others = lax.all_gather(others, axis_name, tiled=True)
    rows, their_labels, their_where = others
    # Full float32: a GPU would use TF32, whose cosines are good to 3 digits.
    cosine = jnp.matmul(own, rows.T, precision=lax.Precision.HIGHEST)
    opposite = labels[:, None] != their_labels[None]
    return cosine, opposite & where[:, None] & their_where[None]


def _finish(loss: jax.Array, labels: jax.Array, where: jax.Array) -> jax.Array:
    """Set the loss to 0 where masked, to NaN for unmasked unknown labels."""
    return jnp.where(where, jnp.where(labels >= 0, loss, jnp.nan), 0.0)
