"""Memes that a command is given: a folder of pictures, records, or lines of a pipe.

A source is gone through from its start as often as it is asked for, one item at a time,
so that its memory does not grow with its length. An item that is unusable is an item
too, with its error.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

from memejax.data import images
from memejax.data.captions import CAPTIONS, is_picture
from memejax.data.records import (
    CAPTION_FIELDS,
    PICTURE_FIELDS,
    BadRecord,
    BadRecordsError,
    RecordError,
    numbered_lines,
    parse,
    read_given,
)
from memejax.errors import UserError

STDIN = "-"
# At most this many entries of a folder are named.
SHOWN = 5
# Rows of a parquet file that are in memory at once, pictures included.
_PARQUET_ROWS = 32


@dataclasses.dataclass(frozen=True)
class Item:
    """A meme that a command is given.

    Attributes:
        id: its name.
        picture: path of the picture, or the content of its file; None with an error.
        caption: None if it has none, and has to be read off the picture.
        error: reason why it is unusable; None if it is usable.
        label: 0 or 1; -1 if the record has none of these.
    """

    id: str
    picture: images.Picture | None
    caption: str | None = None
    error: str | None = None
    label: int = -1


@dataclasses.dataclass(frozen=True)
class Source:
    """Memes that a command is given.

    Attributes:
        name: in messages.
        items: begins a new pass over the items.
        total: their number; None if it is not known before the end.
    """

    name: str
    items: Callable[[], Iterator[Item]]
    total: int | None


def open_source(
    path: str, *, captions: str | None = None, say: Callable[[str], None] = print
) -> Source:
    """Open what a path names.

    Args:
        path: a folder of pictures; a `.csv`, a `.parquet` or a jsonl file (any other
            suffix) with a picture per record, whose paths start from the file's folder;
            "-" for standard input, with a path or a JSON record per line.
        captions: with a folder, a jsonl file of its captions; None: its
            `captions.jsonl`, if it exists.
        say: called with what of a folder is left out.

    Raises:
        UserError: if there is no such file or folder, it is empty, it lacks the columns
            that are needed, or the captions cannot be used.
    """
    if captions is not None and not os.path.isdir(path):
        raise UserError(
            f"--captions goes with a folder of pictures; {path} is none of them"
        )
    if path == STDIN:
        # A pipe can be read once only; its pictures are not kept, its lines are.
        lines = list(numbered_lines(sys.stdin.buffer))
        return Source("standard input", lambda: _of_pipe(lines), len(lines))
    if os.path.isdir(path):
        return _folder(pathlib.Path(path), captions, say)
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"no file or folder {path}")
    opened = _FORMATS.get(file.suffix.lower(), _jsonl)(file)
    if opened.total == 0:
        raise UserError(f"{path} holds no memes, expected one per record")
    return opened


def refuse(errors: Mapping[str, str], name: str) -> None:
    """Raise BadRecordsError for a source of this name if there are errors by id."""
    bad = [BadRecord(one, 0, one, reason) for one, reason in errors.items()]
    if bad:
        raise BadRecordsError(name, bad)


def _item(record: Mapping[str, Any], *, name: str, root: str) -> Item:
    """Return the item of a record, with an error if it is unusable."""
    try:
        found = read_given(record, name=name)
    except RecordError as error:
        return Item(_id_of(record, name), None, error=str(error))
    picture = found.image
    if isinstance(picture, str):
        picture = os.path.abspath(os.path.join(root, picture))
    return Item(found.id, picture, found.text, label=found.label)


def _id_of(record: Mapping[str, Any], name: str) -> str:
    """Return the id of an unusable record, if that is usable, else its place."""
    found = record.get("id")
    return str(found) if isinstance(found, int | str) and str(found) else name


def _of_lines(lines: Iterable[tuple[int, bytes]], root: str) -> Iterator[Item]:
    """Yield an item for each numbered line of JSON."""
    for number, line in lines:
        name = f"line {number}"
        try:
            record = parse(line)
        except RecordError as error:
            yield Item(name, None, error=str(error))
        else:
            yield _item(record, name=name, root=root)


def _of_pipe(lines: Iterable[tuple[int, bytes]]) -> Iterator[Item]:
    """Yield an item for each numbered line: JSON, or the path of a picture."""
    for number, line in lines:
        if line.lstrip().startswith(b"{"):
            yield from _of_lines([(number, line)], "")
        else:
            path = os.fsdecode(line.rstrip(b"\r\n"))
            yield _item({"img": path}, name=f"line {number}", root="")


def _jsonl(path: pathlib.Path) -> Source:
    """Open a file with a JSON record per line."""

    def items() -> Iterator[Item]:
        with path.open("rb") as file:
            yield from _of_lines(numbered_lines(file), os.fspath(path.parent) or ".")

    with path.open("rb") as file:
        total = sum(1 for _ in numbered_lines(file))
    return Source(os.fspath(path), items, total)


def _csv(path: pathlib.Path) -> Source:
    """Open a CSV file with a header."""
    # Captions may be longer than the 128 KiB that are the module's default.
    csv.field_size_limit(1 << 24)

    def rows() -> Iterator[dict[str, Any]]:
        with _text(path) as file:
            reader = csv.DictReader(file)
            try:
                yield from reader
            except csv.Error as error:
                raise UserError(f"{path}:{reader.line_num}: {error}") from None

    def items() -> Iterator[Item]:
        for number, row in enumerate(rows(), start=1):
            # A field that is empty is an empty caption, and no path or id.
            given = {k: v for k, v in row.items() if v or k in CAPTION_FIELDS}
            yield _item(given, name=f"row {number}", root=os.fspath(path.parent))

    with _text(path) as file:
        _check_columns(path, csv.DictReader(file).fieldnames or ())
    return Source(os.fspath(path), items, sum(1 for _ in rows()))


def _text(path: pathlib.Path) -> TextIO:
    # What is not UTF-8 becomes half a surrogate pair, which `read_given` refuses.
    return path.open(encoding="utf-8-sig", newline="", errors="surrogateescape")


def _parquet(path: pathlib.Path) -> Source:
    """Open a parquet file with the pictures' paths or contents."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names, total = file.schema_arrow.names, file.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is no parquet file, or is damaged: {error}") from None
    _check_columns(path, names)
    wanted = [
        n for n in ("id", *PICTURE_FIELDS, *CAPTION_FIELDS, "label") if n in names
    ]

    def items() -> Iterator[Item]:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    name = f"row {number}"
                    yield _item(record, name=name, root=os.fspath(path.parent))

    return Source(os.fspath(path), items, total)


