"""Memes that a command is given: lines of a jsonl file, or pictures of a folder."""

from __future__ import annotations

import os
import pathlib

from memejax.data.captions import CAPTIONS, pictures_in
from memejax.data.records import BadRecord, BadRecordsError, Meme, Rules, read_jsonl
from memejax.errors import UserError

# Labels and captions are read where they are; pictures may lie anywhere.
RULES = Rules(ids=False, labels=True, captions=False, confined=False)


def read_given(path: str | os.PathLike[str]) -> list[Meme]:
    """Read memes without opening their pictures.

    Args:
        path: a file with one {"img"} per line, `img` relative to its folder, where
            `text`, `label` and `id` may stand too (`id` defaults to `img`); or a folder
            of pictures, sorted by name, with such lines in its `captions.jsonl`, if it
            exists.

    Returns:
        Memes in order, with "" for no caption and -1 for no label.

    Raises:
        UserError: if there is no such file or folder, or no meme in it.
        BadRecordsError: lists every line, and every file name, that cannot be used.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise UserError(f"no file or folder {path}")
    memes = _lines(path)
    if not memes:
        raise UserError(f"{path} holds no memes, expected one per line")
    return memes


def _lines(path: pathlib.Path) -> list[Meme]:
    memes, bad = read_jsonl(path, root=path.parent, split="", rules=RULES)
    if bad:
        raise BadRecordsError(os.fspath(path), bad)
    return memes


def _from_folder(folder: pathlib.Path) -> list[Meme]:
    paths = pictures_in(folder)
    file = folder / CAPTIONS
    # The last line of a picture counts.
    known = {meme.image: meme for meme in (_lines(file) if file.is_file() else [])}
    bad = [
        BadRecord(
            ascii(path.name), 0, None, "its name is not printable UTF-8: rename it"
        )
        for path in paths
        if not path.name.isprintable()
    ]
    if bad:
        raise BadRecordsError(os.fspath(folder), bad)
    places = [(os.path.abspath(path), path.name) for path in paths]
    return [
        known.get(place) or Meme(name, place, "", -1, "", name, 0)
        for place, name in places
    ]
