"""Sampling probabilities with a bounded ratio, from uncertainties."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from memejax.curriculum.checks import extent
from memejax.curriculum.temperature import checked_ratio, checked_uncertainties


def sampling_probs(
    u: ArrayLike,
    *,
    favour: Literal["easy", "hard"],
    max_ratio: ArrayLike,
    min_temperature: ArrayLike,
    winsorize: float | None = None,
    increment: float = 0.0,
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
        increment: a number >= 0, in the units of u: the temperature is raised from
            min_temperature in such steps until the ratio is at most R, as the thesis
            finds it (`temperature_search`); 0 meets R exactly.
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
    if not 0 <= increment < math.inf:
        raise ValueError(f"got increment {increment}, expected a number >= 0")
    values, counted = checked_uncertainties(u, where)
    ratio, floor = checked_ratio(max_ratio, min_temperature)
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
    if increment:
        steps = jnp.ceil((spread / jnp.log(ratio) - floor) / increment)
        raised = floor + increment * jnp.where(meets, steps, 1.0)
        met = jnp.exp(-gap / raised)
    else:
        met = jnp.power(jnp.where(meets, ratio, 1.0), -part)
    floored = jnp.exp(-gap / jnp.where(floor > 0, floor, 1.0))
    legal = ~jnp.isnan(ratio) & jnp.isfinite(spread)
    weights = jnp.where(legal, jnp.where(meets, met, floored), jnp.nan)
    weights = jnp.where(counted, weights, 0.0)
    total = jnp.where(jnp.any(counted), jnp.sum(weights), 1.0)
    return jnp.where(counted, weights / total, 0.0)


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
