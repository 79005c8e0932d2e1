"""Probes of a frozen encoder's embeddings: kNN, linear probe, t-SNE map.

Embeddings go in and class scores come out, so that the same `report` evaluates every
probe. Nothing here trains an encoder or depends on the source of the embeddings.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax import lax
from numpy.typing import ArrayLike

from memejax.metrics.reports import auroc

# scikit-learn takes a second to import: each function that needs it does so itself.
if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Inverse strengths of the probe's L2 penalty, the strongest penalty first.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Principal components given to t-SNE.
COMPONENTS = 50
PERPLEXITY = 30.0


def knn(
    train: ArrayLike,
    labels: ArrayLike,
    *,
    test: ArrayLike,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> np.ndarray:
    """Class scores by the votes of the k nearest training embeddings.

    `score_c = sum_{i in N_k} exp(cos(x, x_i) / T) [y_i = c]`, divided by its sum over
    the classes. Ties in distance go to the earlier training embedding.

    Args:
        train: embeddings `[n, d]`, of any scale; a zero embedding has cosine 0 to all.
        labels: ints `[n]` in [0, classes).
        test: embeddings `[m, d]`.
        classes: number of classes.
        k: number of neighbours that vote, from 1 to n.
        temperature: T, positive; the smaller, the more weight the nearest ones have.
        chunk: test embeddings compared at once, which takes `4 chunk n` bytes.

    Returns:
        float32 `[m, classes]`, at least 0; rows sum to 1.

    Raises:
        ValueError: if shapes, labels, k, the temperature or the chunk do not fit, or
            an embedding is not finite.

    References:
        Wu et al., arXiv 1805.01978, section 3.4; Caron et al. (DINO), arXiv
        2104.14294, section 4.1, which finds k = 20 the best most of the time.

    >>> print(knn([[2, 0], [0, 3]], [0, 1], test=[[9, 0]], classes=2, k=1))
    [[1. 0.]]
    """
    bank, labels, queries = _check(train, labels, test=test, classes=classes)
    if not 1 <= k <= len(bank):
        raise ValueError(
            f"got k = {k}, expected from 1 to {len(bank)}, the training embeddings"
        )
    if not (temperature > 0 and chunk >= 1):
        raise ValueError(
            f"got temperature {temperature} and chunk {chunk}, expected a positive "
            "number and at least 1"
        )
    bank, queries = _unit(bank), _unit(queries)
    chunk, m = min(chunk, len(queries)), len(queries)
    # Every chunk has the same shape, to compile only once.
    queries = np.pad(queries, ((0, -m % chunk), (0, 0)))
    bank, votes = jnp.asarray(bank), jnp.asarray(labels, jnp.int32)
    scores = [
        np.asarray(
            _vote(bank, votes, part, temperature=temperature, k=k, classes=classes)
        )
        for part in queries.reshape(-1, chunk, queries.shape[1])
    ]
    return np.concatenate(scores)[:m]


def linear_probe(
    train: ArrayLike,
    labels: ArrayLike,
    *,
    test: ArrayLike,
    classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Class scores of a logistic regression on standardised embeddings.

    A fifth of each class is held out to choose the L2 penalty among `STRENGTHS` by
    log loss (ties go to the stronger penalty); the probe is then fitted on all of
    `train` to convergence. With fewer than 5 examples in every class nothing is held
    out and the inverse strength is 1.

    DINO's linear protocol is different: a linear layer trained by SGD for 100 epochs on
    random crops and flips (momentum 0.9, no decay, learning rate 0.001 x batch / 256
    on a cosine) on the last four CLS tokens, or one with the mean patch token. This
    probe is convex, uses one embedding per picture and has no learning rate to tune:
    it is cheaper and repeatable, and its figures are not comparable with DINO's.

    Args:
        train: embeddings `[n, d]`.
        labels: ints `[n]` in [0, classes), at least two of them different.
        test: embeddings `[m, d]`.
        classes: number of classes.
        seed: seed of the held-out split.

    Returns:
        Probabilities float64 `[m, classes]`; 0 for classes missing from `labels`.

    Raises:
        ValueError: if shapes or labels do not fit, or an embedding is not finite.
    """
    bank, labels, queries = _check(train, labels, test=test, classes=classes)
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(
            f"got labels of one class, {present.tolist()}, expected at least two"
        )
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(bank)
    bank, queries = scaler.transform(bank), scaler.transform(queries)
    strength, held = STRENGTHS[-1], _held_out(labels, seed)
    if held.any():
        losses = [
            _log_loss(_fit(bank[~held], labels[~held], c), bank[held], labels[held])
            for c in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmin(losses))]
    probe = _fit(bank, labels, strength)
    scores = np.zeros((len(queries), classes))
    scores[:, probe.classes_] = probe.predict_proba(queries)
    return scores


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose highest score is that of their label.

    Args:
        scores: `[n, classes]`; ties go to the lower class.
        labels: ints `[n]` in [0, classes).

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if the shapes or labels do not fit or there are no examples.

    >>> accuracy([[0.9, 0.1], [0.2, 0.8]], [0, 0])
    0.5
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"got scores of shape {scores.shape}, expected [n, classes], n >= 1"
        )
    labels = _check_labels(labels, n=len(scores), classes=scores.shape[1])
    return float((scores.argmax(axis=1) == labels).mean())


