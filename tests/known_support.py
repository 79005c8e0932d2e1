"""Hashes and pictures for the tests of known memes."""

import numpy as np


def flipped(bits, *places):
    """A hash with some of its 256 bits changed."""
    one = np.unpackbits(bits)
    one[list(places)] ^= 1
    return np.packbits(one)


def slow_pairs(queries, known, most):
    """All near pairs, bit by bit."""
    found = []
    for i, query in enumerate(queries):
        for k, one in enumerate(known):
            a, b = (int.from_bytes(x.tobytes(), "big") for x in (query, one))
            if (a ^ b).bit_count() <= most:
                found.append((i, k, (a ^ b).bit_count()))
    return found


def tiles(height, width, seed):
    """A picture of coloured tiles under a slanted shade."""
    colours = np.random.default_rng(seed).integers(0, 256, (11, 9, 3))
    rows, columns = np.arange(height), np.arange(width)
    shade = (rows[:, None] * 3 + columns * 2) % 256
    drawn = colours[rows[:, None] * 11 // height, columns * 9 // width]
    return ((3 * drawn + shade[..., None]) // 4).astype(np.uint8)
