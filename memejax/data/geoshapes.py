"""GeoShapes: grey pictures of one rectangle, ellipse or triangle, easy and hard.

*Basic* shapes are squares, circles and triangles as high as their base; *geom* shapes
are rectangles, ellipses and triangles of any proportion from 1 : 3 to 3 : 1. A
curriculum goes from the first to the second. All lengths are in sides of the picture.

The distributions follow the generator of the two data sets of the paper, shapeset1 and
shapeset2:

- the type: one of three, equally likely;
- the angle: uniform in [0, pi/2), for a triangle in [0, 2 pi);
- the peak of a triangle, as a fraction of its base: 0.5, for geom uniform in [0, 1);
- the greys of background and shape: uniform among eight, redrawn until they differ;
- the area: uniform in [0.1, 0.4) of the picture;
- the elongation, width by height before rotation (base by height of a triangle): 1,
  for geom log-uniform in [1/3, 3);
- the position: uniform, with the shape wholly inside the picture.

A shape fits if its bounding box is at most 0.9 wide and high. Area and elongation are
drawn up to five times; if nothing fits, everything is redrawn, the type too. So the
types are not equally frequent: geom has 34.0 % rectangles, 33.8 % ellipses and 32.2 %
triangles.

Names of the paper that mislead: its "equilateral" triangles are isosceles, base equal
to height (angles 53, 63, 63 degrees). Its "minimum contrast" is one step of the eight
greys, its "minimum size" an area of 0.1. Each basic shape is a geom shape, but geom
draws one with probability 0.

Differences from the original: pygame drew its pictures. Each shape goes to the same
place, rounded in the same way (`render`), but pygame has its own integer rules for the
pixels that an edge cuts, so that these may differ; here the centre of a pixel decides
(`raster`). The random numbers are numpy's, so the shapes are not those of the original.
The original files list pixels column by column; here rows come first.

References:
    Bengio, Louradour, Collobert and Weston, Curriculum learning, ICML 2009, section 5.

Shape suffixes: n pictures, k corners, 2 for x and y.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from memejax.data import arrays, raster

KINDS = ("basic", "geom")
CLASSES = ("rectangle", "ellipse", "triangle")
SIDE = 32
# 0, .14, .29, .43, .57, .71, .86, 1. In a picture round(255 * grey): 0, 36, 74, 110,
# 145, 181, 219, 255.
PALETTE = np.round(np.arange(8) / 7, 2)
PROPERTIES = tuple("angle area elongation peak background foreground x y".split())

# Draws of area and elongation before everything is redrawn.
_DRAWS = 5
_LARGEST = 0.9
# Shapes from one stream of random numbers: few, so that a small data set costs little
# and the arrays of a block stay in the processor's cache.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class GeoShapes:
    """Pictures of shapes, and their properties.

    Attributes:
        images: uint8 [n, 32, 32, 1], of two values each: round(255 * grey).
        labels: int32 [n], indices into CLASSES: 0 rectangle, 1 ellipse, 2 triangle.
        properties: float32 [n] each: "angle", radians from the x axis (rightwards)
            towards the y axis (downwards), in [0, 2 pi); "area" in [0.1, 0.4);
            "elongation" in [1/3, 3); "peak" in [0, 1), used by triangles only;
            "background" and "foreground", in PALETTE; "x" and "y", left and top of the
            bounding box, in [0, 1).
        draws: int32 [n], >= 1: number of draws of area and elongation, including those
            rejected together with their type.
    """

    images: np.ndarray
    labels: np.ndarray
    properties: dict[str, np.ndarray]
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def draws_per_sample(self) -> float:
        """Mean of `draws`: about 1.13 for basic, 1.64 for geom."""
        return float(self.draws.mean())

    def labelled(self) -> arrays.Labelled:
        """Return the pictures and labels alone."""
        return arrays.Labelled(self.images, self.labels)


def geoshapes(kind: str, *, n: int, seed: int) -> GeoShapes:
    """Draw shapes and their pictures.

    The first shapes do not depend on n; basic and geom shapes of one seed are
    independent.

    Args:
        kind: "basic" or "geom".
        n: number of shapes, >= 1.
        seed: >= 0.

    Returns:
        n shapes.

    Raises:
        ValueError: for another kind, n below 1 or a negative seed.
    """
    labels, properties, draws = sample(kind, n=n, seed=seed)
    return GeoShapes(render(labels, properties), labels, properties, draws)


def splits(
    kind: str,
    *,
    train: int = 10_000,
    valid: int = 5_000,
    test: int = 5_000,
    seed: int,
) -> dict[str, GeoShapes]:
    """Draw the three parts of a data set, each with its own seed.

    Part i is `geoshapes(kind, n=..., seed=3 * seed + i)`: no two parts and no two seeds
    share a shape. The defaults are the paper's numbers.

    Args:
        kind: "basic" or "geom".
        train: number of training shapes, >= 1.
        valid: number of validation shapes, >= 1.
        test: number of test shapes, >= 1.
        seed: >= 0.

    Returns:
        "train", "valid" and "test".

    Raises:
        ValueError: for another kind, a number below 1 or a negative seed.
    """
    _check(kind, n=min(train, valid, test), seed=seed)
    sizes = {"train": train, "valid": valid, "test": test}
    return {
        split: geoshapes(kind, n=n, seed=3 * seed + i)
        for i, (split, n) in enumerate(sizes.items())
    }


def sample(
    kind: str, *, n: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Draw shapes without their pictures.

    Args:
        kind: "basic" or "geom".
        n: number of shapes, >= 1.
        seed: >= 0.

    Returns:
        labels int32 [n], properties float32 [n] each, draws int32 [n], as in GeoShapes.

    Raises:
        ValueError: for another kind, n below 1 or a negative seed.
    """
    _check(kind, n=n, seed=seed)
    blocks = []
    for block in range(-(-n // _BLOCK)):
        key = np.random.SeedSequence(seed, spawn_key=(KINDS.index(kind), block))
        blocks.append(_block(np.random.default_rng(key), geom=kind == "geom"))
    labels, draws = (
        np.concatenate([block[i] for block in blocks])[:n].astype(np.int32)
        for i in (0, 2)
    )
    properties = {
        name: np.concatenate([block[1][name] for block in blocks])[:n].astype("f4")
        for name in PROPERTIES
    }
    return labels, properties, draws


def render(labels: np.ndarray, properties: dict[str, np.ndarray]) -> np.ndarray:
    """Draw the pictures of shapes.

    A corner at v of a shape that spans [x, x + d] goes to the pixel

        floor(32 x) + round(32 (v - x)), halves up, in each axis

    and the area between the corners is filled, edges included. An ellipse is drawn
    upright, round(64 r) + 1 pixels long in each axis, rotated by whole degrees, angles
    rounded down, and placed at the top left of its bounding rectangle: like the other
    shapes, it is one pixel longer than its lengths.

    The two roundings may put a corner one pixel outside the picture, which then lacks
    that row or column of the shape: 3 % of the rectangles and triangles.

    Args:
        labels: integers [n] in 0..2.
        properties: floats [n] each, as in GeoShapes.

    Returns:
        uint8 [n, 32, 32, 1].

    Raises:
        ValueError: for other labels, or properties of other names or lengths.
    """
    if labels.ndim != 1 or not np.isin(labels, range(len(CLASSES))).all():
        raise ValueError(
            f"labels must be [n] in 0..2, got {list(labels.shape)} of "
            f"{np.unique(labels).tolist()}"
        )
    shapes = {name: list(values.shape) for name, values in properties.items()}
    if shapes != dict.fromkeys(PROPERTIES, list(labels.shape)):
        raise ValueError(
            f"properties must be {', '.join(PROPERTIES)}, {list(labels.shape)} each; "
            f"got {shapes}"
        )
    images = np.empty((len(labels), SIDE, SIDE, 1), np.uint8)
    for start in range(0, len(labels), _BLOCK):
        at = slice(start, start + _BLOCK)
        block = {name: properties[name][at].astype(float) for name in PROPERTIES}
        ground, grey = (
            np.rint(255 * block[name]).astype(np.uint8)[:, None, None]
            for name in ("background", "foreground")
        )
        images[at, ..., 0] = np.where(_mask(labels[at], block), grey, ground)
    return images


def _check(kind: str, *, n: int, seed: int) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if n < 1:
        raise ValueError(f"{n} shapes: expected at least 1")
    if seed < 0:
        raise ValueError(f"seed {seed}: expected at least 0")


def _block(rng: np.random.Generator, *, geom: bool):
    """Labels, properties and draws of one block of shapes that fit."""
    labels, draws = np.zeros(_BLOCK, int), np.zeros(_BLOCK, int)
    properties = {name: np.zeros(_BLOCK) for name in PROPERTIES}
    pending = np.arange(_BLOCK)
    while pending.size:
        new = pending[draws[pending] % _DRAWS == 0]
        labels[new] = rng.integers(0, len(CLASSES), new.size)
        turn = np.where(labels[new] == 2, 2 * np.pi, np.pi / 2)
        # A step of 1..7 round the eight greys: each other grey is equally likely.
        ground, step = rng.integers(0, 8, new.size), rng.integers(1, 8, new.size)
        drawn = {
            "angle": turn * rng.random(new.size),
            "peak": rng.random(new.size) if geom else 0.5,
            "background": PALETTE[ground],
            "foreground": PALETTE[(ground + step) % 8],
        }
        for name, values in drawn.items():
            properties[name][new] = values
        properties["area"][pending] = rng.uniform(0.1, 0.4, pending.size)
        logs = rng.uniform(-1, 1, pending.size) if geom else np.zeros(pending.size)
        properties["elongation"][pending] = 3.0**logs
        draws[pending] += 1
        tried = {name: values[pending] for name, values in properties.items()}
        spans = np.ptp(_corners(labels[pending], tried), axis=1)
        pending = pending[(spans > _LARGEST).any(axis=1)]
    room = 1 - np.ptp(_corners(labels, properties), axis=1)
    properties["x"], properties["y"] = (room * rng.random((_BLOCK, 2))).T
    return labels, properties, draws


def _lengths(labels: np.ndarray, properties: dict[str, np.ndarray]) -> np.ndarray:
    """Width and height before rotation [n, 2], from area and elongation."""
    # A rectangle w h, an ellipse pi / 4 w h, a triangle w h / 2.
    box = properties["area"] / np.array([1.0, np.pi / 4, 0.5])[labels]
    elongation = properties["elongation"]
    return np.stack([np.sqrt(box * elongation), np.sqrt(box / elongation)], axis=1)


def _corners(labels: np.ndarray, properties: dict[str, np.ndarray]) -> np.ndarray:
    """Rotated corners [n, 4, 2], up to a shift; of an ellipse, those of the rectangle
    round it; of a triangle, the peak twice."""
    w, h = _lengths(labels, properties).T
    peak = properties["peak"] * w
    right, left = (np.where(labels == 2, peak, x) for x in (w, 0))
    x_nk = np.stack([0 * w, w, right, left], axis=1)
    y_nk = np.stack([0 * h, 0 * h, h, h], axis=1)
    cos, sin = (f(properties["angle"])[:, None] for f in (np.cos, np.sin))
    return np.stack([cos * x_nk - sin * y_nk, sin * x_nk + cos * y_nk], axis=2)


def _mask(labels: np.ndarray, properties: dict[str, np.ndarray]) -> np.ndarray:
    """Mask of the shapes, bool [n, 32, 32]."""
    mask = np.empty((len(labels), SIDE, SIDE), bool)
    origin = np.stack([properties["x"], properties["y"]], axis=1)
    first = np.floor(SIDE * origin).astype(int)
    is_ellipse = labels == 1
    lengths = np.floor(SIDE * _lengths(labels, properties) + 0.5).astype(int) + 1
    # 1e-4, because 90 degrees in radians and back may be less than 90.
    degrees = np.floor(np.rad2deg(properties["angle"]) + 1e-4).astype(int)
    mask[is_ellipse] = raster.ellipses(
        lengths[is_ellipse],
        degrees=degrees[is_ellipse],
        corners_b2=first[is_ellipse],
        side=SIDE,
    )
    corners_nk2 = _corners(labels, properties)
    corners_nk2 -= corners_nk2.min(axis=1, keepdims=True)
    pixels_nk2 = first[:, None] + np.floor(SIDE * corners_nk2 + 0.5).astype(int)
    mask[~is_ellipse] = raster.polygons(pixels_nk2[~is_ellipse], side=SIDE)
    return mask
