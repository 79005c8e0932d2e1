"""Edits between captions."""

import random

import pytest

from memejax.data import same_words


def slow_distance(a, b):
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, table = table, [i]
        for j, y in enumerate(b, start=1):
            least = min(above[j] + 1, table[-1] + 1, above[j - 1] + (x != y))
            table.append(least)
    return table[-1]


def test_edit_distance():
    assert same_words.edit_distance("kitten", "sitting") == 3
    draw = random.Random(0)
    for _ in range(2000):
        a, b = ("".join(draw.choices("abc", k=draw.randint(0, 9))) for _ in "ab")
        assert same_words.edit_distance(a, b) == slow_distance(a, b), (a, b)
    # Longer than any machine word.
    a, b = ("".join(draw.choices("abcd ", k=150)) for _ in "ab")
    assert same_words.edit_distance(a, b) == slow_distance(a, b)


@pytest.mark.parametrize(
    ("first", "second", "share", "same"),
    [
        ("", "", 0.05, True),
        ("", "a", 0.9, False),
        ("Stay  AT\nhome", "stay at home", 0, True),
        ("stay at home", "stay at hone", 0.05, False),
        ("stay at home", "stay at hone", 0.1, True),
        # 20 characters allow one edit, 19 none.
        ("a" * 20, "a" * 19 + "b", 0.05, True),
        ("a" * 19, "a" * 18 + "b", 0.05, False),
        ("a" * 20, "a" * 18 + "bb", 0.05, False),
        ("a" * 20, "a" * 18, 0.05, False),
    ],
)
def test_same_words(first, second, share, same):
    assert same_words.same_words(first, second, max_edits=share) is same
    assert same_words.same_words(second, first, max_edits=share) is same
