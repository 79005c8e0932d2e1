"""Neighbours in a store of embeddings: pairs to train on, and their vote.

By cosine, exact, on the device. A store's rows with a negative label (unknown, or
padding) are nobody's neighbours. Neighbours are ordered by decreasing cosine, equal
cosines by increasing index; a zero vector has the cosine 0 to all others.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from memejax.losses.cosine import as_integers, as_rows, unit_rows

# Queries compared with the store at once. At 10,000 rows their cosines take 5 MB, which
# a CPU's cache holds: mining then takes 1.1 times as long as the products alone, and
# up to 1.5 times with 500. An accelerator is faster with more.
CHUNK = 128


class Mined(NamedTuple):
    """Neighbours of each query, `[q]`.

    Attributes:
        positive: index in the store of the nearest row of the same label, int32; 0 if
            there is none.
        negative: that of the nearest row of another label.
        has_positive: whether there is a positive, bool.
        has_negative: whether there is a negative, bool.
    """

    positive: jax.Array
    negative: jax.Array
    has_positive: jax.Array
    has_negative: jax.Array


def mine(
    queries: ArrayLike,
    store: ArrayLike,
    *,
    query_labels: ArrayLike,
    store_labels: ArrayLike,
    query_index: ArrayLike | None = None,
    within: int | None = None,
    chunk: int = CHUNK,
) -> Mined:
    """Find the pseudo-gold positive and the hard negative of each query.

        p_i = argmax_{j: y_j = y_i, j != i} cos(q_i, s_j)
        h_i = argmax_{j: y_j != y_i} cos(q_i, s_j)

    As in the paper with `within=None` and `query_index` given. The published code has
    `within=12` and no `query_index`: a query that is in the store is its own nearest
    neighbour, so that the positive mostly is the query itself.

    Args:
        queries: embeddings `[q, dim]` of any float dtype, finite; computed in float32.
        store: embeddings `[n, dim]`. No gradient flows to either.
        query_labels: integers `[q]`; a query of negative label has no neighbours.
        store_labels: integers `[n]`; rows of negative label are left out.
        query_index: integers `[q]`, the row of the store that is the query itself,
            which is left out; negative for a query that is not in the store. None if no
            query is, or if itself may be its positive.
        within: rank, from 1, up to which a neighbour counts; None for the whole store.
        chunk: queries compared at once, which takes about `4 chunk n` bytes.

    Returns:
        A `Mined`.

    Raises:
        ValueError: if shapes or dtypes do not fit, or within or chunk is below 1.

    References:
        Mei et al., Improving Hateful Meme Detection through Retrieval-Guided
        Contrastive Learning (RGCL), arXiv 2311.08110.

    >>> store = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [0.0, 1.0]])
    >>> labels, own = jnp.array([1, 0, 1, 0]), jnp.arange(4)
    >>> mined = mine(
    ...     store, store, query_labels=labels, store_labels=labels, query_index=own
    ... )
    >>> print(mined.positive, mined.negative)
    [2 3 0 1] [1 2 1 2]
    """
    if chunk < 1 or (within is not None and within < 1):
        raise ValueError(
            f"got chunk {chunk} and within {within}, expected at least 1 of both, or "
            "None for within"
        )
    queries, store, index = _prepare(queries, store, query_index=query_index)
    asked = as_integers("query_labels", query_labels, length=len(queries))
    labels = as_integers("store_labels", store_labels, length=len(store))
    return _mine(queries, store, asked, labels, index, within=within, chunk=chunk)


def knn_vote(
    queries: ArrayLike,
    store: ArrayLike,
    *,
    store_labels: ArrayLike,
    k: int = 20,
    query_index: ArrayLike | None = None,
    chunk: int = CHUNK,
) -> jax.Array:
    """Score queries by the vote of their k nearest neighbours.

    With r = 1..k the rank of a neighbour and w_r = k - r + 1, that is k, k - 1, ..., 1:

        s = sum_r w_r cos_r (2 y_r - 1) / sum_r w_r

    A query is hateful if s >= 0. If the store has fewer than k neighbours, both sums
    are over those there are, and s is 0 if there are none.

    Args:
        queries: embeddings `[q, dim]` of any float dtype; computed in float32.
        store: embeddings `[n, dim]`.
        store_labels: integers `[n]`, 0 or 1; rows of negative label are left out.
        k: number of neighbours that vote, from 1 to n.
        query_index: as in `mine`.
        chunk: as in `mine`.

    Returns:
        Scores in [-1, 1], float32 `[q]`. No gradient flows through them.

    Raises:
        ValueError: if shapes or dtypes do not fit, or k or chunk is out of range.

    References:
        Mei et al., RGCL, arXiv 2311.08110; the weights are those of its code
        ("arithmetic").

    >>> store = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> (score,) = knn_vote(store[:1], store, store_labels=jnp.array([1, 0, 0]), k=2)
    >>> round(float(score), 4)  # (2 x 1 - 1 x 0.6) / 3
    0.4667
    """
    queries, store, index = _prepare(queries, store, query_index=query_index)
    labels = as_integers("store_labels", store_labels, length=len(store))
    if not 1 <= k <= len(store) or chunk < 1:
        raise ValueError(
            f"got k {k} and chunk {chunk}, expected k from 1 to {len(store)}, the rows "
            "of the store, and chunk at least 1"
        )
    return _knn_vote(queries, store, labels, index, k=k, chunk=chunk)


# Compiled here: called without jit, a map would be compiled at every call.
@functools.partial(jax.jit, static_argnames=("within", "chunk"))
def _mine(queries, store, query_labels, store_labels, index, *, within, chunk) -> Mined:
    nearest = functools.partial(
        _nearest, store=unit_rows(store), labels=store_labels, within=within
    )
    arrays = unit_rows(queries), query_labels, index
    return Mined(*_map_chunks(nearest, arrays, chunk=chunk))


@functools.partial(jax.jit, static_argnames=("k", "chunk"))
def _knn_vote(queries, store, labels, index, *, k, chunk) -> jax.Array:
    vote = functools.partial(_vote, store=unit_rows(store), labels=labels, k=k)
    return _map_chunks(vote, (unit_rows(queries), index), chunk=chunk)


def _nearest(
    part: tuple[jax.Array, jax.Array, jax.Array],
    *,
    store: jax.Array,
    labels: jax.Array,
    within: int | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the fields of `Mined` for one chunk."""
    queries, asked, index = part
    cosine, candidate = _compare(queries, index, store=store, labels=labels)
    columns = jnp.arange(len(labels), dtype=jnp.int32)[None]
    candidate &= asked[:, None] >= 0
    same = asked[:, None] == labels[None]
    places, exist = [], []
    for eligible in (candidate & same, candidate & ~same):
        # Two reductions: on a CPU each is a fraction of jnp.argmax, which is not
        # vectorised and takes as long as the products.
        top = jnp.max(jnp.where(eligible, cosine, -jnp.inf), axis=1)[:, None]
        is_top = eligible & (cosine == top)
        place = jnp.min(jnp.where(is_top, columns, len(labels)), axis=1)
        found = place < len(labels)
        if within is not None:
            # The rank by counting, O(n): those before it in the order of neighbours.
            tied = (cosine == top) & (columns < place[:, None])
            before = candidate & ((cosine > top) | tied)
            found &= jnp.sum(before, axis=1, dtype=jnp.int32) < within
        places.append(jnp.where(found, place, 0))
        exist.append(found)
    return places[0], places[1], exist[0], exist[1]


