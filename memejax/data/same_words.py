"""Whether two captions have the same words, but for a few slips of reading."""

from __future__ import annotations

from memejax.data.hateful_memes import normalise_caption
from memejax.data.text import LONGEST_CAPTION

# The share of edits that python-threatexchange allows between words read off pictures.
MAX_EDITS = 0.05


def same_words(first: str, second: str, *, max_edits: float = MAX_EDITS) -> bool:
    """Whether two captions differ in few characters, letter case and spaces aside.

        d(a, b) <= max_edits * max(|a|, |b|)

    with d the Levenshtein distance of the normalised captions, the fewest characters to
    insert, delete or replace. A short caption leaves room for no edit: below 20
    characters the default means equal. An empty caption equals another empty one only.

    Args:
        first: a caption.
        second: another; of both the first 10,000 characters count.
        max_edits: in [0, 1); 0 means equal.

    Raises:
        ValueError: if `max_edits` is out of range.

    Example:
        >>> same_words("Stay at  home, they said", "stay at home they said")
        True
        >>> same_words("stay at home", "stay at hone")
        False
    """
    check_max_edits(max_edits)
    a, b = (normalise_caption(one)[:LONGEST_CAPTION] for one in (first, second))
    most = int(max_edits * max(len(a), len(b)))
    if a == b:
        return True
    return 0 < most >= abs(len(a) - len(b)) and edit_distance(a, b) <= most


def check_max_edits(max_edits: float) -> None:
    """Raise ValueError if a share of edits is out of range."""
    if not 0 <= max_edits < 1:
        raise ValueError(
            f"max_edits is {max_edits}, expected at least 0 and less than 1"
        )


def edit_distance(a: str, b: str) -> int:
    """Count the fewest characters to insert, delete or replace to make `a` into `b`.

    A column of the table of distances is two integers of len(a) bits, so that two
    captions of 10,000 characters take 0.05 s.

    References:
        Myers, A fast bit-vector algorithm for approximate string matching, 1999;
        Hyyrö, A bit-vector algorithm for computing Levenshtein and Damerau edit
        distances, 2003, figure 5.
    """
    if not a:
        return len(b)
    places: dict[str, int] = {}
    for i, character in enumerate(a):
        places[character] = places.get(character, 0) | 1 << i
    every, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    # Rows whose distance is one more, and one less, than that of the row above.
    up, down = every, 0
    distance = len(a)
    for character in b:
        equal = places.get(character, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right, left = down | (every & ~(diagonal | up)), up & diagonal
        distance += bool(right & last) - bool(left & last)
        right = (right << 1 | 1) & every
        left = left << 1 & every
        up, down = left | (every & ~(diagonal | right)), right & diagonal
    return distance
