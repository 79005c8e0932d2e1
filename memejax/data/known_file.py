"""The file of a list of known memes: JSON lines, of which the first is a header.

    {"format": "memejax.known", "version": 1, "hash": "pdq"}
    {"id": "42953", "pdq": "d8f8...9b22", "quality": 100, "caption": "stay at home",
     "label": "hateful", "note": "case 17", "added": "2026-11-30T09:00:00+00:00"}

`pdq` is a hash in 64 hexadecimal digits and `quality` its quality (`data.pdq`).
`caption` has case and spaces folded, and is "" for a picture without words. `note` and
`added` may be absent. Each meme stands on one line.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from memejax import atomic, strict_json
from memejax.data import pdq
from memejax.data.hateful_memes import normalise_caption
from memejax.data.records import BadRecord, BadRecordsError
from memejax.errors import UserError

HEADER = {"format": "memejax.known", "version": 1, "hash": "pdq"}
BENIGN, HATEFUL = "benign", "hateful"
LABELS = (BENIGN, HATEFUL)


@dataclass(frozen=True)
class KnownMeme:
    """A meme of the list; the fields are those of the file."""

    id: str
    pdq: str
    quality: int
    caption: str
    label: str
    note: str = ""
    added: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Hash and caption, which identify a meme: other words make another one."""
        return self.pdq, self.caption


_FIELDS = {field.name: field for field in fields(KnownMeme)}
_REQUIRED = {name for name, field in _FIELDS.items() if field.default is MISSING}


def read(path: str | os.PathLike[str]) -> list[KnownMeme]:
    """Read the memes of a list.

    Raises:
        UserError: if there is no such file, or it is of another format or version.
        BadRecordsError: lists every damaged line, and every one whose meme or id an
            earlier line has.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"no list of known memes {path}: python -m memejax.known add makes one"
        )
    memes: list[KnownMeme] = []
    bad: list[BadRecord] = []
    # Meme or id -> its line.
    lines: dict[Any, int] = {}
    with open(path, "rb") as file:
        _check_header(f"{path}:1", file.readline())
        for number, line in enumerate(file, start=2):
            if not line.strip():
                continue
            meme = None
            try:
                meme = parse(line)
                for one, shown in ((meme.key, "its meme"), (meme.id, f"id {meme.id}")):
                    if one in lines:
                        raise ValueError(f"{shown} is on line {lines[one]} already")
            except ValueError as error:
                bad.append(BadRecord(path.name, number, meme and meme.id, str(error)))
                continue
            lines[meme.key] = lines[meme.id] = number
            memes.append(meme)
    if bad:
        raise BadRecordsError(os.fspath(path), bad)
    return memes


def write(path: str | os.PathLike[str], memes: Iterable[KnownMeme]) -> None:
    """Replace a list's file, of which a link stays a link; see `atomic.replacing`."""
    with atomic.replacing(os.path.realpath(path)) as file:
        for row in (HEADER, *map(_record, memes)):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _record(meme: KnownMeme) -> dict[str, Any]:
    """Return a meme's line; fields that may be absent are, where they are empty."""
    row = asdict(meme)
    return {k: v for k, v in row.items() if k in _REQUIRED or v}


def _check_header(place: str, line: bytes) -> None:
    """Raise UserError unless a line is the header of a list that can be read."""
    try:
        header = strict_json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != HEADER["format"]:
        raise UserError(
            f"{place}: is not the header of a list of known memes: expected "
            f"{json.dumps(HEADER)}, got {line[:80].decode(errors='replace').strip()!r}"
        )
    for name in ("version", "hash"):
        if header.get(name) != HEADER[name]:
            raise UserError(
                f"{place}: {name} of the list is {header.get(name)!r:.80}, and this "
                f"memejax reads {HEADER[name]!r}"
            )


def parse(line: bytes) -> KnownMeme:
    """Parse the line of a meme, which a person may have typed; see `checked`.

    Raises:
        ValueError: if it is damaged, with the reason.
    """
    try:
        record = strict_json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"is a {type(record).__name__}, expected a JSON object")
    missing = sorted(_REQUIRED - set(record))
    if missing:
        raise ValueError(f"has no {', '.join(missing)}")
    unknown = sorted(set(record) - set(_FIELDS))
    if unknown:
        raise ValueError(
            f"has the unknown {', '.join(unknown)!r:.80}, expected {', '.join(_FIELDS)}"
        )
    return checked(KnownMeme(**record))


def checked(meme: KnownMeme) -> KnownMeme:
    """Return a meme with its hash in lower case and its caption folded.

    Raises:
        ValueError: if a field is of another type or out of range.
    """
    for name in _FIELDS:
        value = getattr(meme, name)
        if name != "quality" and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r:.80}, expected a string")
        if isinstance(value, str) and not _is_unicode(value):
            raise ValueError(f"{name} {value!r:.80} is not valid Unicode")
    if not meme.id.strip():
        raise ValueError("id is empty")
    pdq.from_hex(meme.pdq)
    if type(meme.quality) is not int or not 0 <= meme.quality <= 100:
        raise ValueError(
            f"quality is {meme.quality!r:.80}, expected an integer from 0 to 100"
        )
    if meme.label not in LABELS:
        raise ValueError(f"label is {meme.label!r:.80}, expected {' or '.join(LABELS)}")
    return replace(meme, pdq=meme.pdq.lower(), caption=normalise_caption(meme.caption))


def _is_unicode(text: str) -> bool:
    """Whether a text is without surrogates.

    JSON may escape half of a pair, and Python keeps bytes of names that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