def report(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Accuracy of class scores, and AUROC if there are two classes.

    Args:
        scores: `[n, classes]`; with two classes the second column ranks the examples.
        labels: ints `[n]` in [0, classes).

    Returns:
        `accuracy`, and `auroc` with two classes (NaN if `labels` holds only one).

    Raises:
        ValueError: as in `accuracy`.
    """
    figures = {"accuracy": accuracy(scores, labels)}
    scores = np.asarray(scores, float)
    if scores.shape[1] == 2:
        figures["auroc"] = auroc(scores[:, 1], labels)
    return figures


def embedding_map(
    embeddings: ArrayLike, *, seed: int = 0, limit: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Map embeddings to the plane by PCA and t-SNE, keeping neighbours together.

    PCA to at most `COMPONENTS` dimensions; t-SNE with perplexity min(30, (m - 1) / 3)
    starts from the first two of them. It runs on one thread: with more, the order of
    summation varies from run to run, and so do the points. Distances between clusters
    and their sizes have no meaning.

    Args:
        embeddings: `[n, d]`, n at least 4.
        seed: seed of the random subset.
        limit: largest number of mapped embeddings, at least 4; a random subset is
            mapped if there are more.

    Returns:
        `(points, index)`: float32 `[m, 2]`, and int64 `[m]`, the ascending indices of
        the mapped embeddings.

    Raises:
        ValueError: if the shape or the limit does not fit, or an embedding is not
            finite.

    References:
        van der Maaten and Hinton, JMLR 9 (2008).
    """
    embeddings = _finite(embeddings, "embeddings")
    if min(len(embeddings), limit) < 4:
        raise ValueError(
            f"got {len(embeddings)} embeddings and a limit of {limit}, expected at "
            "least 4 of both"
        )
    rng, index = np.random.default_rng(seed), np.arange(len(embeddings))
    if len(index) > limit:
        index = np.sort(rng.choice(index, limit, replace=False))
    with threadpoolctl.threadpool_limits(1):
        reduced = _principal(embeddings[index], seed)
        start = np.zeros((len(index), 2))
        start[:, : reduced.shape[1]] = reduced[:, :2]
        spread = start[:, 0].std()
        # A collapsed encoder gives one point, which has no components to start from.
        start = start / spread if spread > 0 else rng.normal(size=start.shape)
        from sklearn.manifold import TSNE

        tsne = TSNE(
            perplexity=min(PERPLEXITY, (len(index) - 1) / 3),
            init=(1e-4 * start).astype(np.float32),  # type: ignore[arg-type]
            random_state=seed,
        )
        points = tsne.fit_transform(reduced.astype(np.float32))
    return np.asarray(points, np.float32), index


@functools.partial(jax.jit, static_argnames=("k", "classes"))
def _vote(
    bank: jax.Array,
    labels: jax.Array,
    queries: jax.Array,
    *,
    temperature: float,
    k: int,
    classes: int,
) -> jax.Array:
    """Votes `[chunk, classes]` of the k rows of the bank nearest to each query."""
    # Full float32: a GPU would use TF32, whose cosines are good to 3 digits.
    cosine = jnp.matmul(queries, bank.T, precision=lax.Precision.HIGHEST)
    nearest, index = lax.top_k(cosine, k)
    # The softmax is exp(cos / T) over its sum, and does not overflow for small T.
    weight = jax.nn.softmax(nearest / temperature, axis=-1)
    rows = jnp.arange(len(queries))[:, None]
    return jnp.zeros((len(queries), classes)).at[rows, labels[index]].add(weight)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows divided by their L2 norm, float32; zero rows stay zero."""
    # First divided by its largest entry, a row of any scale has a finite square.
    largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=0.0)
    rows = embeddings / np.where(largest > 0, largest, 1.0)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norm > 0, norm, 1.0)).astype(np.float32)


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """True `[n]` for a fifth of each class, rounded down."""
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: len(members) // 5]] = True
    return held


def _fit(features: np.ndarray, labels: np.ndarray, strength: float):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(features, labels)


def _log_loss(
    probe: LogisticRegression, features: np.ndarray, labels: np.ndarray
) -> float:
    """Mean -log p(label), for labels that the probe was fitted on."""
    column = np.searchsorted(probe.classes_, labels)
    proba = probe.predict_proba(features)[np.arange(len(labels)), column]
    # A probability may be 0 in float64.
    return float(-np.log(np.maximum(proba, np.finfo(float).tiny)).mean())


def _principal(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Principal components `[n, <= COMPONENTS]`, largest variance first."""
    if not np.ptp(embeddings, axis=0).any():
        # One point has no directions: scikit-learn would divide by its variance.
        return np.zeros((len(embeddings), 1))
    components = min(COMPONENTS, *embeddings.shape)
    from sklearn.decomposition import PCA

    return PCA(components, random_state=seed).fit_transform(embeddings)


def _check(
    train: ArrayLike, labels: ArrayLike, *, test: ArrayLike, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both sets of embeddings as float64 and int64 labels, or ValueError."""
    bank, queries = _finite(train, "train"), _finite(test, "test")
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f"got train {bank.shape} and test {queries.shape}, expected [n, d] and "
            "[m, d] of the same d"
        )
    return bank, _check_labels(labels, n=len(bank), classes=classes), queries


def _check_labels(labels: ArrayLike, *, n: int, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"got labels {labels.dtype}{list(labels.shape)}, expected ints [{n}]"
        )
    if not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(
            f"got labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{classes - 1}"
        )
    return labels.astype(np.int64)


def _finite(embeddings: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(embeddings, float)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"got {name} of shape {array.shape}, expected [n, d], both at least 1"
        )
    bad = int((~np.isfinite(array)).any(axis=1).sum())
    if bad:
        raise ValueError(f"got {bad} rows of {name} that are not finite, expected 0")
    return array
