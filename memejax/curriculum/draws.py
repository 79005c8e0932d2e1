"""Draws of examples by their sampling probabilities, in any shape or as a plan.

Exact where float32 is not: at a million examples and a ratio of 100, a float32
cumulative distribution is off by several percent for the rarest, and may return
examples of probability 0. So all methods but "categorical" run on the host in float64,
from a numpy generator seeded with the words of the JAX key (`jax.random.key_data`):
the same key, arguments and numpy version give the same draws.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

Method = Literal["categorical", "inverse_cdf", "gumbel_top_k"]
# Noise of "categorical" held in memory at once, in elements.
CATEGORICAL_BLOCK = 2**20
# Draws looked up at once: their temporary arrays stay in a core's cache.
LOOKUP_BLOCK = 2**16
# Linear search steps before the remaining draws are found by bisection. At most a k-th
# of the draws falls into cells of more than k examples.
LINEAR_STEPS = 8
# Largest |sum of probabilities - 1|: rounding in float32 is well within.
SUM_TOLERANCE = 1e-3


def draw(
    key: jax.Array, probs: ArrayLike, shape: int | Sequence[int], *, method: Method
) -> jax.Array:
    """Draw indices of examples by their probabilities.

    No method ever returns an index of probability 0. The methods:

    - "inverse_cdf": independent draws with replacement: for a uniform u the index i
      with c_(i-1) <= u < c_i, where c are the cumulative sums in float64. The absolute
      error of each probability is 1e-16 at any n; O(n) once, then O(1) per draw.
    - "categorical": the same distribution by Gumbel noise for each example and draw,
      in JAX: O(n) per draw, so for thousands of examples. The only method that can be
      traced (jit, vmap).
    - "gumbel_top_k": without replacement, as if drawing one by one and removing each:
      the k largest of log p_i + Gumbel noise, largest first.

    Args:
        key: a single typed JAX key.
        probs: float `[n]`, at least 0, summing to 1 within 1e-3 (then normalised).
        shape: shape of the result.
        method: see above.

    Returns:
        int32 array of that shape, in [0, n).

    Raises:
        ValueError: if an argument is not as above, or if "gumbel_top_k" has fewer
            examples with a probability above 0 than draws.

    References:
        Top-k: Kool, van Hoof and Welling, arXiv 1903.06059. The search starts at a
        guide table: Chen and Asau, On generating random variates from an empirical
        distribution, AIIE Transactions 6(2), 1974.

    >>> probs = jnp.array([0.0, 0.5, 0.0, 0.5])
    >>> drawn = draw(jax.random.key(0), probs, (2, 50), method="inverse_cdf")
    >>> print(drawn.shape, np.unique(drawn))
    (2, 50) [1 3]
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    count = math.prod(shape)
    _check_request(key, method, shape)
    if method == "categorical":
        return _categorical(key, _traceable(probs), count=count).reshape(shape)
    generator, values = _on_the_host(key, probs, method)
    if method == "inverse_cdf":
        index = _inverse_cdf(generator, values, count)
    else:
        candidates = int(np.count_nonzero(values))
        if candidates < count:
            raise ValueError(
                f"got {count} draws without replacement from {candidates} examples "
                "with a probability above 0, expected at most as many"
            )
        index = _without_replacement(generator, values, count)
    return jnp.asarray(index.reshape(shape))


def draw_plan(
    key: jax.Array,
    probs: ArrayLike,
    *,
    steps: int,
    batch: int,
    method: Method = "inverse_cdf",
) -> np.ndarray:
    """Draw the indices of several training steps at once.

    With "inverse_cdf" and "categorical" the `steps * batch` draws are independent, and
    equal to those of `draw` with the shape `(steps, batch)`. With "gumbel_top_k" they
    are consecutive passes without replacement: each pass holds every example with a
    probability above 0 once, the likely ones mostly early, and the last pass is
    truncated. Only that last pass omits examples, so a plan of whole passes differs
    from a uniform one in its order alone.

    Args:
        key: a typed JAX key.
        probs: float `[n]`, at least 0, summing to 1 within 1e-3.
        steps: number of batches, at least 1.
        batch: examples per step, at least 1.
        method: see `draw`.

    Returns:
        int32 `[steps, batch]`, on the host.

    Raises:
        ValueError: if an argument is not as above.

    >>> probs = np.array([0.5, 0.25, 0.25])
    >>> args = dict(steps=2, batch=3, method="gumbel_top_k")
    >>> np.sort(draw_plan(jax.random.key(0), probs, **args), axis=1)
    array([[0, 1, 2],
           [0, 1, 2]], dtype=int32)
    """
    _check_request(key, method, (steps, batch))
    count = steps * batch
    generator, values = _on_the_host(key, probs, method)
    if method == "categorical":
        index = np.asarray(_categorical(key, _traceable(values), count=count))
    elif method == "inverse_cdf":
        index = _inverse_cdf(generator, values, count)
    else:
        candidates = int(np.count_nonzero(values))
        passes = [
            _without_replacement(generator, values, min(candidates, count - start))
            for start in range(0, count, candidates)
        ]
        index = np.concatenate(passes)
    return index.reshape(steps, batch)


