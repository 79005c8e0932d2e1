"""Pictures of the built-in memes: one plain figure each, hidden under nuisance.

A picture shows one of eight *concepts*, each a figure that a horizontal flip maps to
itself. What tells the concepts apart is shape alone: every figure has the same area,
and its place, size, rotation, colour and polarity (lighter or darker than the ground)
are drawn at random, as are the ground's gradient, lines, specks and pixel noise. In
one corner sits a small badge, warm or cold: the picture's *cue*.

The order of the concepts matters, because the label of a meme takes their parity. The
first four, which a coarse network tells apart best, have outlines of length 6.3, 9.4,
16.5 and 10.9 (in units in which the area is pi): the even two enclose the odd two, so
neither edge density nor spread grows with parity.

Suffixes of names: b pictures, h and w rows and columns, c colour channels.
"""

from collections.abc import Callable, Sequence

import numpy as np

CONCEPTS = (
    "disc",
    "cross",
    "bars",
    "ring",
    "triangle",
    "frame",
    "dots",
    "hourglass",
)
# Colours of the badge under cue 0 and cue 1: equal in mean and nearly in luminance.
CUE_TINTS = np.array([[0.95, 0.45, 0.10], [0.10, 0.45, 0.95]], np.float32)

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Two colours drawn at random differ by this much in luminance three times in ten;
# of 16 pairs the first that does is taken, or (0.3 % of pictures) the best.
_CONTRAST = 0.3
_COLOUR_PAIRS = 16
_LINES = 2
_SPECKS = 5
# The numbers in [0, 1) that make a picture, apart from its pixel noise.
_UNIFORMS = 10 + 6 * (_COLOUR_PAIRS + _LINES + _SPECKS)


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Arms 2 x 1.1796 long and 0.34 of that wide: 8 L w - 4 w^2 = pi.
    x, y, arm, half = abs(x), abs(y), 1.1796, 0.34 * 1.1796
    across = np.maximum(x - arm, y - half)
    return np.minimum(across, np.maximum(x - half, y - arm))


