"""PDQ: hashes of the reference and of a naive version, and the search for near ones."""

import numpy as np
import pytest
from known_support import flipped, slow_pairs, tiles
from PIL import Image

from memejax.data import images, pdq
from memejax.errors import UserError

RNG = np.random.default_rng(0)
ZERO = np.zeros(32, np.uint8)


@pytest.mark.parametrize("most", [0, 31, 120, 256])
def test_near_hashes_are_all_found(most, monkeypatch):
    monkeypatch.setattr(pdq.Near, "_QUERIES", 3)
    monkeypatch.setattr(pdq.Near, "_KNOWN", 7)
    known = RNG.integers(0, 256, (40, 32), np.uint8)
    queries = RNG.integers(0, 256, (10, 32), np.uint8)
    # At 0, 31 and 32 bits, with all of them in one half, and at 256.
    queries[0] = known[39]
    queries[1] = flipped(known[8], *range(31))
    queries[2] = flipped(known[8], *range(128, 160))
    queries[3] = ~known[20]
    near = pdq.Near(known)
    got = np.stack(near.find(queries, max_distance=most), axis=1).tolist()
    expected = slow_pairs(queries, known, most)
    assert list(map(tuple, got)) == expected
    assert len(expected) >= {0: 1, 31: 2}.get(most, 3)


def test_near_refuses_and_nothing_is_near_to_nothing():
    near = pdq.Near(np.zeros((0, 32), np.uint8))
    assert [len(one) for one in near.find(np.zeros((2, 32), np.uint8))] == [0, 0, 0]
    for wrong in (np.zeros((2, 31), np.uint8), np.zeros((2, 32), np.int64), ZERO):
        with pytest.raises(ValueError, match=r"expected uint8 \[n, 32\]"):
            near.find(wrong)
    with pytest.raises(ValueError, match="max_distance is 257"):
        near.find(np.zeros((1, 32), np.uint8), max_distance=257)


def test_hexadecimal():
    bits = flipped(ZERO, 0, 255)
    assert pdq.to_hex(bits) == "8" + "0" * 62 + "1"
    np.testing.assert_array_equal(pdq.from_hex(pdq.to_hex(bits)), bits)
    for wrong in ("8", "g" * 64, " " * 64, "8 " * 32):
        with pytest.raises(ValueError, match="expected 64 hexadecimal digits"):
            pdq.from_hex(wrong)


def test_without_pdqhash(monkeypatch):
    monkeypatch.setattr(pdq.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'memejax\[known\]'"):
        pdq.compute_pdq(b"")
    with pytest.raises(UserError, match=r"pip install 'memejax\[known\]'"):
        pdq.compute_all([])


# What follows needs pdqhash.


# Of pdq-photo-hasher, ThreatExchange's reference in C++, at commit baefb4ed.
REFERENCE = {
    (64, 64, 0): "695b3ae3a5b64ec870b22436df88a33fda49c798b5b5936c78ca823c132f449a",
    (256, 200, 1): "2e166462f1e24c3b1fceaa95f3e1b1e40e1d3c8dd1e848dafe03d66141faca58",
    (90, 511, 2): "a9d43bc7e1f214af65b2e2e39a4de730c8d98c98562acb5b36210d9c572a6437",
    (30, 41, 3): "cccbcf1b8f0532a2df814b0fa492786cccde70ebb0e4233a7bc37840ab565b68",
    (700, 900, 4): "c062176f48c39d8a41f6976dca598275c4ace9d19e0c9d8d4d973b4741fa126f",
    (5, 300, 5): "21f314af9e0ceb500f1f69932177963cd4a814af21f314afde0ceb502f176993",
    (4, 300, 6): "0" * 64,
}


def naive_pdq(picture):
    """PDQ as its paper describes it, in float64: bits [256] and quality."""
    if max(picture.shape[:2]) > 512:
        rows, columns = (np.arange(512) * side // 512 for side in picture.shape[:2])
        picture = picture[rows][:, columns]
    luma = picture.astype(float) @ [0.299, 0.587, 0.114]
    if luma.shape != (64, 64):
        for axis in (1, 0, 1, 0):
            luma = np.apply_along_axis(box, axis, luma)
        rows, columns = (
            ((np.arange(64) + 0.5) * n / 64).astype(int) for n in luma.shape
        )
        luma = luma[rows][:, columns]
    steps = [np.diff(luma, axis=axis) * 100 / 255 for axis in (0, 1)]
    quality = min(100, sum(np.trunc(np.abs(one)).sum() for one in steps) // 90)
    waves = np.arange(1, 17)[:, None] * (2 * np.arange(64) + 1) * np.pi / 128
    spectrum = np.cos(waves) @ luma @ np.cos(waves).T
    # The lower of the two middle ones; the last coefficient is the first bit.
    bits = spectrum > np.sort(spectrum, axis=None)[127]
    return bits.ravel()[::-1], int(quality)


def box(values):
    """Mean over a window of a 128th of the length, cut at both ends."""
    window = -(-len(values) // 128)
    after = window // 2
    return np.array(
        [
            values[max(0, i - (window - after - 1)) : i + after + 1].mean()
            for i in range(len(values))
        ]
    )


@pytest.mark.parametrize("shape", REFERENCE)
def test_hashes_of_the_reference(shape, tmp_path):
    pytest.importorskip("pdqhash")
    picture = tiles(*shape)
    Image.fromarray(picture).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    bits, quality = pdq.compute_pdq(path)
    assert pdq.to_hex(bits) == REFERENCE[shape]
    assert quality == (0 if shape[0] < 5 else 100)
    again, _ = pdq.compute_pdq((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(again, bits)


@pytest.mark.parametrize(
    "shape", [(64, 64, 0), (256, 200, 1), (130, 90, 7), (30, 41, 3), (700, 300, 8)]
)
@pytest.mark.parametrize(("divisor", "plain"), [(1, False), (16, True)])
def test_hashes_of_a_naive_version(shape, divisor, plain):
    pytest.importorskip("pdqhash")
    picture = tiles(*shape) // divisor
    bits, quality = pdq.hash_pixels(picture)
    expected, expected_quality = naive_pdq(picture)
    # A coefficient beside the median may fall on its other side in float32.
    assert (np.unpackbits(bits) != expected).sum() <= 2
    assert abs(quality - expected_quality) <= 1
    assert (quality < pdq.MIN_QUALITY) is plain


def test_many_pictures_one_of_them_broken(tmp_path):
    pytest.importorskip("pdqhash")
    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(tiles(80, 80, i)).save(paths[-1])
    paths.insert(1, str(tmp_path / "none.png"))
    hashes, qualities, errors = pdq.compute_all(paths)
    assert list(errors) == [1] and errors[1].reason == "is missing"
    assert not hashes[1].any() and qualities[1] == 0
    for i in (0, 2, 3):
        bits, quality = pdq.compute_pdq(paths[i])
        np.testing.assert_array_equal(hashes[i], bits)
        assert qualities[i] == quality == 100
    with pytest.raises(images.ImageError, match="is too large"):
        pdq.compute_pdq(paths[0], max_pixels=100)
    with pytest.raises(ValueError, match=r"expected uint8 \[height, width, 3\]"):
        pdq.hash_pixels(np.zeros((80, 80), np.uint8))