def importance_weights(
    probs: ArrayLike, index: ArrayLike, *, power: ArrayLike
) -> jax.Array:
    """Importance weights that correct non-uniform draws, in part or in full.

        w_i = (1 / (N p_i))^power

    N is the number of examples with a probability above 0, so that with power 1 the sum
    of weighted values over draws, divided by the number of draws, is an unbiased
    estimate of the plain mean over those. Divided by the sum of the weights, as the
    training steps do, it is a ratio estimate: consistent, its bias of the order of one
    over the number of draws, and usually of smaller variance.

    Args:
        probs: float `[n]`, at least 0, summing to 1.
        index: int array of any shape, in [0, n): the drawn examples.
        power: scalar, 0 (no correction, all weights exactly 1) to 1 (full). May be
            traced.

    Returns:
        float32 array of the shape of index.

    Raises:
        ValueError: if probs is not `[n]`, or if a concrete index is out of range or
            has probability 0.

    References:
        Katharopoulos and Fleuret, Not all samples are created equal: deep learning with
        importance sampling, arXiv 1803.00942.

    >>> print(importance_weights(jnp.array([0.75, 0.25]), jnp.array([1, 0]), power=1.0))
    [2.        0.6666667]
    """
    values, drawn = _traceable(probs), jnp.asarray(index)
    n = len(values)
    if not isinstance(drawn, Tracer):
        if drawn.size and not (0 <= int(drawn.min()) and int(drawn.max()) < n):
            raise ValueError(f"got an index outside [0, {n}), expected none")
        if not isinstance(values, Tracer) and not bool(jnp.all(values[drawn] > 0)):
            raise ValueError(
                "got an index of probability 0, expected only examples that can be "
                "drawn"
            )
    candidates = jnp.sum(values > 0, dtype=jnp.float32)
    # In this order, so that equal probabilities have weights of exactly 1.
    return jnp.power((1.0 / candidates) / values[drawn], jnp.asarray(power))


