"""Records of memes, one JSON object per line, and the unusable ones.

`read_jsonl` reads a split of a data set, and `read_given` a record of a meme that a
command is given, which may come from any file.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memejax import strict_json
from memejax.errors import UserError

# At most this many records are spelled out in an error's message.
SHOWN = 20


@dataclass(frozen=True)
class Meme:
    """One usable record: `image` is an absolute path, `label` is -1 if unknown."""

    id: str
    image: str
    text: str
    label: int
    split: str
    file: str
    line: int


@dataclass(frozen=True)
class BadRecord:
    """One unusable record; line 0 stands for the file as a whole."""

    file: str
    line: int
    id: str | None
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


class BadRecordsError(UserError):
    """Unusable records, all of them in `records`."""

    def __init__(self, root: str, records: Sequence[BadRecord]):
        super().__init__(root, records)
        self.root = root
        self.records = list(records)

    def __str__(self) -> str:
        lines = [f"{self.root}: {len(self.records)} bad records:"]
        lines += [f"  {record}" for record in self.records[:SHOWN]]
        if len(self.records) > SHOWN:
            lines.append(f"  ... and {len(self.records) - SHOWN} more")
        return "\n".join(lines)


class RecordError(UserError):
    """Reason why a record is unusable."""


@dataclass(frozen=True)
class Given:
    """A meme that a command is given.

    Attributes:
        id: its name; the picture's without one.
        image: path of the picture as given, or the content of its file.
        text: its caption; None if it has none yet.
        label: 0 or 1; -1 if it has none of these.
    """

    id: str
    image: str | bytes
    text: str | None
    label: int


def read_jsonl(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str],
    split: str,
    read_caption: Callable[[str], str] | None = None,
) -> tuple[list[Meme], list[BadRecord]]:
    """Read one jsonl file of a data set; the images are not opened.

    `id` is an integer or a string, `img` a path below the root. `label` is 0, 1, "0" or
    "1"; absent or null, it is unknown. `text` may be empty. Blank lines are skipped.

    Args:
        path: the file.
        root: the folder that `img` is relative to.
        split: the value of `Meme.split`.
        read_caption: path of a picture -> its caption, for records without `text`; a
            RecordError makes the record a bad one. None: they are bad records.

    Returns:
        (memes, bad records), each in the order of the file.
    """
    memes: list[Meme] = []
    bad: list[BadRecord] = []
    name = os.path.basename(path)
    root = os.path.realpath(root)
    with open(path, "rb") as file:
        for number, line in numbered_lines(file):
            meme_id = None
            try:
                record = parse(line)
                meme_id = _id(record)
                if "img" not in record:
                    raise RecordError("field 'img' is missing")
                image = _path_below(root, record)
                label = _label(record)
                if "text" in record:
                    text = _string(record, "text")
                elif read_caption is None:
                    raise RecordError("field 'text' is missing")
                else:
                    text = read_caption(image)
            except RecordError as error:
                bad.append(BadRecord(name, number, meme_id, str(error)))
                continue
            memes.append(Meme(meme_id, image, text, label, split, name, number))
    return memes, bad


def numbered_lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number the lines of a file from 1, without a byte order mark and blank ones."""
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def parse(line: bytes) -> dict:
    """Parse a line of JSON.

    Raises:
        RecordError: if it is not an object in UTF-8, or has a field twice.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    try:
        record = strict_json.loads(text)
    except ValueError as error:
        raise RecordError(f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise RecordError(
            f"is {type(record).__name__} {text.strip()!r:.80}, expected a JSON object"
        )
    return record


# Names of a field, the first one that a record has.
PICTURE_FIELDS = ("img", "image", "path")
CAPTION_FIELDS = ("text", "caption")


def read_given(record: Mapping[str, Any], *, name: str) -> Given:
    """Read a meme that a command is given from a record.

    Args:
        record: `img`, `image` or `path`, the picture's path, its content, or both as
            {"bytes", "path"}, the form of Hugging Face's data sets; `text` or `caption`
            and `id` are optional, `label` counts if it is one, and other fields are
            ignored.
        name: the id of a picture that has neither an id nor a path.

    Raises:
        RecordError: if a field is missing or of the wrong type.
    """
    image = path = _first(record, PICTURE_FIELDS)
    if isinstance(image, Mapping):
        path = image.get("path")
        image = path if image.get("bytes") is None else image["bytes"]
    if not isinstance(image, bytes):
        if not isinstance(image, str) or not image or "\0" in image:
            raise RecordError(f"img is {image!r:.80}, expected the path of a picture")
        _string({"img": image}, "img")
    text = _first(record, CAPTION_FIELDS)
    if text is not None:
        text = _string({"text": text}, "text")
    given = record.get("id")
    if given is None:
        given = path if isinstance(path, str) else name
    try:
        label = _label(record)
    except RecordError:
        label = -1
    return Given(_string({"id": str(given)}, "id"), image, text, label)


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first field of several that is there and not null."""
    found = (record[name] for name in names if record.get(name) is not None)
    return next(found, None)


def _string(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise RecordError(f"{name} is {value!r:.80}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON may escape half of a surrogate pair; no tokenizer accepts that.
        raise RecordError(
            f"{name} is not valid Unicode (half a surrogate pair)"
        ) from None
    return value


def _id(record: dict) -> str:
    if "id" not in record:
        raise RecordError("field 'id' is missing")
    value = record["id"]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"id is {value!r:.80}, expected an integer or a string")
    return _string(record, "id")


def _label(record: Mapping[str, Any]) -> int:
    value = record.get("label")
    if value is None:
        return -1
    if (type(value) is int and value in (0, 1)) or value in ("0", "1"):
        return int(value)
    raise RecordError(
        f"label is {value!r:.80}, expected 0 (not hateful), 1 (hateful), or no label"
    )


def _path_below(root: str, record: dict) -> str:
    """Return the real path of the image; `root` is a real path itself."""
    img = _string(record, "img")
    if not img or "\0" in img:
        raise RecordError(f"img is {img!r}, expected a path below the data folder")
    if os.path.isabs(img):
        raise RecordError(
            f"img {img!r} is absolute, expected a path below the data folder"
        )
    path = os.path.realpath(os.path.join(root, img))
    if os.path.commonpath([root, path]) != root:
        raise RecordError(f"img {img!r} leads outside the data folder (to {path})")
    return path
