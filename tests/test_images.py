"""Every kind of picture comes out with its known colours; broken ones are named."""

import os
import pickle
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from memejax.data.images import (
    ImageError,
    LazyImages,
    check_all,
    decode,
    decode_all,
    open_size,
)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return str(path)


def palette(transparency=None):
    """Left half colour 0 (red), right half colour 1 (blue)."""
    image = Image.new("P", (16, 12))
    image.putpalette([*RED, *BLUE, 0, 255, 0])
    image.paste(1, (8, 0, 16, 12))
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def half(mode, left, right):
    image = Image.new(mode, (16, 12), left)
    image.paste(right, (8, 0, 16, 12))
    return image


def sixteen_bit(value_left, value_right):
    array = np.full((12, 16), value_left, np.uint16)
    array[:, 8:] = value_right
    return Image.fromarray(array)


GREY = (200, 200, 200)
# name: (image, extension, save options, colour on the left, colour on the right)
PICTURES = {
    "rgb png": (half("RGB", RED, BLUE), "png", {}, RED, BLUE),
    "rgb jpeg": (half("RGB", RED, BLUE), "jpg", {"quality": 95}, RED, BLUE),
    "progressive jpeg": (
        half("RGB", RED, BLUE),
        "jpg",
        {"quality": 95, "progressive": True},
        RED,
        BLUE,
    ),
    "rgb webp": (half("RGB", RED, BLUE), "webp", {"lossless": True}, RED, BLUE),
    "rgba png": (
        half("RGBA", (255, 0, 0, 255), (0, 0, 255, 0)),
        "png",
        {},
        RED,
        WHITE,
    ),
    # Half of opaque blue over white: 255 - 128 = 127 for red and green.
    "half transparent png": (
        half("RGBA", (255, 0, 0, 255), (0, 0, 255, 128)),
        "png",
        {},
        RED,
        (127, 127, 255),
    ),
    "rgba webp": (
        half("RGBA", (255, 0, 0, 255), (0, 0, 255, 0)),
        "webp",
        {"lossless": True},
        RED,
        WHITE,
    ),
    "rgb png, one colour transparent": (
        half("RGB", RED, BLUE),
        "png",
        {"transparency": BLUE},
        RED,
        WHITE,
    ),
    "grey png": (half("L", 200, 0), "png", {}, GREY, (0, 0, 0)),
    "grey jpeg": (half("L", 200, 0), "jpg", {"quality": 95}, GREY, (0, 0, 0)),
    "grey png, one level transparent": (
        half("L", 200, 0),
        "png",
        {"transparency": 0},
        GREY,
        WHITE,
    ),
    "grey and alpha png": (half("LA", (200, 255), (0, 0)), "png", {}, GREY, WHITE),
    "palette png": (palette(), "png", {}, RED, BLUE),
    "palette png, transparent bytes": (
        palette(),
        "png",
        {"transparency": bytes([255, 0, 255])},
        RED,
        WHITE,
    ),
    "palette png, one index transparent": (
        palette(),
        "png",
        {"transparency": 1},
        RED,
        WHITE,
    ),
    "palette gif, transparent": (palette(), "gif", {"transparency": 1}, RED, WHITE),
    # CMYK without black ink: (0, 255, 255, 0) is red, (255, 255, 0, 0) is blue.
    "cmyk jpeg": (
        half("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)),
        "jpg",
        {"quality": 95},
        RED,
        BLUE,
    ),
    # 200 * 257 is the 16-bit form of 200.
    "16-bit grey png": (sixteen_bit(200 * 257, 0), "png", {}, GREY, (0, 0, 0)),
    "16-bit grey tiff": (sixteen_bit(200 * 257, 0), "tif", {}, GREY, (0, 0, 0)),
    "16-bit grey pgm": (sixteen_bit(200 * 257, 0), "pgm", {}, GREY, (0, 0, 0)),
    "1-bit png": (half("1", 1, 0), "png", {}, WHITE, (0, 0, 0)),
    "bmp": (half("RGB", RED, BLUE), "bmp", {}, RED, BLUE),
    "animated gif": (
        palette(),
        "gif",
        {"save_all": True, "append_images": [half("RGB", BLUE, RED)]},
        RED,
        BLUE,
    ),
    "animated webp": (
        half("RGB", RED, BLUE),
        "webp",
        {
            "save_all": True,
            "append_images": [half("RGB", BLUE, RED)],
            "lossless": True,
        },
        RED,
        BLUE,
    ),
    "animated png": (
        half("RGB", RED, BLUE),
        "png",
        {"save_all": True, "append_images": [half("RGB", BLUE, RED)]},
        RED,
        BLUE,
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_colours_of_every_mode(tmp_path, name):
    image, extension, options, left, right = PICTURES[name]
    path = save(image, tmp_path / f"picture.{extension}", **options)
    image_hwc, size = decode(path, size=16, resize="pad")
    assert image_hwc.shape == (16, 16, 3) and image_hwc.dtype == np.uint8
    assert size.dtype == np.int32 and size.tolist() == [12, 16]
    # JPEG is off by a few levels, and the CMYK one by its own chroma too.
    tolerance = 6 if extension == "jpg" else 0
    np.testing.assert_allclose(image_hwc[5, 2].astype(int), left, atol=tolerance)
    np.testing.assert_allclose(image_hwc[5, 13].astype(int), right, atol=tolerance)
    assert open_size(path) == (16, 12)
    assert check_all([path]) == {}


# Orientation: where the stored picture's left (red) half is once shown upright.
@pytest.mark.parametrize(
    ("orientation", "red"),
    [
        (1, "left"),
        (2, "right"),
        (3, "right"),
        (4, "left"),
        (5, "top"),
        (6, "top"),
        (7, "bottom"),
        (8, "bottom"),
    ],
)
@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_exif_rotation(tmp_path, orientation, red, extension):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    path = save(image, tmp_path / f"turned.{extension}", exif=exif)
    image_hwc, size = decode(path, size=64, resize="pad")
    upright = red in ("top", "bottom")
    assert size.tolist() == ([64, 32] if upright else [32, 64])
    places = {"left": (16, 8), "right": (16, 56), "top": (8, 16), "bottom": (56, 16)}
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    np.testing.assert_allclose(image_hwc[places[red]].astype(int), RED, atol=12)
    np.testing.assert_allclose(
        image_hwc[places[opposite[red]]].astype(int), BLUE, atol=12
    )


def test_damaged_exif_leaves_the_picture_usable(tmp_path):
    path = save(
        Image.new("RGB", (8, 8), RED),
        tmp_path / "a.jpg",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12",
    )
    image_hwc, _ = decode(path, size=8)
    np.testing.assert_allclose(image_hwc[4, 4].astype(int), RED, atol=6)


def triangle_resize(image_hwc, height, width):
    """Bilinear resizing with antialiasing in float64, written out as two matrices."""

    def matrix(size_in, size_out):
        scale = size_in / size_out
        support = max(scale, 1.0)
        centres = (np.arange(size_out) + 0.5) * scale
        places = np.arange(size_in) + 0.5
        distance = np.abs(places[None, :] - centres[:, None]) / support
        weight = np.clip(1 - distance, 0, None)
        return weight / weight.sum(1, keepdims=True)

    rows, columns = image_hwc.shape[:2]
    out = np.einsum("yr,rcd->ycd", matrix(rows, height), image_hwc.astype(float))
    return np.einsum("xc,ycd->yxd", matrix(columns, width), out)


# (height, width) of the picture: taller, wider, smaller than the result, a strip.
@pytest.mark.parametrize("shape", [(50, 31), (37, 90), (9, 7), (100, 3)])
def test_resizing_agrees_with_float64_triangle_filter(tmp_path, shape):
    height, width = shape
    pixels = noise(height, width)
    path = save(Image.fromarray(pixels), tmp_path / "a.png")

    square, size = decode(path, size=16, resize="square")
    assert size.tolist() == [16, 16]
    np.testing.assert_allclose(square, triangle_resize(pixels, 16, 16), atol=1.01)

    padded, size = decode(path, size=16, resize="pad")
    long = max(shape)
    h, w = round(16 * height / long), max(1, round(16 * width / long))
    assert size.tolist() == [h, w]
    np.testing.assert_allclose(padded[:h, :w], triangle_resize(pixels, h, w), atol=1.01)
    assert not padded[h:].any() and not padded[:, w:].any()

    cropped, size = decode(path, size=16, resize="shorter")
    assert size.tolist() == [16, 16]
    short = min(shape)
    h, w = 16 * height // short, 16 * width // short
    top, left = round((h - 16) / 2), round((w - 16) / 2)
    whole = triangle_resize(pixels, h, w)
    np.testing.assert_allclose(
        cropped, whole[top : top + 16, left : left + 16], atol=1.01
    )


def test_shorter_takes_the_middle(tmp_path):
    image = Image.new("RGB", (90, 30), RED)
    image.paste(BLUE, (30, 0, 60, 30))
    path = save(image, tmp_path / "a.png")
    image_hwc, _ = decode(path, size=30, resize="shorter")
    assert (image_hwc == BLUE).all()


def test_long_strip_is_cropped_without_growing(tmp_path):
    # Resized first, this strip would be 64 x 12,800,000.
    path = save(Image.new("L", (200_000, 1), 77), tmp_path / "a.png")
    image_hwc, _ = decode(path, size=64, resize="shorter")
    assert (image_hwc == 77).all()
    image_hwc, size = decode(path, size=64, resize="pad")
    assert size.tolist() == [1, 64] and (image_hwc[0] == 77).all()


def test_draft_is_close_and_off_by_default(tmp_path):
    y, x = np.mgrid[:512, :512]
    pixels = np.stack([x / 2, y / 2, (x + y) / 4], -1).astype(np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "a.jpg", quality=90)
    plain, _ = decode(path, size=64)
    rough, _ = decode(path, size=64, draft=True)
    with Image.open(path) as image:
        by_hand = image.resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(plain, np.asarray(by_hand))
    np.testing.assert_allclose(rough.astype(int), plain.astype(int), atol=6)


def bomb(path, width=60_000, height=60_000):
    """A PNG whose header promises far more pixels than its few bytes hold."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def cut(path, image, keep=0.6, **options):
    image.save(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


BROKEN = {
    "missing": ("a.png", lambda path: None, "is missing"),
    "folder": ("a.png", lambda path: path.mkdir(), "is not a file"),
    "zero bytes": ("a.png", lambda path: path.write_bytes(b""), "empty (zero bytes)"),
    "html": (
        "a.jpg",
        lambda path: path.write_bytes(b"<html>404 Not Found</html>"),
        "is not an image",
    ),
    "cut png": (
        "a.png",
        lambda path: cut(path, Image.fromarray(noise(64, 64))),
        "is truncated",
    ),
    "cut jpeg": (
        "a.jpg",
        lambda path: cut(path, Image.fromarray(noise(64, 64))),
        "is truncated",
    ),
    "cut progressive jpeg": (
        "a.jpg",
        lambda path: cut(path, Image.fromarray(noise(64, 64)), progressive=True),
        "is truncated",
    ),
    "jpeg short of its last bytes": (
        "a.jpg",
        lambda path: cut(path, Image.fromarray(noise(64, 64)), keep=0.95),
        "is truncated",
    ),
    "cut webp": ("a.webp", lambda path: cut(path, Image.fromarray(noise(64, 64))), ""),
    "cut gif": ("a.gif", lambda path: cut(path, Image.fromarray(noise(64, 64))), ""),
    "bomb": ("a.png", bomb, "is too large"),
    "bomb below Pillow's own limit": (
        "a.png",
        lambda path: bomb(path, 9000, 9000),
        "is too large: 9000 x 9000 = 81000000 pixels, expected at most 50000000",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path, name):
    file, make, reason = BROKEN[name]
    path = tmp_path / file
    make(path)
    for find in (
        lambda: decode(str(path), size=8),
        lambda: LazyImages([str(path)], size=8)[[0]],
    ):
        with pytest.raises(ImageError) as caught:
            find()
        assert isinstance(caught.value, ValueError)
        assert str(caught.value).startswith(f"{path}: ")
        assert reason in str(caught.value)
        assert caught.value.path == str(path)
    assert list(check_all([str(path)])) == [0]
    assert reason in str(check_all([str(path)])[0])


@pytest.mark.parametrize("name", ["missing", "zero bytes", "html", "bomb"])
def test_open_size_refuses_by_the_header(tmp_path, name):
    file, make, reason = BROKEN[name]
    make(tmp_path / file)
    with pytest.raises(ImageError, match="is "):
        open_size(str(tmp_path / file))


def test_limit_is_width_times_height(tmp_path):
    path = save(Image.new("RGB", (20, 10)), tmp_path / "a.png")
    assert open_size(path, max_pixels=200) == (20, 10)
    assert decode(path, size=4, max_pixels=200)[0].shape == (4, 4, 3)
    for call in (
        lambda: open_size(path, max_pixels=199),
        lambda: decode(path, size=4, max_pixels=199),
    ):
        with pytest.raises(ImageError, match="20 x 10 = 200 pixels.* at most 199"):
            call()


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "is missing")))
    assert (str(error), error.path, error.reason) == (
        "a.png: is missing",
        "a.png",
        "is missing",
    )


def test_no_pillow_warning_leaks_and_filters_are_restored(tmp_path, monkeypatch):
    # Makes Pillow warn of every picture: 64 pixels is over its limit, not twice.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    path = save(Image.new("RGB", (8, 8), RED), tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        Image.open(path).close()
        assert [w.category for w in caught] == [Image.DecompressionBombWarning]
        barrier = threading.Barrier(4)

        def work(_):
            barrier.wait(timeout=10)
            for _ in range(20):
                decode(path, size=4)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        decode_all([path] * 5, size=4, threads=2)
        assert len(caught) == 1
        assert warnings.filters == before


def test_lazy_images_index_like_an_array(tmp_path):
    colours = [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
    paths = [
        save(Image.new("RGB", (6, 3 + k), c), tmp_path / f"{k}.png")
        for k, c in enumerate(colours)
    ]
    lazy = pickle.loads(pickle.dumps(LazyImages(paths, size=6, resize="pad")))
    assert len(lazy) == 3
    images_nhwc, sizes = lazy.load(np.array([2, 0, 2]))
    assert images_nhwc.shape == (3, 6, 6, 3) and images_nhwc.dtype == np.uint8
    assert sizes.tolist() == [[5, 6], [3, 6], [5, 6]]
    assert images_nhwc[:, 0, 0].tolist() == [[70, 80, 90], [10, 20, 30], [70, 80, 90]]
    np.testing.assert_array_equal(lazy[[2, 0, 2]], images_nhwc)
    assert lazy[np.array([], int)].shape == (0, 6, 6, 3)
    for bad in (np.array([0.0]), np.array([[0]]), np.array([True, False, True]), 1):
        with pytest.raises(ValueError, match="vector of integers"):
            lazy[bad]
    for bad in ([3], [-1]):
        with pytest.raises(IndexError, match="expected 0 to 2"):
            lazy[bad]


def test_decode_all_gathers_every_error(tmp_path):
    good = [
        save(Image.new("RGB", (4, 4), (k, 0, 0)), tmp_path / f"{k}.png")
        for k in range(5)
    ]
    (tmp_path / "empty.png").write_bytes(b"")
    paths = [good[0], str(tmp_path / "no.png"), *good[1:], str(tmp_path / "empty.png")]
    seen = []
    images_nhwc, sizes, errors = decode_all(
        paths, size=4, threads=3, progress=lambda done, n: seen.append((done, n))
    )
    assert sorted(errors) == [1, 6]
    assert errors[1].reason == "is missing" and "zero bytes" in errors[6].reason
    assert images_nhwc[:, 2, 2, 0].tolist() == [0, 0, 1, 2, 3, 4, 0]
    assert sizes.tolist() == [[4, 4], [0, 0], *[[4, 4]] * 4, [0, 0]]
    assert seen == [(k, 7) for k in range(1, 8)]


def test_decode_all_fills_a_memory_map(tmp_path):
    paths = [
        save(Image.new("RGB", (4, 4), (k, k, k)), tmp_path / f"{k}.png") for k in (7, 9)
    ]
    shape = (3, 4, 4, 3)
    into = np.memmap(tmp_path / "cache", np.uint8, "w+", shape=shape)
    into[:] = 255
    images_nhwc, _, errors = decode_all(
        [*paths, str(tmp_path / "no.png")], size=4, into=into
    )
    assert images_nhwc is into
    # A place whose picture fails holds nothing of what was there before.
    assert into[:, 0, 0, 0].tolist() == [7, 9, 0] and list(errors) == [2]
    for bad in (np.zeros((3, 4, 4, 3)), np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            decode_all([*paths, paths[0]], size=4, into=bad)


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="'fit', expected one of square"):
        decode("a.png", size=8, resize="fit")
    with pytest.raises(ValueError, match="size is 0"):
        LazyImages([], size=0)


def test_import_starts_no_backend():
    names = ("hateful_memes", "images", "text")
    code = (
        f"import sys; {'; '.join(f'import memejax.data.{n}' for n in names)}; "
        "heavy = {'jax', 'transformers', 'torch', 'tensorflow'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("height", "width"), [(40, 61), (61, 40), (33, 33), (200, 37), (23, 24), (9, 250)]
)
def test_bicubic_and_crop_are_those_of_clip(tmp_path, height, width):
    """Resized first and cropped then, as its processor does, to one grey level."""
    pixels = noise(height, width)
    path = save(Image.fromarray(pixels), tmp_path / "picture.png")
    size = 32
    short, long = min(height, width), max(height, width)
    other = int(size * long / short)
    side = (size, other) if width == short else (other, size)
    whole = np.asarray(
        Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC), int
    )
    top, left = (whole.shape[0] - size) // 2, (whole.shape[1] - size) // 2
    expected = whole[top : top + size, left : left + size]
    got, at = decode(path, size=size, resize="shorter_bicubic")
    assert np.abs(got.astype(int) - expected).max() <= 1 and at.tolist() == [32, 32]
    square, _ = decode(path, size=size, resize="square_bicubic")
    np.testing.assert_array_equal(
        square, Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
    )
    bilinear, _ = decode(path, size=size)
    assert (bilinear != square).any()
