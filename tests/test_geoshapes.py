"""GeoShapes and the filling of pixels: hand-drawn cases, and the facts' statistics."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from memejax.data import arrays, geoshapes, raster

N = 20_000
GREYS = [0, 36, 74, 110, 145, 181, 219, 255]
quick = hypothesis.settings(deadline=None, derandomize=True, max_examples=30)
whole = st.integers(0, 31)


def drawn(mask):
    return ["".join(".#"[pixel] for pixel in row) for row in mask.astype(int)]


def polygon(*corners, side=8):
    return raster.polygons(np.array([corners]), side=side)[0]


def ellipse(w, h, *, degrees=0, corner=(0, 0), side=32):
    return raster.ellipses(
        np.array([[w, h]]),
        degrees=np.array([degrees]),
        corners_b2=np.array([corner]),
        side=side,
    )[0]


def slope(mask):
    """Angle of the long axis in degrees, from x (right) towards y (down)."""
    y, x = np.nonzero(mask)
    xx, xy, yy = np.var(x), np.mean((x - x.mean()) * (y - y.mean())), np.var(y)
    return np.rad2deg(np.arctan2(2 * xy, xx - yy)) / 2


def test_polygons_by_hand():
    assert drawn(polygon((2, 1), (6, 1), (6, 3), (2, 3))) == [
        "........",
        "..#####.",
        "..#####.",
        "..#####.",
        "........",
        "........",
        "........",
        "........",
    ]
    # The long side goes through the middle of (1, 1), (3, 2), (5, 3), (7, 4).
    assert drawn(polygon((1, 1), (7, 4), (3, 7))) == [
        "........",
        ".#......",
        "..##....",
        "..####..",
        "..######",
        "...###..",
        "...##...",
        "...#....",
    ]
    diamond = [
        "........",
        "...#....",
        "..###...",
        ".#####..",
        "..###...",
        "...#....",
        "........",
        "........",
    ]
    assert drawn(polygon((3, 1), (5, 3), (3, 5), (1, 3))) == diamond


def test_polygon_outside_is_cut():
    assert drawn(polygon((-3, 2), (1, 2), (1, 9), (-3, 9), side=4)) == [
        "....",
        "....",
        "##..",
        "##..",
    ]


def boundary(corners):
    """Points of the grid on the edges of a polygon."""
    ends = zip(corners, corners[1:] + corners[:1], strict=True)
    return sum(math.gcd(c - a, d - b) for (a, b), (c, d) in ends)


@quick
@hypothesis.given(st.tuples(*[st.tuples(whole, whole)] * 3))
def test_triangles_fill_what_pick_counts(corners):
    (a, b), (c, d), (e, f) = corners = list(corners)
    double = abs((c - a) * (f - b) - (e - a) * (d - b))
    hypothesis.assume(double)
    mask = polygon(*corners, side=32)
    assert 2 * mask.sum() == double + boundary(corners) + 2
    # Where one starts and which way round makes no difference; nor does a repeat.
    np.testing.assert_array_equal(mask, polygon(*corners[::-1], side=32))
    np.testing.assert_array_equal(mask, polygon(*corners[1:], *corners[:2], side=32))
    assert all(mask[y, x] for x, y in corners)


@quick
@hypothesis.given(*[st.integers(-15, 15)] * 4)
def test_parallelograms_fill_what_pick_counts(a, b, c, d):
    hypothesis.assume(a * d - b * c)
    corners = [(0, 0), (a, b), (a + c, b + d), (c, d)]
    left, top = (min(x[i] for x in corners) for i in (0, 1))
    corners = [(x - left, y - top) for x, y in corners]
    filled = polygon(*corners, side=61).sum()
    assert 2 * filled == 2 * abs(a * d - b * c) + boundary(corners) + 2


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        (np.zeros((2, 4, 2)), r"integers .*got float64 \[2, 4, 2\]"),
        (np.zeros((2, 2, 2), int), r"got int64 \[2, 2, 2\]"),
        (np.zeros((4, 2), int), r"got int64 \[4, 2\]"),
        (np.array([[[0, 0], [2, 2], [5, 5]]]), "picture 0: expected a convex"),
        (np.array([[[0, 0], [4, 4], [4, 0], [0, 4]]]), "expected a convex"),
        (np.array([[[0, 0], [9, 0], [3, 3], [0, 9]]]), "expected a convex"),
    ],
)
def test_polygons_refused(corners, message):
    with pytest.raises(ValueError, match=message):
        raster.polygons(corners, side=8)


def test_ellipses_by_hand():
    # Rows 1 from the middle of 5 x 3: |x| <= 2.5 sqrt(1 - (1 / 1.5)^2) = 1.86.
    flat = [".......", "..###..", ".#####.", "..###..", "......."]
    assert drawn(ellipse(5, 3, corner=(1, 1), side=7))[:5] == flat
    # Rows 1.5 from the middle of 6 x 4: |x| <= 3 sqrt(1 - .75^2) = 1.98.
    even = [".####.", "######", "######", ".####.", "......", "......"]
    assert drawn(ellipse(6, 4, side=6)) == even
    assert drawn(ellipse(5, 3, degrees=180, corner=(1, 1), side=7))[:5] == flat
    on_end = ellipse(5, 3, degrees=90, corner=(1, 1), side=7)
    assert drawn(on_end.T)[:5] == flat


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 110, 160])
def test_ellipse_turns_from_right_to_down(degrees):
    mask = ellipse(23, 9, degrees=degrees, corner=(4, 3))
    error = (slope(mask) - degrees + 90) % 180 - 90
    assert abs(error) < 2
    assert abs(mask.sum() / (np.pi / 4 * 23 * 9) - 1) < 0.05
    # Nothing but turned back about the middle of what was turned.
    c, s = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
    wide, high = math.floor(23 * c + 9 * s + 1e-6), math.floor(23 * s + 9 * c + 1e-6)
    y, x = np.nonzero(mask)
    assert x.min() >= 4 and x.max() < 4 + wide
    assert y.min() >= 3 and y.max() < 3 + high
    np.testing.assert_allclose(x.mean(), 4 + (wide - 1) / 2, atol=0.5)
    np.testing.assert_allclose(y.mean(), 3 + (high - 1) / 2, atol=0.5)


def test_ellipses_refused():
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        ellipse(0, 3)
    with pytest.raises(ValueError, match=r"degrees must be integers \[1\], got float"):
        ellipse(5, 3, degrees=0.5)
    with pytest.raises(ValueError, match=r"corners must be integers \[1, 2\], got int"):
        ellipse(5, 3, corner=(1, 2, 3))


def one(label, *, w, h, x, y, angle=0.0, peak=0.5):
    """The picture of one shape, lengths in pixels: white on black."""
    area = w * h * [1, np.pi / 4, 0.5][label] / 32**2
    properties = {
        "angle": angle,
        "area": area,
        "elongation": w / h,
        "peak": peak,
        "background": 0.0,
        "foreground": 1.0,
        "x": x / 32,
        "y": y / 32,
    }
    images = geoshapes.render(
        np.array([label]), {k: np.array([v]) for k, v in properties.items()}
    )
    return images[0, :, :, 0] == 255


def test_rendered_by_hand():
    rectangle = one(0, w=4, h=2, x=3.5, y=1.2)
    assert drawn(rectangle[:5, :10]) == [
        "..........",
        "...#####..",
        "...#####..",
        "...#####..",
        "..........",
    ]
    assert rectangle.sum() == 15
    # The peak is a quarter along the base, and points down.
    triangle = one(2, w=8, h=4, x=1, y=0, peak=0.25)
    assert drawn(triangle[:6, :11]) == [
        ".#########.",
        "..######...",
        "..#####....",
        "...##......",
        "...#.......",
        "...........",
    ]
    # A quarter turn takes what was right to the bottom, and what was below to the left.
    turned = one(2, w=8, h=4, x=1, y=0, peak=0.25, angle=np.pi / 2)
    np.testing.assert_array_equal(turned[:9, 1:6], triangle[:5, 1:10].T[:, ::-1])
    assert drawn(one(1, w=4, h=2, x=1, y=1)[:5, :7]) == [
        ".......",
        "..###..",
        ".#####.",
        "..###..",
        ".......",
    ]


@pytest.fixture(scope="module", params=["basic", "geom"])
def shapes(request):
    return request.param, geoshapes.geoshapes(request.param, n=N, seed=0)


def foreground(data):
    grey = np.array(GREYS)[np.rint(data.properties["foreground"] * 7).astype(int)]
    return data.images[..., 0] == grey[:, None, None]


def lengths(data):
    """Width and height, in sides of the picture, of what area and elongation say."""
    box = data.properties["area"] * np.array([1, 4 / np.pi, 2])[data.labels]
    elongation = data.properties["elongation"]
    return np.sqrt(box * elongation), np.sqrt(box / elongation)


def spans(data):
    """Width and height of the turned shape, or of the rectangle round an ellipse."""
    w, h = lengths(data)
    peak = data.properties["peak"]
    third = np.where(data.labels == 2, peak * w, w) + 1j * h
    fourth = np.where(data.labels == 2, peak * w, 0) + 1j * h
    corners = np.stack([0 * w, w, third, fourth])
    corners = corners * np.exp(1j * data.properties["angle"].astype(float))
    return np.ptp(corners.real, axis=0), np.ptp(corners.imag, axis=0)


def within(share, expected, *, n=N, known=0.0):
    """Four standard errors of a share, and what its source rounds off."""
    error = 4 * math.sqrt(expected * (1 - expected) / n) + known
    assert abs(share - expected) < error, (share, expected, error)


def test_types_and_values(shapes):
    kind, data = shapes
    assert len(data) == N
    assert data.images.shape == (N, 32, 32, 1) and data.images.dtype == np.uint8
    assert data.labels.dtype == np.int32 and set(data.labels) == {0, 1, 2}
    assert data.draws.dtype == np.int32 and data.draws.min() == 1
    assert set(data.properties) == set(geoshapes.PROPERTIES)
    assert all(v.dtype == np.float32 for v in data.properties.values())
    assert all(v.shape == (N,) for v in data.properties.values())
    labelled = data.labelled()
    assert isinstance(labelled, arrays.Labelled) and len(labelled) == N
    assert labelled.images is data.images and labelled.labels is data.labels
    assert np.unique(data.images).tolist() == GREYS
    p = data.properties
    assert p["area"].min() > 0.0999 and p["area"].max() < 0.4001
    limit = np.where(data.labels == 2, 2 * np.pi, np.pi / 2)
    assert (p["angle"] >= 0).all() and (p["angle"] <= limit + 1e-6).all()
    if kind == "basic":
        assert (p["elongation"] == 1).all() and (p["peak"] == 0.5).all()
    else:
        assert 0.333 < p["elongation"].min() < 0.36
        assert 2.8 < p["elongation"].max() < 3.001


def test_two_greys_a_picture(shapes):
    _, data = shapes
    ground, grey = data.properties["background"], data.properties["foreground"]
    assert (ground != grey).all()
    levels = np.array([0, 0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1], np.float32)
    assert set(levels) == set(ground) == set(grey)
    pair = np.searchsorted(levels, ground) * 8 + np.searchsorted(levels, grey)
    # 56 pairs, alike likely.
    shares = np.bincount(pair, minlength=64).reshape(8, 8) / N
    for share in shares[~np.eye(8, dtype=bool)]:
        within(share, 1 / 56)
    flat = data.images.reshape(N, -1)
    dark, light = flat.min(axis=1), flat.max(axis=1)
    assert ((flat == dark[:, None]) | (flat == light[:, None])).all()
    by_hand = np.array(GREYS)[np.searchsorted(levels, np.stack([ground, grey]))]
    np.testing.assert_array_equal(np.sort(by_hand, axis=0), [dark, light])
    # Of two different places out of eight, the mean distance is 3 and the variance 3.
    assert abs(abs(grey - ground).mean() - 0.43) < 4 * math.sqrt(3 / N) / 7 + 0.005


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("basic", (0.334, 0.332, 0.334)), ("geom", (0.342, 0.336, 0.322))],
)
def test_shares_of_the_types(kind, expected):
    # Enough to tell five draws before a fresh start from one (geom: .43, .33, .24) and
    # from no fresh start (a third each). The facts come from as many, rounded.
    n = 200_000
    labels, _, _ = geoshapes.sample(kind, n=n, seed=0)
    for share, fact in zip(np.bincount(labels) / n, expected, strict=True):
        within(share, fact, n=n / 2, known=0.0005)


def test_draws_areas_and_elongations(shapes):
    kind, data = shapes
    draws, area, low, high = {
        "basic": (1.13, 0.235, 0.113, 0.371),
        "geom": (1.63, 0.207, 0.109, 0.346),
    }[kind]
    # Were all shapes alike likely to fit, p = 1 / draws, the spread were sqrt(1-p)/p.
    spread = math.sqrt(draws * (draws - 1))
    assert abs(data.draws_per_sample - draws) < 4 * spread / math.sqrt(N) + 0.005
    assert data.draws_per_sample == data.draws.sum() / N
    areas = data.properties["area"]
    # The areas lean to the small, so they spread no more than uniform in [0.1, 0.4).
    assert abs(areas.mean() - area) < 4 * 0.3 / math.sqrt(12 * N) + 0.0005
    # A quantile's third decimal is worth .0005 times the density there, 4 at most.
    within((areas < low).mean(), 0.05, known=0.002)
    within((areas > high).mean(), 0.05, known=0.002)
    if kind == "geom":
        ratio = np.exp(abs(np.log(data.properties["elongation"])))
        within((ratio < 1.54).mean(), 0.5, known=0.005)
        # Wide or high is the same to a rectangle or an ellipse, up to a quarter turn.
        wide = data.properties["elongation"][data.labels < 2] > 1
        within(wide.mean(), 0.5, n=len(wide))


def test_inside_the_picture(shapes):
    _, data = shapes
    ends = [
        np.floor(32 * data.properties[name]) + np.floor(32 * span + 0.5)
        for span, name in zip(spans(data), ("x", "y"), strict=True)
    ]
    # Rounding may put a corner into pixel 32, outside.
    assert np.max(ends) <= 32
    cut = (np.max(ends, axis=0) == 32) & (data.labels != 1)
    assert cut.mean() < 0.03
    # Ellipses may fill less than the rectangle round them.
    corners = (data.labels != 1) & ~cut
    for span, name, axis in zip(spans(data), ("x", "y"), (1, 2), strict=True):
        start = data.properties[name]
        assert span.max() < 0.9 + 1e-6 and span.max() > 0.89
        assert start.min() >= 0 and (start + span).max() <= 1 + 1e-6
        # The place is uniform in what is left: mean 1/2, variance 1/12.
        assert abs((start / (1 - span)).mean() - 0.5) < 4 / math.sqrt(12 * N)
        filled = foreground(data).any(axis=axis)
        first = filled.argmax(axis=1)
        last = 31 - filled[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal(
            first[corners], np.floor(32 * start[corners].astype(float))
        )
        assert (first >= np.floor(32 * start)).all()
        assert (last <= np.floor(32 * start) + np.floor(32 * span + 0.5) + 2).all()
        assert (abs(last - first - 32 * span)[corners] <= 1.5).all()
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert foreground(data)[:, border].mean(axis=1).max() < 0.5


def test_pixels_are_the_area(shapes):
    _, data = shapes
    filled = foreground(data).sum(axis=(1, 2))
    area = 1024 * data.properties["area"]
    w, h = (32 * length for length in lengths(data))
    peak = data.properties["peak"] * w
    sides = [
        2 * (w + h),
        np.pi / 2 * (w + h),  # at least as long as the ellipse is round
        w + np.hypot(peak, h) + np.hypot(w - peak, h),
    ]
    around = np.choose(data.labels, sides)
    # Corners move by half a pixel each way: less than 3/4 of a pixel along the edges.
    # The edges' own pixels add half as many as there are points of the grid on them.
    assert (filled > area - 0.75 * around - 4).all()
    assert (filled < area + 1.25 * around + 4).all()
    # On average rounding takes as much as it gives, and few edges run along the grid.
    corners = data.labels != 1
    assert 1 < (filled / area)[corners].mean() < 1.05
    longer = np.pi / 4 * (w + 1) * (h + 1)
    assert abs((filled / longer)[~corners].mean() - 1) < 0.02


def test_pictures_are_turned_by_the_angle():
    data = geoshapes.geoshapes("geom", n=1500, seed=5)
    elongation = data.properties["elongation"]
    # A long axis to speak of, and no triangles: their axis is not their base's.
    clear = (data.labels < 2) & (abs(np.log(elongation)) > np.log(1.7))
    errors = []
    for i in np.flatnonzero(clear):
        upright = 90 * (elongation[i] < 1)
        angle = np.rad2deg(data.properties["angle"][i]) + upright
        errors.append((slope(foreground(data)[i]) - angle + 90) % 180 - 90)
    assert len(errors) > 400
    assert np.abs(errors).max() < 7
    # Ellipses' angles are cut to whole degrees: half a degree less on average.
    assert -0.5 < np.mean(errors) < 0.1


def test_each_shape_has_its_class():
    """Area by the root of the moments' determinant, which turning and stretching keep.

    12 for a rectangle (w h / 12 is the root), 4 pi for an ellipse, 6 sqrt 3 for a
    triangle.
    """
    data = geoshapes.geoshapes("geom", n=900, seed=7)
    ratios = np.zeros(900)
    for i, mask in enumerate(foreground(data)):
        # A pixel is a square, not a point: 1/12 in each direction.
        moments = np.cov(np.nonzero(mask), bias=True) + np.eye(2) / 12
        ratios[i] = mask.sum() / np.sqrt(np.linalg.det(moments))
    means = [ratios[data.labels == label].mean() for label in range(3)]
    # Corners of whole pixels lower them a little; .28 is half of what tells the first
    # from the second.
    np.testing.assert_allclose(means, [12, 4 * np.pi, 6 * np.sqrt(3)], atol=0.28)


def test_deterministic_and_the_first_are_the_same():
    many = geoshapes.geoshapes("geom", n=700, seed=3)
    few = geoshapes.geoshapes("geom", n=300, seed=3)
    np.testing.assert_array_equal(many.images[:300], few.images)
    np.testing.assert_array_equal(many.labels[:300], few.labels)
    np.testing.assert_array_equal(many.draws[:300], few.draws)
    for name in geoshapes.PROPERTIES:
        np.testing.assert_array_equal(many.properties[name][:300], few.properties[name])
    others = [("geom", 4), ("basic", 3), ("geom", 3 + 2**32)]
    for kind, seed in others:
        other = geoshapes.geoshapes(kind, n=300, seed=seed)
        assert not np.isin(other.properties["angle"], few.properties["angle"]).any()
    # Blocks do not repeat one another.
    assert len(np.unique(many.properties["area"])) > 690


def test_sample_and_render_make_geoshapes():
    labels, properties, draws = geoshapes.sample("basic", n=20, seed=1)
    data = geoshapes.geoshapes("basic", n=20, seed=1)
    np.testing.assert_array_equal(labels, data.labels)
    np.testing.assert_array_equal(draws, data.draws)
    np.testing.assert_array_equal(geoshapes.render(labels, properties), data.images)


def test_splits():
    parts = geoshapes.splits("geom", train=40, valid=20, test=30, seed=2)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 40,
        "valid": 20,
        "test": 30,
    }
    valid = geoshapes.geoshapes("geom", n=20, seed=7)
    np.testing.assert_array_equal(parts["valid"].images, valid.images)
    following = geoshapes.splits("geom", train=40, valid=20, test=30, seed=3)
    areas = [
        part.properties["area"]
        for split in (parts, following)
        for part in split.values()
    ]
    assert len(np.unique(np.concatenate(areas))) == 180


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kind": "easy", "n": 1, "seed": 0},
            "kind 'easy': expected one of basic, geo",
        ),
        ({"kind": "geom", "n": 0, "seed": 0}, "0 shapes: expected at least 1"),
        ({"kind": "geom", "n": 1, "seed": -1}, "seed -1: expected at least 0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        geoshapes.geoshapes(**arguments)
    with pytest.raises(ValueError, match=message):
        geoshapes.sample(**arguments)
    arguments["test"] = arguments.pop("n")
    with pytest.raises(ValueError, match=message):
        geoshapes.splits(**arguments)


def test_render_refused():
    labels, properties, _ = geoshapes.sample("geom", n=3, seed=0)
    with pytest.raises(ValueError, match=r"labels must be \[n\] in 0..2, got \[3\]"):
        geoshapes.render(labels + 3, properties)
    with pytest.raises(ValueError, match=r"properties must be .*\[2\] each"):
        geoshapes.render(labels[:2], properties)
    with pytest.raises(ValueError, match="properties must be angle, area"):
        geoshapes.render(labels, {"angle": properties["angle"]})