_FORMATS = {".csv": _csv, ".parquet": _parquet}


def _check_columns(path: pathlib.Path, names: Any) -> None:
    if not set(PICTURE_FIELDS) & set(names):
        there = ", ".join(map(str, names)) or "(none)"
        raise UserError(
            f"{path} has the columns {there}: expected {' or '.join(PICTURE_FIELDS)}, "
            f"and perhaps id and {' or '.join(CAPTION_FIELDS)}"
        )


def _folder(
    folder: pathlib.Path, captions_file: str | None, say: Callable[[str], None]
) -> Source:
    """Open the pictures of a folder, by name, with captions from a file."""
    entries = sorted(folder.iterdir())
    paths = [path for path in entries if is_picture(path)]
    file = pathlib.Path(captions_file or folder / CAPTIONS)
    pictures = set(paths)
    others = [p for p in entries if p not in pictures and p != file]
    if others:
        say(_left_out(folder, others))
    if not paths:
        looked = ", *".join(images.SUFFIXES)
        raise UserError(f"no pictures in {folder}: looked for *{looked}")
    known: dict[str, Item] = {}
    if captions_file is not None or file.is_file():
        known = _captions(file, folder, say)

    def items() -> Iterator[Item]:
        for path in paths:
            place = os.path.abspath(path)
            if not path.name.isprintable():
                reason = f"its name, {path.name!r}, is not printable UTF-8: rename it"
                yield Item(ascii(path.name), None, error=reason)
            else:
                yield known.get(place, Item(path.name, place))

    return Source(os.fspath(folder), items, len(paths))


def _captions(
    file: pathlib.Path, folder: pathlib.Path, say: Callable[[str], None]
) -> dict[str, Item]:
    """Read a folder's captions: absolute path -> item."""
    if not file.is_file():
        raise UserError(f"no file {file}")
    with file.open("rb") as lines:
        found = list(_of_lines(numbered_lines(lines), os.fspath(folder)))
    refuse(
        {f"{file.name}, {i.id}": i.error for i in found if i.error is not None},
        os.fspath(file),
    )
    known = {item.picture: item for item in found if isinstance(item.picture, str)}
    if len(known) < len(found):
        say(
            f"{file} has a second caption for {len(found) - len(known)} pictures: "
            "the last one counts"
        )
    return known


def _left_out(folder: pathlib.Path, others: list[pathlib.Path]) -> str:
    """Describe how many entries of a folder are no pictures, with the first names."""
    names = ", ".join(path.name + "/" * path.is_dir() for path in others[:SHOWN])
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return f"{folder}: left out {len(others)} that are no pictures: {names}{more}"
