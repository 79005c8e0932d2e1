"""Perceptual hashes: 64 bits of which few change if a picture changes little.

Two pictures are near-identical if few bits differ (Hamming distance). Pictures here
are grey, `[n, h, w]` of any size and real dtype; hashes are uint64 `[n]`, whose highest
bit is the first.
"""

from collections import defaultdict

import numpy as np

BITS = 64


def difference_hash(grey_nhw: np.ndarray) -> np.ndarray:
    """Compute dHash, the signs of the horizontal gradient at 8 x 8 places.

    The picture is averaged down to 8 rows of 9; bit 8 r + c is 1 if place (r, c) is
    darker than (r, c + 1).

    Args:
        grey_nhw: real `[n, h, w]`.

    Returns:
        uint64 `[n]`.

    Raises:
        ValueError: for another shape.
    """
    small = _averaged(grey_nhw, 8, 9)
    # Averages of equal pixels differ in their last digits.
    return _packed(small[:, :, 1:] - small[:, :, :-1] > 1e-6 * _range(small))


def cosine_hash(grey_nhw: np.ndarray) -> np.ndarray:
    """Compute pHash, 8 x 8 low frequencies compared with their median.

    The picture is averaged down to 32 x 32; the 8 x 8 lowest frequencies of its
    discrete cosine transform (type II) are compared with their median, which leaves
    out the constant one.

    Args:
        grey_nhw: real `[n, h, w]`.

    Returns:
        uint64 `[n]`.

    Raises:
        ValueError: for another shape.
    """
    small = _averaged(grey_nhw, 32, 32)
    place = np.arange(32)
    basis = np.cos(np.pi / 32 * (place[None] + 0.5) * np.arange(8)[:, None])
    low = (basis @ small @ basis.T).reshape(len(small), BITS)
    median = np.median(low[:, 1:], axis=1, keepdims=True)
    return _packed(low - median > 1e-6 * np.abs(low).max(axis=1, keepdims=True))


def near_pairs(hashes: np.ndarray, *, distance: int) -> np.ndarray:
    """Find all pairs of hashes that differ in few bits, without comparing all pairs.

    The bits are divided into distance + 1 bands. Two hashes that differ in at most
    `distance` bits have at least one equal band: only such pairs are compared.

    Args:
        hashes: uint64 `[n]`, distinct.
        distance: bits that may differ, 1 to 15.

    Returns:
        int64 `[p, 2]`, indices i < j of hashes, sorted.

    Raises:
        ValueError: if a hash occurs twice or the distance is out of range.
    """
    hashes = np.asarray(hashes, np.uint64)
    if not 1 <= distance <= 15:
        raise ValueError(f"got distance {distance}, expected 1 to 15 of {BITS} bits")
    if len(np.unique(hashes)) != len(hashes):
        raise ValueError("a hash occurs twice: group equal ones first")
    # At random: neighbouring bits are equal in pictures with a plain border, which
    # would all share the band of the border.
    shuffled = np.random.default_rng(0).permutation(BITS)
    found = set()
    for band in np.array_split(shuffled, distance + 1):
        mask = np.bitwise_or.reduce(np.left_shift(np.uint64(1), band.astype(np.uint64)))
        buckets = defaultdict(list)
        for place, key in enumerate((hashes & mask).tolist()):
            buckets[key].append(place)
        for bucket in buckets.values():
            for at, place in enumerate(bucket[:-1]):
                others = np.array(bucket[at + 1 :])
                differ = np.bitwise_count(hashes[others] ^ hashes[place])
                found.update((place, int(j)) for j in others[differ <= distance])
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _averaged(grey_nhw: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Average pictures over equal areas: float64 `[n, rows, columns]`."""
    if np.ndim(grey_nhw) != 3 or 0 in np.shape(grey_nhw)[1:]:
        raise ValueError(
            f"got pictures of shape {np.shape(grey_nhw)}, expected grey ones [n, h, w]"
        )
    _, h, w = grey_nhw.shape
    return _areas(h, rows) @ grey_nhw.astype(np.float64) @ _areas(w, columns).T


def _areas(size: int, parts: int) -> np.ndarray:
    """Share of each pixel in each of the equal parts of a side, `[parts, size]`."""
    edges = np.linspace(0.0, size, parts + 1)
    pixel = np.arange(size)
    low = np.maximum(edges[:-1, None], pixel[None])
    high = np.minimum(edges[1:, None], pixel[None] + 1)
    return np.maximum(high - low, 0.0) * (parts / size)


def _range(small: np.ndarray) -> np.ndarray:
    """Largest absolute value of each picture, `[n, 1, 1]`."""
    return np.abs(small).max(axis=(1, 2), keepdims=True)


def _packed(bits: np.ndarray) -> np.ndarray:
    """Pack bits `[n, ...]` into uint64 `[n]`, the first as the highest."""
    packed = np.packbits(bits.reshape(len(bits), BITS), axis=1)
    return packed.view(">u8")[:, 0].astype(np.uint64)