def _vote(
    part: tuple[jax.Array, jax.Array],
    *,
    store: jax.Array,
    labels: jax.Array,
    k: int,
) -> jax.Array:
    """Return the scores of one chunk."""
    queries, index = part
    cosine, candidate = _compare(queries, index, store=store, labels=labels)
    nearest, places = lax.top_k(jnp.where(candidate, cosine, -jnp.inf), k)
    voting = nearest > -jnp.inf
    weight = jnp.where(voting, jnp.arange(k, 0, -1, dtype=jnp.float32)[None], 0.0)
    sign = jnp.where(labels[places] == 1, 1.0, -1.0)
    score = jnp.sum(weight * jnp.where(voting, nearest, 0.0) * sign, axis=1)
    return score / jnp.maximum(jnp.sum(weight, axis=1), 1.0)


def _compare(
    queries: jax.Array, index: jax.Array, *, store: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return cosines `[chunk, n]`, and whether each row may be a neighbour."""
    # Full float32: a GPU would use TF32, whose cosines are good to 3 digits.
    cosine = jnp.matmul(queries, store.T, precision=lax.Precision.HIGHEST)
    columns = jnp.arange(len(labels), dtype=jnp.int32)[None]
    return cosine, (columns != index[:, None]) & (labels >= 0)[None]


def _map_chunks(
    function: Callable[..., jax.Array | tuple[jax.Array, ...]],
    arrays: tuple[jax.Array, ...],
    *,
    chunk: int,
):
    """Apply a function of arrays `[chunk, ...]` along the leading axis `[q, ...]`."""
    q = arrays[0].shape[0]
    if not isinstance(q, int):
        # The batch of an exported program, whose size is a symbol.
        return function(arrays)
    chunk = min(chunk, q)

    def split(x: jax.Array) -> jax.Array:
        padding = ((0, -q % chunk),) + ((0, 0),) * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(-1, chunk, *x.shape[1:])

    results = lax.map(function, jax.tree.map(split, arrays))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:q], results)


def _prepare(
    queries: ArrayLike, store: ArrayLike, *, query_index: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries and store as float32, without gradient, and the index as int32."""
    rows = as_rows("store", store)
    asked = as_rows("queries", queries, dim=rows.shape[1])
    if query_index is None:
        index = jnp.full(asked.shape[0], -1, jnp.int32)
    else:
        index = as_integers("query_index", query_index, length=len(asked))
    return lax.stop_gradient(asked), lax.stop_gradient(rows), index
