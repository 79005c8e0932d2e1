"""Pictures of the built-in memes: one patterned patch each, among random clutter.

A picture shows one of eight *concepts*, each a pattern that a horizontal flip maps to
itself. Only the pattern distinguishes the concepts: the outline of the patch (a disc
or a square), its place, size, rotation and colours, which of its colours is the
lighter one, the period and phase of the pattern are drawn at random, as are the
gradient of the background, lines, specks and pixel noise. A small badge in one corner,
warm or cold, is the *cue* of the picture.

The order of the concepts matters, because the label of a meme depends on their parity.
The first four have about the same length of edges at the same period (checks are drawn
at twice the period), so that neither edge density nor colour grows with parity.

Suffixes of names: b pictures, h and w rows and columns, c colour channels.
"""

from collections.abc import Callable, Sequence

import numpy as np

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
# Colours of the badge for cue 0 and cue 1: equal in mean and nearly in luminance.
CUE_TINTS = np.array([[0.95, 0.45, 0.10], [0.10, 0.45, 0.95]], np.float32)

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Two random colours differ by this much in luminance three times in ten; the first of
# 16 pairs that does is taken, or else (0.3 % of pictures) the best.
_CONTRAST = 0.3
_COLOUR_PAIRS = 16
_LINES = 2
_SPECKS = 5
# Random numbers in [0, 1) per picture, apart from its pixel noise.
_UNIFORMS = 17 + 6 * (_COLOUR_PAIRS + _LINES + _SPECKS)


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


_PATTERNS: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
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


def draw(
    concepts: np.ndarray,
    cues: np.ndarray,
    *,
    rngs: Sequence[np.random.Generator],
    size: int,
) -> np.ndarray:
    """Draw pictures.

    Each is a function of its own concept, cue and generator only, independent of the
    rest of the batch; equal generators with two cues give pictures that differ in the
    badge alone.

    Args:
        concepts: int [b] in 0..7.
        cues: int [b] in {0, 1}: the tint of the badge.
        rngs: b generators, one per picture, which are advanced.
        size: side of a picture in pixels, >= 16.

    Returns:
        uint8 [b, size, size, 3].

    Raises:
        ValueError: if lengths differ or the size is too small to show a figure.
    """
    if not len(concepts) == len(cues) == len(rngs):
        lengths = len(concepts), len(cues), len(rngs)
        raise ValueError(f"expected as many concepts, cues and rngs, got {lengths}")
    if size < 16:
        raise ValueError(f"size {size}: expected at least 16 pixels")
    take = _Uniforms(np.stack([r.random(_UNIFORMS, np.float32) for r in rngs]))
    noise_bhwc = np.stack(
        [r.standard_normal((size, size, 3), np.float32) for r in rngs]
    )
    # Pixel centres, in sides of the picture from its middle.
    grid = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)[None]
    x_bhw, y_bhw = grid[:, None, :], grid[:, :, None]

    light_bc, dark_bc = _colours(take)
    image_bhwc = _ground(take, x_bhw, y_bhw)
    for _ in range(_LINES):
        _paint(image_bhwc, _line(take, x_bhw, y_bhw), colour_bc=take(3))
    patch_bhw, pattern_bhw = _figure(take, x_bhw, y_bhw, concepts)
    _paint(image_bhwc, patch_bhw, colour_bc=light_bc)
    _paint(image_bhwc, patch_bhw * pattern_bhw, colour_bc=dark_bc)
    for _ in range(_SPECKS):
        _paint(image_bhwc, _speck(take, x_bhw, y_bhw), colour_bc=take(3))
    _badge(image_bhwc, cues, corners=take(1)[:, 0])
    image_bhwc += noise_bhwc * take(1, 0.01, 0.05)[:, :, None, None]
    return (np.clip(image_bhwc, 0, 1) * 255 + 0.5).astype(np.uint8)


