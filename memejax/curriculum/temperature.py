"""The temperature at which a softmax of uncertainties meets a maximum ratio."""

import math

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
    low, high = extent(*checked_uncertainties(u, where))
    ratio, floor = checked_ratio(max_ratio, min_temperature)
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


def checked_uncertainties(
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


def checked_ratio(
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
