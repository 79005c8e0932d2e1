"""Memes to predict: the lines of a jsonl file, or the pictures of a folder."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from memejax.console import say
from memejax.data import images
from memejax.data.captions import CAPTIONS, is_picture
from memejax.data.records import (
    BadRecord,
    BadRecordsError,
    Meme,
    prediction_rules,
    read_jsonl,
)

# At most this many entries of a folder are named.
SHOWN = 5


def from_jsonl(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    captions: bool,
) -> list[Meme]:
    """Read the memes of a file, one {"img", "text"} per line, in its order.

    `id` is optional and defaults to `img`; a label and other fields are ignored.
    Pictures are not opened.

    Args:
        path: the file.
        root: folder that a relative `img` starts from; None: the file's folder.
        captions: whether `text` is required.

    Raises:
        BadRecordsError: lists every line that cannot be used.
        ValueError: if the file does not exist or is empty.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}")
    memes, bad = read_jsonl(
        path,
        root=path.parent if root is None else root,
        split="",
        rules=prediction_rules(captions=captions),
    )
    if bad:
        raise BadRecordsError(os.fspath(path), bad)
    if not memes:
        raise ValueError(f"{path} holds no memes, expected one per line")
    return memes


def from_folder(
    folder: str | os.PathLike[str],
    *,
    captions_file: str | os.PathLike[str] | None = None,
    captions: bool,
) -> list[Meme]:
    """Read the pictures of a folder, sorted by name, with captions from a file.

    Args:
        folder: the folder.
        captions_file: lines as for `from_jsonl`, with `img` relative to the folder;
            None: `captions.jsonl` in the folder, if it exists.
        captions: whether every picture needs a caption.

    Raises:
        BadRecordsError: lists every picture without a caption.
        ValueError: if there is no such folder or file, or no picture.
    """
    folder = pathlib.Path(folder)
    entries = sorted(folder.iterdir())
    paths = [path for path in entries if is_picture(path)]
    file = pathlib.Path(captions_file or folder / CAPTIONS)
    _mention_others(folder, [p for p in entries if p not in paths and p != file])
    if not paths:
        looked = ", *".join(images.SUFFIXES)
        raise ValueError(f"no pictures in {folder}: looked for *{looked}")
    known: dict[str, Meme] = {}
    if captions_file is not None or file.is_file():
        lines = from_jsonl(file, root=folder, captions=captions)
        known = {meme.image: meme for meme in lines}
        if len(known) < len(lines):
            say(
                f"{file} has a second caption for {len(lines) - len(known)} pictures: "
                "the last one counts"
            )
    memes, bad = [], []
    for path in paths:
        place = os.path.abspath(path)
        meme = known.get(place)
        if not path.name.isprintable():
            reason = f"its name, {path.name!r}, is not printable UTF-8: rename it"
            bad.append(BadRecord(ascii(path.name), 0, None, reason))
            continue
        if meme is None and captions:
            reason = (
                f'has no caption: add to {file} a line {{"img": "{path.name}", "text": '
                '"..."}, with "" for a picture without words'
            )
            bad.append(BadRecord(path.name, 0, None, reason))
            continue
        meme_id, text = (meme.id, meme.text) if meme else (path.name, "")
        memes.append(Meme(meme_id, place, text, -1, "", path.name, 0))
    if bad:
        raise BadRecordsError(os.fspath(folder), bad)
    return memes


def _mention_others(folder: pathlib.Path, others: Sequence[pathlib.Path]) -> None:
    """Print how many entries of a folder are not predicted, and the first names."""
    if others:
        names = ", ".join(path.name + "/" * path.is_dir() for path in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        say(f"{folder}: left out {len(others)} that are no pictures: {names}{more}")


def refuse_unreadable(
    memes: Sequence[Meme], errors: Mapping[int, images.ImageError]
) -> None:
    """Raise BadRecordsError if pictures have errors (index -> error), listing them."""
    bad = [
        BadRecord(
            memes[place].file,
            memes[place].line,
            memes[place].id,
            f"image {error.path} {error.reason}",
        )
        for place, error in sorted(errors.items())
    ]
    if bad:
        raise BadRecordsError("pictures", bad)