class _Uniforms:
    """Successive columns of [b, n] numbers in [0, 1), from left to right."""

    def __init__(self, values: np.ndarray):
        self._values, self._used = values, 0

    def __call__(self, n: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        start, self._used = self._used, self._used + n
        return low + (high - low) * self._values[:, start : self._used]


def _colours(take: _Uniforms) -> tuple[np.ndarray, np.ndarray]:
    """Two colours per pattern [b, 3], different in luminance, either one lighter."""
    pairs = take(6 * _COLOUR_PAIRS, 0.05, 0.95).reshape(-1, _COLOUR_PAIRS, 2, 3)
    luminance = pairs @ _LUMINANCE
    contrast = np.abs(luminance[..., 0] - luminance[..., 1])
    # argmax finds the first pair with enough contrast, or else the one with the most.
    best = np.argmax(np.minimum(contrast, _CONTRAST), axis=1)
    chosen = pairs[np.arange(len(pairs)), best]
    return chosen[:, 0], chosen[:, 1]


def _ground(take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """Background: one colour with a linear gradient of another towards one side."""
    back_bc = take(3, 0.1, 0.9)
    angle = take(1, 0, 2 * np.pi)[:, :, None]
    slope_bhw = np.cos(angle) * x_bhw + np.sin(angle) * y_bhw
    tint_bc = take(3, -0.3, 0.3)
    return back_bc[:, None, None] + slope_bhw[..., None] * tint_bc[:, None, None]


def _figure(
    take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray, concepts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of each pixel [b, h, w] by the patch, and by the pattern on it."""
    radius, angle, right, down, period, phase_x, phase_y, outline = (
        take(1, low, high)[:, :, None]
        for low, high in [
            (0.28, 0.38),
            (-np.pi / 12, np.pi / 12),
            (-0.1, 0.1),
            (-0.1, 0.1),
            (0.12, 0.19),
            (0, 1),
            (0, 1),
            (0, 1),
        ]
    )
    x, y = x_bhw - right, y_bhw - down
    turned_x = np.cos(angle) * x + np.sin(angle) * y
    turned_y = np.cos(angle) * y - np.sin(angle) * x
    square = np.maximum(abs(turned_x), abs(turned_y)) - 0.886 * radius
    edge = np.where(outline < 0.5, np.hypot(x, y) - radius, square)
    # Rings and rays are centred on the patch: a phase would move their centre.
    central = np.isin(concepts, [CONCEPTS.index("rings"), CONCEPTS.index("rays")])
    shift = np.where(central, 0.0, 1.0)[:, None, None].astype(np.float32)
    u, v = turned_x / period + shift * phase_x, turned_y / period + shift * phase_y
    pattern = np.empty_like(edge)
    for concept in np.unique(concepts):
        of = np.flatnonzero(concepts == concept)
        pattern[of] = signed_distance(int(concept), u[of], y=v[of])
    return _coverage(edge), _coverage(pattern * period)


def _line(take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by a thin line across the whole picture."""
    angle, offset, width = (
        take(1, low, high)[:, :, None]
        for low, high in [(0, np.pi), (-0.4, 0.4), (0.008, 0.018)]
    )
    return _coverage(
        abs(np.cos(angle) * x_bhw + np.sin(angle) * y_bhw - offset) - width
    )


def _speck(take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by a small disc."""
    right, down = take(1, -0.5, 0.5)[:, :, None], take(1, -0.5, 0.5)[:, :, None]
    radius = take(1, 0.015, 0.04)[:, :, None]
    return _coverage(np.hypot(x_bhw - right, y_bhw - down) - radius)


def _coverage(distance_bhw: np.ndarray) -> np.ndarray:
    """Box-filter anti-aliasing of a signed distance, in sides of the picture."""
    return np.clip(0.5 - distance_bhw * distance_bhw.shape[-1], 0, 1)


def _paint(
    image_bhwc: np.ndarray, coverage_bhw: np.ndarray, *, colour_bc: np.ndarray
) -> None:
    """Blend a colour into the image, in place."""
    image_bhwc += coverage_bhw[..., None] * (colour_bc[:, None, None] - image_bhwc)


def _badge(image_bhwc: np.ndarray, cues: np.ndarray, *, corners: np.ndarray) -> None:
    """Draw a square in the tint of the cue into one corner, in place."""
    size = image_bhwc.shape[1]
    # Next to the edge, so that a random crop often removes it.
    near, far = slice(1, 1 + size // 8), slice(size - 1 - size // 8, size - 1)
    for image, cue, corner in zip(
        image_bhwc, cues, (corners * 4).astype(int), strict=True
    ):
        rows = far if corner & 1 else near
        columns = far if corner & 2 else near
        image[rows, columns] = CUE_TINTS[cue]
