"""Sampling probabilities with a bounded ratio, from uncertainties."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from memejax.curriculum.checks import extent, mask, vector

# Largest finite ratio: beyond it the smallest probability leaves float32's range.
MAX_RATIO = 1e30
# Largest |u|: the difference of two uncertainties is still finite in float32.
MAX_UNCERTAINTY = 1e38
# Limit of the incremental search: a ratio close to 1 can take any number.
MAX_INCREMENTS = 10**8


def sampling_probs(
    u: ArrayLike,
    *,
    favour: Literal["easy", "hard"],
    max_ratio: ArrayLike,
    min_temperature: ArrayLike,
    winsorize: float | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Sampling probabilities from uncertainties, with a bounded max / min ratio.

    With s = u (favour "hard") or s = -u ("easy"), R = max_ratio, and min and max
    over the counted examples:

        tau = max(min_temperature, (max u - min u) / ln R)
        p_i = exp(s_i / tau) / sum_j exp(s_j / tau)

    so that max p / min p is R if the second term of tau is the larger, and less if the
    first is. If the second is, tau is not formed: with
    g_i = (max s - s_i) / (max s - min s) in [0, 1] the weights are R^(-g_i), which meet
    R to float32 rounding, cannot overflow and are invariant under u -> a u + b (a > 0).
    "easy" is the mirror of "hard": its p_i are proportional to 1 / p_i of "hard".

    favour has no default because the thesis can be read in two ways. Its printed scores
    (AADT, entropy, BALD) are all higher for a more uncertain example, so that their
    softmax favours hard examples; in its text a higher score marks an easier example.
    "hard" follows the formulas, "easy" the text.

    min_temperature 1 is the thesis's procedure, which starts at temperature 1 and only
    ever raises it: it caps the ratio and never boosts it. Entropies of ten classes, in
    [0, ln 10], then never have a ratio above 10. 0 always meets the ratio, and
    stretches any differences to it, even noise of 1e-6.

    Bounds, for n examples: 1 / (1 + R (n - 1)) <= p_i <= R / (R + n - 1), and an
    `effective_sample_size` of at least n 4 R / (1 + R)^2.

    Args:
        u: float `[n]`, finite, high = hard; computed in float32.
        favour: "easy" or "hard": which examples are drawn more often.
        max_ratio: R, a scalar in [1, 1e30], or inf for no bound: the temperature is
            then min_temperature, and probabilities may underflow to 0. 1 gives 1 / n
            exactly. May be traced (a schedule).
        min_temperature: a scalar >= 0, in the units of u; > 0 if max_ratio is inf.
        winsorize: q in [0, 0.5): u is first clipped to its q and 1 - q quantiles
            (linearly interpolated), so that no outlier flattens the others.
        where: bool `[n]`, True for examples that count. The others have probability 0,
            and their u, which may be NaN, has no effect.

    Returns:
        float32 `[n]`, summing to 1. Traced values cannot raise: if u, max_ratio or
        min_temperature is not as above the probabilities are NaN, and if no example
        counts they are 0.

    Raises:
        ValueError: if a shape or a concrete argument is not as above.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equations (4.1), (4.3), (4.5) and (4.8).

    >>> u = jnp.array([0.0, 3.0, 3.0])
    >>> print(sampling_probs(u, favour="easy", max_ratio=2.0, min_temperature=0.0))
    [0.5  0.25 0.25]
    """
    if favour not in ("easy", "hard"):
        raise ValueError(f"got favour {favour!r}, expected 'easy' or 'hard'")
    if winsorize is not None and not 0 <= winsorize < 0.5:
        raise ValueError(f"got winsorize {winsorize}, expected a share in [0, 0.5)")
    values, counted = _uncertainties(u, where)
    ratio, floor = _ratio_and_floor(max_ratio, min_temperature)
    if winsorize is not None:
        values = _winsorized(values, counted, winsorize)
    low, high = extent(values, counted)
    spread = high - low
    values = jnp.where(counted, values, low)
    gap = values - low if favour == "easy" else high - values

    meets = spread > floor * jnp.log(ratio)
    # Neither form divides by 0 or meets infinity where the other is taken. A power,
    # because rounding ln R in exp(-ln R part) would change the ratio by 1e-6; so would
    # gap / spread, as XLA multiplies by the reciprocal, which may miss 1 by 6e-8.
    part = jnp.where(gap == spread, 1.0, gap / jnp.where(meets, spread, 1.0))
    met = jnp.power(jnp.where(meets, ratio, 1.0), -part)
    floored = jnp.exp(-gap / jnp.where(floor > 0, floor, 1.0))
    legal = ~jnp.isnan(ratio) & jnp.isfinite(spread)
    weights = jnp.where(legal, jnp.where(meets, met, floored), jnp.nan)
    weights = jnp.where(counted, weights, 0.0)
    total = jnp.where(jnp.any(counted), jnp.sum(weights), 1.0)
    return jnp.where(counted, weights / total, 0.0)