@functools.partial(jax.jit, static_argnames="count")
def _categorical(key: jax.Array, probs: jax.Array, *, count: int) -> jax.Array:
    """Draw `[count]` indices, each with its own key, whatever the block size."""
    logits = jnp.log(probs)

    def one(key: jax.Array) -> jax.Array:
        # The default mode's noise has 2^-23 steps, too few below p = 1e-7.
        return jax.random.categorical(key, logits, mode="high").astype(jnp.int32)

    block = max(1, min(count, CATEGORICAL_BLOCK // len(probs)))
    return jax.lax.map(one, jax.random.split(key, count), batch_size=block)


def _inverse_cdf(
    generator: np.random.Generator, probs: np.ndarray, count: int
) -> np.ndarray:
    """Draw `[count]` indices: the first whose cumulative sum exceeds a uniform."""
    cdf = np.cumsum(probs, dtype=np.float64)
    # The last index that can be drawn. A uniform just below 1 may round up to the
    # total, which no cumulative sum exceeds.
    last = np.searchsorted(cdf, cdf[-1])
    # Making a table takes a few passes over the examples: too slow for few draws.
    guide = _guide(cdf) if 8 * count >= len(cdf) else None
    index = np.empty(count, np.int32)
    for start in range(0, count, LOOKUP_BLOCK):
        uniform = generator.random(min(LOOKUP_BLOCK, count - start))
        uniform *= cdf[-1]
        if guide is None:
            found = np.searchsorted(cdf, uniform, side="right")
        else:
            found = _look_up(cdf, guide, uniform)
        index[start : start + len(uniform)] = np.minimum(found, last)
    return index


def _guide(cdf: np.ndarray) -> np.ndarray:
    """Number of sums in earlier cells, for each of n equal cells of [0, total]."""
    n = len(cdf)
    cells = np.minimum((cdf * (n / cdf[-1])).astype(np.int64), n)
    guide = np.zeros(n + 1, np.int32)
    np.cumsum(np.bincount(cells, minlength=n + 1)[:n], out=guide[1:])
    return guide


def _look_up(cdf: np.ndarray, guide: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return `np.searchsorted(cdf, uniform, side="right")`, several times as fast.

    A uniform's cell is computed in the same way as a sum's, and rounding is monotone:
    every sum in an earlier cell is below it. This leaves the few sums in its own cell,
    one on average.
    """
    cell = (uniform * (len(cdf) / cdf[-1])).astype(np.int64)
    # "clip" avoids the bounds check; n, past the end, is handled by the caller.
    found = guide.take(cell, mode="clip")
    behind = np.flatnonzero(cdf.take(found, mode="clip") <= uniform)
    for _ in range(LINEAR_STEPS):
        if not behind.size:
            return found
        ahead = found[behind] + np.int32(1)
        found[behind] = ahead
        behind = behind[cdf.take(ahead, mode="clip") <= uniform[behind]]
    found[behind] = np.searchsorted(cdf, uniform[behind], side="right")
    return found


def _without_replacement(
    generator: np.random.Generator, probs: np.ndarray, count: int
) -> np.ndarray:
    """Draw `[count]` distinct indices with a probability above 0, in order."""
    candidates = np.flatnonzero(probs)
    # -log of an exponential is Gumbel: the smallest of noise / p are the largest of
    # log p + Gumbel, and in float64 there are no ties among a million.
    times = generator.standard_exponential(len(candidates)) / probs[candidates]
    first = np.arange(len(times))
    if count < len(times):
        first = np.argpartition(times, count)[:count]
    return candidates[first[np.argsort(times[first])]].astype(np.int32)


def _check_request(key: jax.Array, method: str, shape: Sequence[int]) -> None:
    """Raise ValueError unless the method is known, the key single, the sizes >= 1."""
    if method not in get_args(Method):
        raise ValueError(f"got method {method!r}, expected one of {get_args(Method)}")
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape:
        raise ValueError(
            f"got a key of dtype {dtype} and shape {np.shape(key)}, expected one "
            "typed key (jax.random.key)"
        )
    if any(size < 1 for size in shape):
        raise ValueError(f"got sizes {tuple(shape)}, expected all at least 1")


def _on_the_host(
    key: jax.Array, probs: ArrayLike, method: str
) -> tuple[np.random.Generator, np.ndarray]:
    """Return a generator seeded with the key's words, and checked probabilities."""
    if isinstance(key, Tracer) or isinstance(probs, Tracer):
        raise ValueError(
            f"got a traced key or probs for {method!r}, which draws on the host: "
            'expected concrete ones (or draw with "categorical")'
        )
    words = np.asarray(jax.random.key_data(key)).ravel()
    seed = np.random.SeedSequence(words.tolist())
    return np.random.Generator(np.random.SFC64(seed)), _checked(probs)


def _checked(probs: ArrayLike) -> np.ndarray:
    """Return concrete probabilities as float32 or float64, or raise ValueError."""
    values = np.asarray(probs)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim != 1 or not 0 < values.size < 2**31:
        raise ValueError(
            f"got probs of shape {values.shape}, expected [n] with 1 <= n < 2^31"
        )
    low, total = values.min(), values.sum(dtype=np.float64)
    # Written so that NaN fails too.
    if not (low >= 0 and abs(total - 1) <= SUM_TOLERANCE):
        raise ValueError(
            f"got probs with sum {total} and minimum {low}, expected a sum of 1 and "
            "none below 0"
        )
    return values


def _traceable(probs: ArrayLike) -> jax.Array:
    """Return probabilities as float32 `[n]`; check concrete ones."""
    if not isinstance(probs, Tracer):
        return jnp.asarray(_checked(probs), jnp.float32)
    if probs.ndim != 1 or not probs.size:
        raise ValueError(f"got probs of shape {probs.shape}, expected [n], n >= 1")
    return jnp.asarray(probs, jnp.float32)
