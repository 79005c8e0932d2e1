"""Places, sizes and rotations of the patches in built-in pictures.

Without a decoy there is one patch, near the middle. With a decoy it is smaller and lies
in one of four places off the centre, and the decoy, a second patch, in another.

Suffixes of names: b pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from memejax.data.synthetic_patterns import WAVES

# Half the side of a square patch, in radii of the disc of the same area.
SQUARE = 0.886
# Lowest and highest radius and rotation of a patch, its distance from its place, and
# period of its pattern; in sides of the picture, and radians.
LARGE = ((0.28, 0.38), (-np.pi / 12, np.pi / 12), (-0.1, 0.1), (0.12, 0.19))
SMALL = ((0.18, 0.21), (-np.pi / 12, np.pi / 12), (-0.02, 0.02), (0.1, 0.15))
# Places of two small patches that never touch: the middles of the quarters.
_PLACES = np.array(
    [[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]], np.float32
)
# Pairs of random colours to choose from.
COLOUR_PAIRS = 16
# Random numbers per picture for two small patches: order of the places, 8 of each
# patch, phases of the decoy's blotches, and its colours.
_NUMBERS = 4 + 2 * 8 + WAVES + 6 * COLOUR_PAIRS


class Uniforms:
    """Successive columns of [b, n] numbers in [0, 1), from left to right."""

    def __init__(self, values: np.ndarray):
        self._values, self._used = values, 0

    def __call__(self, n: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return the next n columns, scaled to [low, high)."""
        start, self._used = self._used, self._used + n
        return low + (high - low) * self._values[:, start : self._used]


def boxes(rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the patch with the concept's pattern and of the decoy.

    Args:
        rngs: b generators as `draw` gets them, before they are advanced.

    Returns:
        Two float arrays [b, 4]: left, top, right and bottom, in sides of the picture.
    """
    patch, decoy, _ = with_decoy(rngs)
    return patch.boxes(), decoy.boxes()


class Patch(NamedTuple):
    """Random numbers of one patch per picture, each [b, 1, 1]."""

    radius: np.ndarray
    angle: np.ndarray
    right: np.ndarray
    down: np.ndarray
    period: np.ndarray
    phase_x: np.ndarray
    phase_y: np.ndarray
    outline: np.ndarray

    def boxes(self) -> np.ndarray:
        """Left, top, right and bottom in sides of the picture, [b, 4]."""
        turned = np.cos(self.angle) + np.sin(np.abs(self.angle))
        half = self.radius * np.where(self.outline < 0.5, 1, SQUARE * turned)
        x, y = self.right + 0.5, self.down + 0.5
        sides = [x - half, y - half, x + half, y + half]
        return np.concatenate([side[:, 0] for side in sides], axis=1)


def draw_patch(take: Uniforms, ranges: tuple[tuple[float, float], ...]) -> Patch:
    """Draw a patch near the middle of each picture."""
    radius, angle, away, period = ranges
    unit = (0, 1)
    rows = (radius, angle, away, away, period, unit, unit, unit)
    return Patch(*(take(1, low, high)[:, :, None] for low, high in rows))


def with_decoy(
    rngs: Sequence[np.random.Generator],
) -> tuple[Patch, Patch, Uniforms]:
    """Draw the patch and the decoy, each in its own place, and what else it needs.

    The numbers are those of a child of each generator, so that they depend neither on
    what its parent has drawn nor on the size of the picture.
    """
    children = [np.random.default_rng(_child(rng)) for rng in rngs]
    take = Uniforms(np.stack([r.random(_NUMBERS, np.float32) for r in children]))
    order = np.argsort(take(4), axis=1)
    patches = []
    for number in range(2):
        patch = draw_patch(take, SMALL)
        place = _PLACES[order[:, number]][:, :, None, None]
        moved = {"right": patch.right + place[:, 0], "down": patch.down + place[:, 1]}
        patches.append(patch._replace(**moved))
    return patches[0], patches[1], take


def _child(rng: np.random.Generator) -> np.random.SeedSequence:
    """Return the seed of a generator's first child, the same at every call."""
    seed = rng.bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise ValueError(f"got a generator of {type(seed)}, expected a SeedSequence")
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 0))