def temperature(
    u: ArrayLike,
    *,
    max_ratio: ArrayLike,
    min_temperature: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Temperature at which a softmax of uncertainties meets a ratio, a scalar.

        tau = max(min_temperature, (max u - min u) / ln R)

    `sampling_probs` does not need it.

    Args:
        u, max_ratio, min_temperature, where: as in `sampling_probs`.

    Returns:
        float32 scalar: min_temperature if all u are equal, otherwise inf if R is 1.

    Raises:
        ValueError: if a shape or a concrete argument is not as in `sampling_probs`.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.8).

    >>> u = jnp.array([0.0, 4.0])
    >>> print(temperature(u, max_ratio=10.0, min_temperature=2.0))
    2.0
    >>> print(f"{temperature(u, max_ratio=10.0, min_temperature=0.0):.4f}")
    1.7372
    """
    low, high = extent(*_uncertainties(u, where))
    ratio, floor = _ratio_and_floor(max_ratio, min_temperature)
    spread = high - low
    tau = jnp.maximum(floor, spread / jnp.log(ratio))
    return jnp.where((spread == 0) & ~jnp.isnan(ratio), floor, tau)


def temperature_search(
    u: ArrayLike, *, max_ratio: float, start: float = 1.0, increment: float = 0.01
) -> float:
    """Temperature found by the thesis's incremental search; on the host.

    The first of start, start + increment, start + 2 increment, ... at which

        max p / min p = exp((max u - min u) / tau) <= max_ratio

    which is `temperature` with min_temperature = start, rounded up to an increment;
    in float64. Kept for comparison.

    Args:
        u: float `[n]`, finite.
        max_ratio: above 1, or 1 if all u are equal.
        start: the first temperature, above 0.
        increment: above 0.

    Returns:
        The temperature.

    Raises:
        ValueError: if an argument is not as above, or if 1e8 increments do not suffice.

    References:
        McWilliam, Automatic curriculum learning for deep models using active learning,
        2018, equation (4.8) and its accompanying procedure.

    >>> round(temperature_search([0.0, 4.0], max_ratio=10.0), 4)
    1.74
    """
    values = np.asarray(u, np.float64)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)):
        raise ValueError(f"got u of shape {values.shape}, expected [n], finite, n >= 1")
    if not max_ratio >= 1:
        raise ValueError(f"got max_ratio {max_ratio}, expected at least 1")
    if not (0 < start < math.inf and 0 < increment < math.inf):
        raise ValueError(
            f"got start {start} and increment {increment}, expected both above 0"
        )
    spread, log_ratio = float(np.ptp(values)), math.log(max_ratio)
    # In growing blocks: a few increments are cheap, and 1e5 take a few numpy calls.
    first, block = 0, 64
    while first <= MAX_INCREMENTS:
        candidates = start + increment * np.arange(first, first + block)
        met = spread <= log_ratio * candidates
        if met.any():
            return float(candidates[met.argmax()])
        first, block = first + block, min(2 * block, 2**20)
    raise ValueError(
        f"got max_ratio {max_ratio} for a spread of {spread}, expected one that "
        f"{MAX_INCREMENTS} increments of {increment} reach"
    )


def _uncertainties(
    u: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Return float32 u, 0 where masked, and the mask; check concrete values."""
    values, counted = vector("u", u), mask(where, u)
    if not isinstance(where, Tracer):
        # In numpy: inside a traced program jax traces even what is concrete.
        kept = np.ones(values.shape, bool) if where is None else np.asarray(where, bool)
        if not kept.any():
            raise ValueError("got a where without any example, expected at least one")
        if not isinstance(u, Tracer):
            size = np.abs(np.asarray(u).astype(np.float64)[kept])
            wrong = np.count_nonzero(~(size <= MAX_UNCERTAINTY))
            if wrong:
                raise ValueError(
                    f"got {wrong} of {len(size)} uncertainties not finite, expected "
                    f"all in [-{MAX_UNCERTAINTY}, {MAX_UNCERTAINTY}]"
                )
    return jnp.where(counted, values, 0.0), counted


def _ratio_and_floor(
    max_ratio: ArrayLike, min_temperature: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return float32 scalars; check concrete ones, or set a wrong ratio to NaN."""
    given = []
    for name, value in (("max_ratio", max_ratio), ("min_temperature", min_temperature)):
        if np.shape(value):
            raise ValueError(f"got {name} of shape {np.shape(value)}, expected ()")
        # As a Python float: float32 would turn 1e300 into inf.
        given.append(None if isinstance(value, Tracer) else float(np.asarray(value)))
    high, low = given
    if high is not None and not (1 <= high <= MAX_RATIO or high == math.inf):
        raise ValueError(
            f"got max_ratio {high}, expected one in [1, {MAX_RATIO}] or inf"
        )
    if low is not None and not 0 <= low < math.inf:
        raise ValueError(f"got min_temperature {low}, expected at least 0")
    if high == math.inf and low == 0:
        raise ValueError(
            "got max_ratio inf with min_temperature 0, expected one above 0: without a "
            "bound on the ratio it is the temperature"
        )
    ratio = jnp.asarray(max_ratio, jnp.float32)
    floor = jnp.asarray(min_temperature, jnp.float32)
    legal = (ratio >= 1) & (floor >= 0) & ((ratio < jnp.inf) | (floor > 0))
    return jnp.where(legal, ratio, jnp.nan), floor


def _winsorized(values: jax.Array, counted: jax.Array, share: float) -> jax.Array:
    """Clip values to the quantiles `share` and 1 - `share` of the counted ones."""
    ordered = jnp.sort(jnp.where(counted, values, jnp.inf))
    last = jnp.sum(counted) - 1

    def quantile(q: float) -> jax.Array:
        place = q * last.astype(jnp.float32)
        at = jnp.floor(place).astype(jnp.int32)
        start, end = ordered[at], ordered[jnp.minimum(at + 1, last)]
        return start + (end - start) * (place - at)

    return jnp.clip(values, quantile(share), quantile(1 - share))
