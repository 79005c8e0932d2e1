"""Patterns of the patches in built-in pictures, as signed distances.

Suffixes of names: b pictures, h and w rows and columns.
"""

from collections.abc import Callable

import numpy as np

# Signed distance to the edges of a pattern, of places [b, h, w] in periods.
Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]

CONCEPTS = (
    "stripes across",
    "stripes upright",
    "dots",
    "checks",
    "rings",
    "grid",
    "zigzag",
    "rays",
)
# Plane waves whose sum makes blotches. Five directions repeat on no lattice.
WAVES = 5


def _stripes(x: np.ndarray, width: float = 0.5) -> np.ndarray:
    """Stripes of period 1 and width `width`."""
    return abs(x - np.floor(x) - 0.5) - width / 2


def _across(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _stripes(y)


def _upright(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _stripes(x)


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Perimeter 2.1 per cell, close to the 2 of stripes.
    return np.hypot(x - np.floor(x) - 0.5, y - np.floor(y) - 0.5) - 0.34


def _checks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = 2 * _stripes(x / 2), 2 * _stripes(y / 2)
    return np.maximum(np.minimum(a, b), -np.maximum(a, b))


def _rings(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _stripes(np.hypot(x, y))


def _grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(1.4 * _stripes(x / 1.4, 0.3), 1.4 * _stripes(y / 1.4, 0.3))


def _zigzag(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _stripes(y + 1.5 * abs(x / 3 - np.floor(x / 3) - 0.5))


def _rays(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Twelve sectors; an angle times the radius is a distance.
    turn = np.arctan2(x, -y) / (2 * np.pi)
    return _stripes(12 * turn) * np.hypot(x, y) * (2 * np.pi / 12)


_PATTERNS: tuple[Pattern, ...] = (
    _across,
    _upright,
    _dots,
    _checks,
    _rings,
    _grid,
    _zigzag,
    _rays,
)


def signed_distance(concept: int, x: np.ndarray, *, y: np.ndarray) -> np.ndarray:
    """Signed distance to the edges of a pattern of period 1.

    Near a corner it is a bound on the distance, which is enough for anti-aliasing.

    Args:
        concept: index into CONCEPTS.
        x: float, any shape: to the right, in periods.
        y: float, shape of `x`: downwards, in periods.

    Returns:
        Float, shape of `x`, in periods: negative inside the pattern.

    Raises:
        ValueError: for an unknown concept.
    """
    if not 0 <= concept < len(CONCEPTS):
        raise ValueError(f"concept {concept}: expected one of 0..{len(CONCEPTS) - 1}")
    return _PATTERNS[concept](x, y)


def blotches(phases: np.ndarray, x: np.ndarray, *, y: np.ndarray) -> np.ndarray:
    """Signed distance to the edges of random blotches, about a period apart.

    They come from the sum of waves of period 1 in `WAVES` directions, divided by its
    mean steepness: no orientation and no lattice distinguishes them.

    Args:
        phases: of the waves, [b, WAVES], in radians.
        x: float [b, h, w]: to the right, in periods.
        y: float [b, h, w]: downwards, in periods.

    Returns:
        Float [b, h, w], in periods: negative inside the blotches.
    """
    total = np.zeros_like(x)
    for number in range(WAVES):
        turn = np.pi * number / WAVES
        along = np.cos(turn) * x + np.sin(turn) * y
        total += np.cos(2 * np.pi * along + phases[:, number, None, None])
    return total / (2 * np.pi * np.sqrt(WAVES / 2))
