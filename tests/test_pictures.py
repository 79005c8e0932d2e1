import io

import numpy as np
import pytest
from PIL import Image

from memejax.explain import pictures

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 20, 30, 3), np.uint8)
HEADS = RNG.uniform(size=(3, 2, 4, 6))
CAM = RNG.uniform(size=(3, 2, 3))


def decode(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def cell(pixels, *, row, column, side=0.1, height=pictures.CELL * 20 / 30):
    """The pixels of one cell of a grid, within its border."""
    top = pictures.DPI * (pictures.HEAD + height * row)
    left = pictures.DPI * (side + pictures.CELL * column)
    bottom, right = top + pictures.DPI * height, left + pictures.DPI * pictures.CELL
    return pixels[int(top) + 6 : int(bottom) - 6, int(left) + 6 : int(right) - 6]


@pytest.mark.parametrize(("heads", "columns"), [(False, 3), (True, 4)])
def test_a_grid_has_a_column_a_map_and_a_row_a_picture(heads, columns):
    maps = {"attention": HEADS, "Grad-CAM": CAM}
    pixels = decode(pictures.overlay_grid(IMAGES, maps, heads=heads))
    width = 0.1 + columns * pictures.CELL
    height = pictures.HEAD + 3 * pictures.CELL * 20 / 30 + pictures.FOOT
    expected = np.array([height, width]) * pictures.DPI
    assert np.abs(np.array(pixels.shape[:2]) - expected).max() <= 1


def test_rows_have_names_at_the_left():
    plain = decode(pictures.overlay_grid(IMAGES, {}))
    named = decode(pictures.overlay_grid(IMAGES, {}, rows=["01234, $5", "b", "_c"]))
    more = pictures.DPI * (pictures.SIDE - 0.1)
    assert abs(named.shape[1] - plain.shape[1] - more) <= 1
    assert (named[:, : int(more) - 5] < 128).any()
    other = decode(pictures.overlay_grid(IMAGES, {}, rows=["zzzzz", "b", "_c"]))
    assert (other != named).any()


def test_pictures_and_maps_are_where_they_belong():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, :, 0] = 255
    images[1, :, :, 2] = 255
    peak = np.zeros((2, 2, 2))
    peak[0, 0, 1] = 1.0
    pixels = decode(pictures.overlay_grid(images, {"map": peak}, opacity=1.0))
    square = dict(height=pictures.CELL)
    red = cell(pixels, row=0, column=0, **square)
    assert (red == [255, 0, 0]).all()
    assert (cell(pixels, row=1, column=0, **square) == [0, 0, 255]).all()
    overlay = cell(pixels, row=0, column=1, **square)
    h, w, _ = overlay.shape
    bright = overlay.astype(int).sum(-1)
    # The largest value is light, the others dark: top right.
    assert bright[: h // 3, -w // 3 :].min() > 600
    assert bright[: h // 3, : w // 3].max() < 60
    assert bright[-h // 3 :].max() < 60
    # Equal values are all the least.
    assert cell(pixels, row=1, column=1, **square).astype(int).sum(-1).max() < 60


def test_a_grid_shows_its_maps():
    def grid(maps, **options):
        return decode(pictures.overlay_grid(IMAGES, maps, **options))

    one = grid({"a": CAM})
    assert (grid({"a": CAM}) == one).all()
    assert (grid({"a": CAM[::-1]}) != one).any()
    assert (grid({"b": CAM}) != one).any()
    assert (grid({"a": CAM}, opacity=0.2) != one).any()
    # Scales of their own: twice a map is the same picture.
    assert (grid({"a": 2 * CAM + 1}) == one).all()
    heads, mean = HEADS, HEADS.mean(1, keepdims=True)
    same = cell(grid({"a": heads}), row=1, column=1)
    assert (same == cell(grid({"a": mean}), row=1, column=1)).all()
    second = cell(grid({"a": heads}, heads=True), row=1, column=2)
    assert (second == cell(grid({"a": heads[:, 1]}), row=1, column=1)).all()


def colours_in(pixels):
    """Which of the palette's colours cover at least 8 pixels."""
    found = set()
    for colour in (*pictures.COLOURS, pictures.UNKNOWN):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        if (np.abs(pixels.astype(int) - rgb).max(-1) <= 2).sum() >= 8:
            found.add(colour)
    return found


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_scatter_shows_every_class(classes):
    labels = np.arange(60) % classes
    points = RNG.normal(size=(60, 2))
    pixels = decode(pictures.scatter(points, labels, title="a map"))
    width, height = pictures.SCATTER
    assert pixels.shape == (height * pictures.DPI, width * pictures.DPI, 3)
    # Black is in the letters too.
    shown = colours_in(pixels) - {"#000000", pictures.UNKNOWN}
    assert shown == set(pictures.COLOURS[:classes]) - {"#000000"}


def test_a_scatter_has_a_title_and_names():
    points, labels = RNG.normal(size=(400, 2)), np.arange(400) % 3 - 1

    def draw(points=points, title="map", names=("benign", "hateful")):
        return decode(pictures.scatter(points, labels, title=title, class_names=names))

    one = draw()
    assert (draw() == one).all()
    assert colours_in(one) >= {*pictures.COLOURS[:2], pictures.UNKNOWN}
    for other in (draw(points**3), draw(title="$x_1"), draw(names=("_a", "b"))):
        assert (other.shape != one.shape) or (other != one).any()


def test_the_palette_tells_classes_apart():
    assert len(pictures.COLOURS) == len(set(pictures.COLOURS)) == 10
    assert len(set(pictures.MARKERS)) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.overlay_grid(IMAGES / 255, {}), "got images float64"),
        (
            lambda: pictures.overlay_grid(IMAGES, {"a": CAM[:2]}),
            r"'a' of shape \[2",
        ),
        (lambda: pictures.overlay_grid(IMAGES, {"a": CAM * np.nan}), "with NaN"),
        (lambda: pictures.overlay_grid(IMAGES, {}, rows=["a"]), "1 names of rows"),
        (lambda: pictures.overlay_grid(IMAGES, {}, opacity=0.0), "opacity 0.0"),
        (lambda: pictures.scatter([[0, 1]], [0, 1], title=""), r"labels \[2\]"),
        (lambda: pictures.scatter([[0, 1]], [10], title=""), "from 0 to 9"),
        (lambda: pictures.scatter([[0, 1]], [0.5], title=""), "expected ints"),
        (lambda: pictures.scatter([[0, np.inf]], [0], title=""), "non-finite"),
        (
            lambda: pictures.scatter([[0, 1]], [1], title="", class_names=["a"]),
            "from 0 to 0",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
