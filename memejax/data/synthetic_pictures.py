"""Pictures of the built-in memes: one patterned patch each, among random clutter.

A picture shows one of eight *concepts*, each a pattern that a horizontal flip maps to
itself. Only the pattern distinguishes the concepts: the outline of the patch (a disc
or a square), its place, size, rotation and colours, which of its colours is the
lighter one, the period and phase of the pattern are drawn at random, as are the
gradient of the background, lines, specks and pixel noise. A small badge in one corner,
warm or cold, is the *cue* of the picture.

With a *decoy* the patch is smaller and lies in one of four places off the centre, and
a second patch in another. Blotches on the decoy have no orientation and no lattice, and
nothing about it depends on the concept: a map of what matters in such a picture can
neither be constant nor show everything that stands out.

The order of the concepts matters, because the label of a meme depends on their parity.
The first four have about the same length of edges at the same period (checks are drawn
at twice the period), so that neither edge density nor colour grows with parity.

Suffixes of names: b pictures, h and w rows and columns, c colour channels.
"""

from collections.abc import Callable, Sequence

import numpy as np

from memejax.data.synthetic_patches import (
    COLOUR_PAIRS,
    LARGE,
    SQUARE,
    Patch,
    Uniforms,
    draw_patch,
    with_decoy,
)
from memejax.data.synthetic_patches import boxes as boxes
from memejax.data.synthetic_patterns import CONCEPTS as CONCEPTS
from memejax.data.synthetic_patterns import WAVES, blotches
from memejax.data.synthetic_patterns import signed_distance as signed_distance

# Colours of the badge for cue 0 and cue 1: equal in mean and nearly in luminance.
CUE_TINTS = np.array([[0.95, 0.45, 0.10], [0.10, 0.45, 0.95]], np.float32)

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Two random colours differ by this much in luminance three times in ten; the first of
# 16 pairs that does is taken, or else (0.3 % of pictures) the best.
_CONTRAST = 0.3
_LINES = 2
_SPECKS = 5
# Random numbers in [0, 1) per picture, apart from its pixel noise.
_UNIFORMS = 17 + 6 * (COLOUR_PAIRS + _LINES + _SPECKS)


def draw(
    concepts: np.ndarray,
    cues: np.ndarray,
    *,
    rngs: Sequence[np.random.Generator],
    size: int,
    decoy: bool = False,
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
        decoy: whether the patch lies off the centre, with a decoy in another place;
            the rest of a picture is the same with it and without it.

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
    take = Uniforms(np.stack([r.random(_UNIFORMS, np.float32) for r in rngs]))
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
    patch = draw_patch(take, LARGE)
    if decoy:
        patch, other, numbers = with_decoy(rngs)
        phases = numbers(WAVES, 0, 2 * np.pi)
        figure = _figure(other, x_bhw, y_bhw, lambda u, v: blotches(phases, u, y=v))
        _paint_figure(image_bhwc, figure, _colours(numbers))
    figure = _figure(patch, x_bhw, y_bhw, _pattern(concepts, patch))
    _paint_figure(image_bhwc, figure, (light_bc, dark_bc))
    for _ in range(_SPECKS):
        _paint(image_bhwc, _speck(take, x_bhw, y_bhw), colour_bc=take(3))
    _badge(image_bhwc, cues, corners=take(1)[:, 0])
    image_bhwc += noise_bhwc * take(1, 0.01, 0.05)[:, :, None, None]
    return (np.clip(image_bhwc, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colours(take: Uniforms) -> tuple[np.ndarray, np.ndarray]:
    """Two colours per pattern [b, 3], different in luminance, either one lighter."""
    pairs = take(6 * COLOUR_PAIRS, 0.05, 0.95).reshape(-1, COLOUR_PAIRS, 2, 3)
    luminance = pairs @ _LUMINANCE
    contrast = np.abs(luminance[..., 0] - luminance[..., 1])
    # argmax finds the first pair with enough contrast, or else the one with the most.
    best = np.argmax(np.minimum(contrast, _CONTRAST), axis=1)
    chosen = pairs[np.arange(len(pairs)), best]
    return chosen[:, 0], chosen[:, 1]


def _ground(take: Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """Background: one colour with a linear gradient of another towards one side."""
    back_bc = take(3, 0.1, 0.9)
    angle = take(1, 0, 2 * np.pi)[:, :, None]
    slope_bhw = np.cos(angle) * x_bhw + np.sin(angle) * y_bhw
    tint_bc = take(3, -0.3, 0.3)
    return back_bc[:, None, None] + slope_bhw[..., None] * tint_bc[:, None, None]


def _pattern(concepts: np.ndarray, patch: Patch) -> Callable[..., np.ndarray]:
    """Return the signed distance to each picture's pattern, (u, v) in periods."""
    # Rings and rays are centred on the patch: a phase would move their centre.
    central = np.isin(concepts, [CONCEPTS.index("rings"), CONCEPTS.index("rays")])
    shift = np.where(central, 0.0, 1.0)[:, None, None].astype(np.float32)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = u + shift * patch.phase_x, v + shift * patch.phase_y
        found = np.empty_like(u)
        for concept in np.unique(concepts):
            of = np.flatnonzero(concepts == concept)
            found[of] = signed_distance(int(concept), u[of], y=v[of])
        return found

    return distance


def _figure(
    patch: Patch,
    x_bhw: np.ndarray,
    y_bhw: np.ndarray,
    pattern: Callable[..., np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of each pixel [b, h, w] by a patch, and by the pattern on it."""
    x, y = x_bhw - patch.right, y_bhw - patch.down
    angle = patch.angle
    turned_x = np.cos(angle) * x + np.sin(angle) * y
    turned_y = np.cos(angle) * y - np.sin(angle) * x
    square = np.maximum(abs(turned_x), abs(turned_y)) - SQUARE * patch.radius
    edge = np.where(patch.outline < 0.5, np.hypot(x, y) - patch.radius, square)
    distance = pattern(turned_x / patch.period, turned_y / patch.period)
    return _coverage(edge), _coverage(distance * patch.period)


def _line(take: Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
    """Coverage of each pixel by a thin line across the whole picture."""
    angle, offset, width = (
        take(1, low, high)[:, :, None]
        for low, high in [(0, np.pi), (-0.4, 0.4), (0.008, 0.018)]
    )
    return _coverage(
        abs(np.cos(angle) * x_bhw + np.sin(angle) * y_bhw - offset) - width
    )


def _speck(take: Uniforms, x_bhw: np.ndarray, y_bhw: np.ndarray) -> np.ndarray:
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


def _paint_figure(
    image_bhwc: np.ndarray,
    figure: tuple[np.ndarray, np.ndarray],
    colours: tuple[np.ndarray, np.ndarray],
) -> None:
    """Paint a patch in one colour and its pattern in another, in place."""
    patch_bhw, pattern_bhw = figure
    _paint(image_bhwc, patch_bhw, colour_bc=colours[0])
    _paint(image_bhwc, patch_bhw * pattern_bhw, colour_bc=colours[1])


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
