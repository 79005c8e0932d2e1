"""Memes that are asked about: lines of a jsonl file, or the pictures of a folder."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from memejax.data import images
from memejax.data.hateful_memes import BadRecord, BadRecordsError, Meme

CAPTIONS = "captions.jsonl"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def from_jsonl(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    captions: bool,
) -> list[Meme]:
    """The memes of a file, one {"img", "text"} a line, in its order.

    `id` is optional, `img` stands in for it; a label and anything else is ignored.
    Pictures are not opened.

    Args:
      path: the file.
      root: folder that `img` is relative to, unless it is absolute; None: the file's.
      captions: whether `text` must be there.

    Raises:
      BadRecordsError: naming every line that cannot be used.
      ValueError: if there is no such file, or no line in it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}")
    root = path.parent if root is None else pathlib.Path(root)
    memes, bad = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                meme_id, img, text = _read(line, number, captions)
            except ValueError as error:
                bad.append(BadRecord(path.name, number, None, str(error)))
                continue
            image = os.path.abspath(root / img)
            memes.append(Meme(meme_id, image, text, -1, "", path.name, number))
    if bad:
        raise BadRecordsError(os.fspath(path), bad)
    if not memes:
        raise ValueError(f"{path} holds no memes, expected one a line")
    return memes


def from_folder(
    folder: str | os.PathLike[str],
    *,
    captions_file: str | os.PathLike[str] | None = None,
    captions: bool,
) -> list[Meme]:
    """The pictures that lie in a folder, by name, with captions from a file.

    Args:
      folder: with pictures.
      captions_file: lines as `from_jsonl` takes them, `img` relative to the folder;
        None: `captions.jsonl` in the folder, if it is there.
      captions: whether every picture must have one.

    Raises:
      BadRecordsError: naming every picture without a caption.
      ValueError: if there is no such folder or file, or no picture.
    """
    folder = pathlib.Path(folder)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    if not paths:
        raise ValueError(f"no pictures in {folder}: looked for *{', *'.join(PICTURES)}")
    file = pathlib.Path(captions_file or folder / CAPTIONS)
    known: dict[str, Meme] = {}
    if captions_file is not None or file.is_file():
        lines = from_jsonl(file, root=folder, captions=captions)
        known = {meme.image: meme for meme in lines}
    memes, bad = [], []
    for path in paths:
        place = os.path.abspath(path)
        meme = known.get(place)
        if meme is None and captions:
            reason = (
                f'has no caption: give {file} a line {{"img": "{path.name}", "text": '
                '"..."}, with "" for a picture without words'
            )
            bad.append(BadRecord(path.name, 0, None, reason))
            continue
        meme_id, text = (meme.id, meme.text) if meme else (path.name, "")
        memes.append(Meme(meme_id, place, text, -1, "", path.name, 0))
    if bad:
        raise BadRecordsError(os.fspath(folder), bad)
    return memes


def refuse_unreadable(
    memes: Sequence[Meme], errors: Mapping[int, images.ImageError]
) -> None:
    """Raises BadRecordsError naming the memes whose pictures have errors, by place."""
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


def _read(line: bytes, number: int, captions: bool) -> tuple[str, str, str]:
    """A line's id, img and text, or a ValueError that says what is wrong with it."""
    try:
        # A BOM may stand before the first line.
        record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON in UTF-8: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"is {record!r:.80}, expected a JSON object")
    img, text = record.get("img"), record.get("text", None if captions else "")
    if not isinstance(img, str) or not img or "\0" in img:
        raise ValueError(f"img is {img!r:.80}, expected the path of a picture")
    if text is None:
        raise ValueError(f'{img} has no caption: give it "text", "" if it has no words')
    if not isinstance(text, str):
        raise ValueError(f"text is {text!r:.80}, expected a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON may escape half of a surrogate pair; no tokenizer takes that.
        raise ValueError("text is no valid Unicode (half a surrogate pair)") from None
    return (img if record.get("id") is None else str(record["id"])), img, text
