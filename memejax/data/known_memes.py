"""A list of known memes and their labels, and the matching of pictures with it.

It is moderation's first line, and changes without training. `data.known_file` has the
format of its file, `data.pdq` the hashes.

    known = KnownMemes.load("known.jsonl")
    hashes, qualities, errors = pdq.compute_all(paths)
    known.match(hashes, captions, qualities=qualities, same_words=True)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from memejax import atomic
from memejax.data import known_file, pdq
from memejax.data import same_words as words
from memejax.data.hateful_memes import normalise_caption
from memejax.data.known_file import HATEFUL, LABELS, KnownMeme
from memejax.errors import UserError

# Results of `KnownMemes.add`.
ADDED, PRESENT, RELABELLED = "added", "present", "relabelled"
# Pictures matched at once: each may be near to all known ones.
_CHUNK = 64


class Match(NamedTuple):
    """The known meme that a picture matches, its distance in bits and its label."""

    id: str
    distance: int
    label: str


class KnownMemes:
    """Known memes, in the order in which they were added.

    Those of a quality below 50 stay on the list and match nothing.
    """

    def __init__(self, memes: Iterable[KnownMeme] = ()):
        """Add memes, as `add` does."""
        self._memes: dict[tuple[str, str], KnownMeme] = {}
        self._ids: set[str] = set()
        self._searched: tuple[list[KnownMeme], pdq.Near] | None = None
        for meme in memes:
            self.add(meme)

    def __len__(self) -> int:
        return len(self._memes)

    def __iter__(self) -> Iterator[KnownMeme]:
        return iter(self._memes.values())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KnownMemes:
        """Read a list's file; raises as `known_file.read`."""
        return cls(known_file.read(path))

    def add(self, meme: KnownMeme) -> str:
        """Add a meme; one with the hash and the caption of another is not added again.

        Args:
            meme: a meme; its caption is folded here (`normalise_caption`).

        Returns:
            ADDED; PRESENT if the list has it; RELABELLED if the list had it with the
            other label, which is replaced, as is the note by one that is not empty.

        Raises:
            UserError: if another meme of the list has its id.
            ValueError: if a field is out of range.
        """
        meme = known_file.checked(meme)
        old = self._memes.get(meme.key)
        if old is None and meme.id in self._ids:
            raise UserError(f"id {meme.id!r} is that of another meme of the list")
        if old is not None and old.label == meme.label:
            return PRESENT
        if old is not None:
            meme = replace(meme, id=old.id, note=meme.note or old.note)
        self._memes[meme.key] = meme
        self._ids.add(meme.id)
        self._searched = None
        return ADDED if old is None else RELABELLED

    def match(
        self,
        hashes: np.ndarray,
        captions: Sequence[str] | None = None,
        *,
        qualities: ArrayLike | None = None,
        max_distance: int = pdq.MAX_DISTANCE,
        same_words: bool = False,
        max_edits: float = words.MAX_EDITS,
    ) -> list[Match | None]:
        """Find the nearest known meme of each picture.

        Of known memes at one distance, those with an equal caption come first, then
        hateful ones, then those added first.

        Args:
            hashes: uint8 [n, 32], as of `pdq.compute_all`.
            captions: words of the n pictures, "" for none; None if unknown.
            qualities: int [n] of the hashes; a picture below 50 matches nothing. None:
                all are good.
            max_distance: the largest Hamming distance, in bits.
            same_words: whether the captions must agree too; see `data.same_words`.
            max_edits: with `same_words`: the share of edits between two captions.

        Returns:
            n matches, None for a picture without one.

        Raises:
            ValueError: if lengths differ, a value is out of range, or there are no
                captions for `same_words`.
        """
        words.check_max_edits(max_edits)
        if same_words and captions is None:
            raise ValueError("same_words takes captions, got none")
        good = np.full(len(hashes), 100) if qualities is None else np.asarray(qualities)
        for name, values in (("captions", captions), ("qualities", good)):
            if values is not None and len(values) != len(hashes):
                raise ValueError(
                    f"got {len(hashes)} hashes and {len(values)} {name}, expected "
                    "equally many"
                )
        memes, near = self._search()
        found: list[Match | None] = [None] * len(hashes)
        places = np.flatnonzero(good >= pdq.MIN_QUALITY)
        for start in range(0, len(places), _CHUNK):
            part = places[start : start + _CHUNK]
            query, known, distance = near.find(hashes[part], max_distance=max_distance)
            for one in np.unique(query):
                mine, place = query == one, int(part[one])
                pairs = zip(distance[mine].tolist(), known[mine].tolist(), strict=True)
                found[place] = _best(
                    [(bits, memes[k]) for bits, k in pairs],
                    None if captions is None else captions[place],
                    max_edits if same_words else None,
                )
        return found

    def _search(self) -> tuple[list[KnownMeme], pdq.Near]:
        """Return the memes that can match, and their hashes to search."""
        if self._searched is None:
            memes = [meme for meme in self if meme.quality >= pdq.MIN_QUALITY]
            content = bytes.fromhex("".join(meme.pdq for meme in memes))
            hashes = np.frombuffer(content, np.uint8).reshape(-1, pdq.BYTES)
            self._searched = memes, pdq.Near(hashes)
        return self._searched

    def summary(self) -> dict[str, int]:
        """Count memes: all, of each label, too plain to match, without a caption."""
        labels = Counter(meme.label for meme in self)
        return {
            "memes": len(self),
            **{label: labels[label] for label in LABELS},
            "too plain to match": sum(m.quality < pdq.MIN_QUALITY for m in self),
            "without a caption": sum(not m.caption for m in self),
        }


@contextlib.contextmanager
def changing(path: str | os.PathLike[str]) -> Iterator[KnownMemes]:
    """Read a list, or begin one; write it once the body has ended without an error.

    Processes that change lists in one folder take turns.

    Raises:
        UserError: as `known_file.read`, and if the file cannot be written.
    """
    path = pathlib.Path(os.path.realpath(path))
    atomic.check_target(path)
    # The folder is locked, as the file itself is replaced.
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        # Some network file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        known = KnownMemes.load(path) if path.exists() else KnownMemes()
        yield known
        known_file.write(path, known)
    finally:
        os.close(handle)


def _best(
    near: list[tuple[int, KnownMeme]], caption: str | None, max_edits: float | None
) -> Match | None:
    """Return the first of the near (distance, meme) that counts; `KnownMemes.match`.

    Args:
        near: in the order of the list.
        caption: of the picture; None if unknown.
        max_edits: share of edits that words may differ by; None: they do not matter.
    """
    folded = None if caption is None else normalise_caption(caption)
    near.sort(
        key=lambda one: (one[0], one[1].caption != folded, one[1].label != HATEFUL)
    )
    for distance, meme in near:
        if max_edits is None or words.same_words(
            folded or "", meme.caption, max_edits=max_edits
        ):
            return Match(meme.id, distance, meme.label)
    return None