def _bars(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Three of the five strips of a square: 0.6 (2 h)^2 = pi.
    half = 1.1441
    from_middle = np.minimum(abs(y), abs(abs(y) - 0.8 * half))
    return np.maximum(abs(x) - half, from_middle - 0.2 * half)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # The hole has half the radius: 0.75 pi R^2 = pi.
    outer = 1.1547
    return abs(np.hypot(x, y) - 0.75 * outer) - 0.25 * outer


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Upright, as wide as it is high, around its centre of mass: B^2 / 2 = pi.
    base = 2.5066
    sides = (abs(x) - (y + base * 2 / 3) / 2) / np.sqrt(1.25).astype(x.dtype)
    return np.maximum(y - base / 3, sides)


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A square less a square of 0.6 its side: 0.64 (2 h)^2 = pi.
    half = 1.1078
    return abs(np.maximum(abs(x), abs(y)) - 0.8 * half) - 0.2 * half


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Four discs of half the radius of the one.
    return np.hypot(abs(x) - 0.68, abs(y) - 0.68) - 0.5


def _hourglass(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Two triangles, tip on tip: 2 h^2 = pi.
    slant = (abs(x) - abs(y)) / np.sqrt(2).astype(x.dtype)
    return np.maximum(abs(y) - 1.2533, slant)


_FIGURES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _disc,
    _cross,
    _bars,
    _ring,
    _triangle,
    _frame,
    _dots,
    _hourglass,
)


def signed_distance(concept: int, x: np.ndarray, *, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of a figure of area pi around the origin.

    Near an outline's corner it is a bound on the distance, which is all that
    anti-aliasing needs.

    Args:
        concept: place in CONCEPTS.
        x: float, any shape: to the right.
        y: float, shape of `x`: downwards.

    Returns:
        Float, shape of `x`: negative inside the figure.

    Raises:
        ValueError: for a concept that does not exist.
    """
    if not 0 <= concept < len(CONCEPTS):
        raise ValueError(f"concept {concept}: expected one of 0..{len(CONCEPTS) - 1}")
    return _FIGURES[concept](x, y)


def draw(
    concepts: np.ndarray,
    cues: np.ndarray,
    *,
    rngs: Sequence[np.random.Generator],
    size: int,
) -> np.ndarray:
    """Draws pictures.

    Each is a function of its own concept, cue and generator only, whatever the batch
    that it is drawn in; equal generators with two cues give pictures that differ in
    the badge alone.

    Args:
        concepts: int [b] in 0..7.
        cues: int [b] in {0, 1}: the tint of the badge.
        rngs: b generators, one a picture; drawn from.
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

    fore_bc, back_bc = _colours(take)
    image_bhwc = _ground(take, x_bhw, y_bhw, back_bc)
    for _ in range(_LINES):
        _paint(image_bhwc, _line(take, x_bhw, y_bhw), colour_bc=take(3))
    _paint(image_bhwc, _figure(take, x_bhw, y_bhw, concepts), colour_bc=fore_bc)
    for _ in range(_SPECKS):
        _paint(image_bhwc, _speck(take, x_bhw, y_bhw), colour_bc=take(3))
    _badge(image_bhwc, cues, corners=take(1)[:, 0])
    image_bhwc += noise_bhwc * take(1, 0.01, 0.05)[:, :, None, None]
    return (np.clip(image_bhwc, 0, 1) * 255 + 0.5).astype(np.uint8)


class _Uniforms:
    """Hands out the columns of [b, n] numbers in [0, 1), from left to right."""

    def __init__(self, values: np.ndarray):
        self._values, self._used = values, 0

    def __call__(self, n: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        start, self._used = self._used, self._used + n
        return low + (high - low) * self._values[:, start : self._used]


def _colours(take: _Uniforms) -> tuple[np.ndarray, np.ndarray]:
    """Colours of figure and ground [b, 3], apart in luminance, either one lighter."""
    pairs = take(6 * _COLOUR_PAIRS, 0.05, 0.95).reshape(-1, _COLOUR_PAIRS, 2, 3)
    luminance = pairs @ _LUMINANCE
    contrast = np.abs(luminance[..., 0] - luminance[..., 1])
    # argmax finds the first pair of enough contrast, or else the one of the most.
    best = np.argmax(np.minimum(contrast, _CONTRAST), axis=1)
    chosen = pairs[np.arange(len(pairs)), best]
    return chosen[:, 0], chosen[:, 1]


def _ground(
    take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray, back_bc: np.ndarray
) -> np.ndarray:
    """The background: a colour and a linear gradient of another towards one side."""
    angle = take(1, 0, 2 * np.pi)[:, :, None]
    slope_bhw = np.cos(angle) * x_bhw + np.sin(angle) * y_bhw
    tint_bc = take(3, -0.3, 0.3)
    return back_bc[:, None, None] + slope_bhw[..., None] * tint_bc[:, None, None]


def _figure(
    take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray, concepts: np.ndarray
) -> np.ndarray:
    """How much of each pixel [b, h, w] the figure covers."""
    # A disc of the figure's area is 0.45 to 0.59 of the side across, the widest
    # figure (the triangle) 1.25 times that.
    radius, angle, right, down = (
        take(1, low, high)[:, :, None]
        for low, high in [
            (0.225, 0.295),
            (-np.pi / 9, np.pi / 9),
            (-0.12, 0.12),
            (-0.12, 0.12),
        ]
    )
    x, y = (x_bhw - right) / radius, (y_bhw - down) / radius
    turned_x = np.cos(angle) * x + np.sin(angle) * y
    turned_y = np.cos(angle) * y - np.sin(angle) * x
    distance = np.empty_like(turned_x)
    for concept in np.unique(concepts):
        of = np.flatnonzero(concepts == concept)
        distance[of] = signed_distance(int(concept), turned_x[of], y=turned_y[of])
    return _coverage(distance * radius)


def _line(take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """How much of each pixel a thin line right across the picture covers."""
    angle, offset, width = (
        take(1, low, high)[:, :, None]
        for low, high in [(0, np.pi), (-0.4, 0.4), (0.008, 0.018)]
    )
    return _coverage(
        abs(np.cos(angle) * x_bhw + np.sin(angle) * y_bhw - offset) - width
    )


def _speck(take: _Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """How much of each pixel a small disc covers."""
    right, down = take(1, -0.5, 0.5)[:, :, None], take(1, -0.5, 0.5)[:, :, None]
    radius = take(1, 0.015, 0.04)[:, :, None]
    return _coverage(np.hypot(x_bhw - right, y_bhw - down) - radius)


def _coverage(distance_bhw: np.ndarray) -> np.ndarray:
    """Box-filter anti-aliasing of a signed distance, given in sides of the picture."""
    return np.clip(0.5 - distance_bhw * distance_bhw.shape[-1], 0, 1)


def _paint(
    image_bhwc: np.ndarray, coverage_bhw: np.ndarray, *, colour_bc: np.ndarray
) -> None:
    """Blends a colour into the image, in place."""
    image_bhwc += coverage_bhw[..., None] * (colour_bc[:, None, None] - image_bhwc)


def _badge(image_bhwc: np.ndarray, cues: np.ndarray, *, corners: np.ndarray) -> None:
    """Sets a square of the cue's tint into one corner, in place."""
    size = image_bhwc.shape[1]
    # Next to the very edge, so that a random crop often drops it.
    near, far = slice(1, 1 + size // 8), slice(size - 1 - size // 8, size - 1)
    for image, cue, corner in zip(
        image_bhwc, cues, (corners * 4).astype(int), strict=True
    ):
        rows = far if corner & 1 else near
        columns = far if corner & 2 else near
        image[rows, columns] = CUE_TINTS[cue]
