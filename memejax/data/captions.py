"""Captions for a folder of bare pictures.

`python -m memejax.data.hateful_memes caption FOLDER` writes them as `captions.jsonl`,
which `python -m memejax.predict` reads.
"""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable

from memejax.data import images
from memejax.data.ocr import CaptionReader
from memejax.errors import UserError

# Name of the file in a folder of pictures that holds their captions.
CAPTIONS = "captions.jsonl"


def pictures_in(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Return the pictures of a folder by their suffix, sorted by name.

    Raises:
        UserError: if there is no such folder, or no picture in it.
    """
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise UserError(f"no folder {path}")
    found = [one for one in sorted(path.iterdir()) if is_picture(one)]
    if not found:
        looked = ", *".join(images.SUFFIXES)
        raise UserError(f"no pictures in {path}: looked for *{looked}")
    return found


def is_picture(path: pathlib.Path) -> bool:
    """Whether a file's suffix is that of a picture."""
    return path.suffix.lower() in images.SUFFIXES


def caption_folder(
    folder: str | os.PathLike[str],
    *,
    reader: CaptionReader,
    output: str | os.PathLike[str] | None = None,
    max_pixels: int = images.MAX_PIXELS,
    say: Callable[[str], None] = print,
) -> dict[str, images.ImageError]:
    """Read the captions of a folder's pictures and append them to a jsonl file.

    A line has `img`, `text` and `confidence`, the lowest of the words'. Pictures that
    the file names already keep their captions, so that it can be corrected by hand, and
    an interrupted run goes on.

    Args:
        folder: the pictures.
        reader: of words.
        output: the file; None: `captions.jsonl` in the folder.
        max_pixels: the largest width x height of a picture.
        say: called with a progress line every ten seconds, and one at the end.

    Returns:
        Name -> error of each picture that cannot be read.

    Raises:
        UserError: if there is no picture, or the file has a line that is no JSON.
    """
    found = pictures_in(folder)
    path = pathlib.Path(output or pathlib.Path(folder) / CAPTIONS)
    known = _named(path)
    todo = [one for one in found if one.name not in known]
    errors: dict[str, images.ImageError] = {}
    began = last = time.monotonic()
    for done, picture in enumerate(todo, start=1):
        try:
            reading = reader.read(os.fspath(picture), max_pixels=max_pixels)
        except images.ImageError as error:
            errors[picture.name] = error
            continue
        row = {
            "img": picture.name,
            "text": reading.caption,
            "confidence": round(reading.confidence, 4),
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        now = time.monotonic()
        if now - last > 10:
            left = (now - began) / done * (len(todo) - done)
            say(f"caption {done}/{len(todo)}  ETA {left:.0f} s")
            last = now
    kept = len(found) - len(todo)
    say(
        f"{len(todo) - len(errors)} captions read"
        + (f", {kept} were there" if kept else "")
        + (f", pictures that cannot be read: {len(errors)}" if errors else "")
        + f"; in {path}"
    )
    return errors


def _named(path: pathlib.Path) -> set[str]:
    """Return the pictures that a file of captions names; cut off a broken last line."""
    if not path.exists():
        return set()
    text = path.read_text("utf-8")
    if text and not text.endswith("\n"):
        whole, _, last = text.rpartition("\n")
        try:
            json.loads(last)
            text += "\n"
        except json.JSONDecodeError:
            # Written in part by a run that was interrupted.
            text = whole + "\n" if whole else ""
        path.write_text(text, "utf-8")
    names = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                names.add(json.loads(line)["img"])
            except (json.JSONDecodeError, KeyError, TypeError):
                raise UserError(
                    f'{path}:{number} is no {{"img", "text"}}: mend it, or name '
                    "another file with --output"
                ) from None
    return names
