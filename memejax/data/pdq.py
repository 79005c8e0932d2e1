"""PDQ, the perceptual hash of pictures that ThreatExchange publishes (extra `known`).

A hash has 256 bits, kept as uint8 [32], the first bit the highest of the first byte:
its bytes in hexadecimal are the text that ThreatExchange writes. Copies of one picture
differ in few bits; two pictures that have nothing in common in about 128.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from memejax.data import images
from memejax.errors import UserError

BITS, BYTES = 256, 32
# ThreatExchange's: a match is at most this far, and a hash of less than this quality
# (in [0, 100], by the picture's gradients) is of too plain a picture to tell it apart.
MAX_DISTANCE, MIN_QUALITY = 31, 50
# The reference takes 512 x 512 pixels of a picture with a longer side.
_LONGEST = 512


def require() -> None:
    """Check that hashes can be computed here.

    Raises:
        UserError: if pdqhash is not installed.
    """
    if importlib.util.find_spec("pdqhash") is None:
        raise UserError(
            "hashing pictures takes pdqhash, which is compiled when it is installed: "
            "pip install 'memejax[known]'"
        )


def compute_pdq(
    picture: images.Picture, *, max_pixels: int = images.MAX_PIXELS
) -> tuple[np.ndarray, int]:
    """Compute the hash of a picture, bit for bit as the reference in C++.

    Decoders of JPEG differ by a few bits, and so does python-threatexchange for a
    picture above 512 pixels, of which it takes all pixels (2 to 10 bits).

    Args:
        picture: path of a picture, or the content of its file.
        max_pixels: the largest width x height allowed.

    Returns:
        (uint8 [32], quality in [0, 100]); all zeros and 0 below 5 pixels of a side.

    Raises:
        images.ImageError: if it cannot be read, or is too large.
        UserError: if pdqhash is not installed.
    """
    require()
    return hash_pixels(images.load(picture, max_pixels=max_pixels))


def hash_pixels(image_hwc: np.ndarray) -> tuple[np.ndarray, int]:
    """Compute the hash of a decoded picture, uint8 [height, width, 3]; `compute_pdq`.

    Raises:
        ValueError: if it is of another shape or dtype.
    """
    import pdqhash

    if image_hwc.ndim != 3 or image_hwc.shape[2] != 3 or image_hwc.dtype != np.uint8:
        raise ValueError(
            f"a picture is {image_hwc.dtype} {image_hwc.shape}, expected uint8 "
            "[height, width, 3]"
        )
    height, width = image_hwc.shape[:2]
    if max(height, width) > _LONGEST:
        # Both sides, as the reference does, also the shorter one.
        steps = np.arange(_LONGEST)
        rows, columns = steps * height // _LONGEST, steps * width // _LONGEST
        image_hwc = image_hwc[rows[:, None], columns]
    bits, quality = pdqhash.compute(np.ascontiguousarray(image_hwc))
    return np.packbits(np.asarray(bits, np.uint8)), int(quality)


def compute_all(
    pictures: Sequence[images.Picture],
    *,
    max_pixels: int = images.MAX_PIXELS,
    threads: int | None = None,
    progress: images.Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[int, images.ImageError]]:
    """Compute the hashes of pictures in threads; one that fails stops no other.

    Args:
        pictures: n paths, or contents of files.
        max_pixels: as in `compute_pdq`.
        threads: one per core if None.
        progress: called with (done, n) after each picture.

    Returns:
        (hashes uint8 [n, 32], qualities int32 [n], errors by index). A picture with an
        error has zeros and quality 0.

    Raises:
        UserError: if pdqhash is not installed.
    """
    require()
    hashes = np.zeros((len(pictures), BYTES), np.uint8)
    qualities = np.zeros(len(pictures), np.int32)

    def compute_one(place: int) -> None:
        hashes[place], qualities[place] = compute_pdq(
            pictures[place], max_pixels=max_pixels
        )

    errors = images.for_each(
        compute_one, len(pictures), threads=threads, progress=progress
    )
    return hashes, qualities, errors


def to_hex(bits: np.ndarray) -> str:
    """Return a hash, uint8 [32], as 64 hexadecimal digits."""
    return bits.tobytes().hex()


def from_hex(text: str) -> np.ndarray:
    """Return the hash of 64 hexadecimal digits, uint8 [32].

    Raises:
        ValueError: if they are not 64 hexadecimal digits.
    """
    # bytes.fromhex would take spaces too.
    if len(text) != 2 * BYTES or not set(text) <= set("0123456789abcdefABCDEF"):
        raise ValueError(
            f"a hash is {text!r:.80}, expected {2 * BYTES} hexadecimal digits"
        )
    return np.frombuffer(bytes.fromhex(text), np.uint8).copy()


class Near:
    """Hashes among which the near ones of others are found, exactly."""

    # Hashes compared at once, which stay in a core's cache.
    _QUERIES, _KNOWN = 16, 32_768

    def __init__(self, hashes: np.ndarray):
        """Arrange the hashes, uint8 [m, 32]."""
        # By words of 64 bits: of each, all hashes' lie side by side.
        self._words = np.ascontiguousarray(_words(hashes).T)

    def find(
        self, hashes: np.ndarray, *, max_distance: int = MAX_DISTANCE
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find all pairs whose Hamming distance is at most `max_distance`.

        Args:
            hashes: uint8 [n, 32].
            max_distance: in bits, from 0 to 256.

        Returns:
            (places among `hashes`, places among the known ones, distances), int64 [k]
            each, in the order of the places.

        Raises:
            ValueError: if `max_distance` is out of range.
        """
        if not 0 <= max_distance <= BITS:
            raise ValueError(
                f"max_distance is {max_distance}, expected from 0 to {BITS} bits"
            )
        queries = _words(hashes)
        found = [np.zeros((3, 0), np.int64)]
        for first in range(0, len(queries), self._QUERIES):
            part = queries[first : first + self._QUERIES]
            for begin in range(0, self._words.shape[1], self._KNOWN):
                pairs = _near(
                    part, self._words[:, begin : begin + self._KNOWN], max_distance
                )
                pairs[0] += first
                pairs[1] += begin
                found.append(pairs)
        query, known, distance = np.concatenate(found, axis=1)
        order = np.lexsort((known, query))
        return query[order], known[order], distance[order]


def _near(queries: np.ndarray, words: np.ndarray, most: int) -> np.ndarray:
    """Return (query, known, distance) [3, k] of n queries [n, 4] and words [4, m]."""
    # The first half of the bits rules almost all pairs out: unrelated pictures differ
    # in 64 of its 128, give or take 6.
    half = np.bitwise_count(queries[:, :1] ^ words[0])
    half += np.bitwise_count(queries[:, 1:2] ^ words[1])
    query, known = np.nonzero(half <= most)
    distance = half[query, known].astype(np.int64)
    for k in (2, 3):
        distance += np.bitwise_count(queries[query, k] ^ words[k, known])
    kept = distance <= most
    return np.stack([query[kept], known[kept], distance[kept]])


def _words(hashes: np.ndarray) -> np.ndarray:
    """Return hashes uint8 [n, 32] as words uint64 [n, 4]."""
    hashes = np.asarray(hashes)
    if hashes.ndim != 2 or hashes.shape[1] != BYTES or hashes.dtype != np.uint8:
        raise ValueError(
            f"hashes are {hashes.dtype} {hashes.shape}, expected uint8 [n, {BYTES}]"
        )
    return np.ascontiguousarray(hashes).view(np.uint64)
