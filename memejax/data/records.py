"""Records of memes, one JSON object per line, and the unusable ones.

Two kinds of files are read: splits of a data set (`DATASET`), and memes to predict on
(`prediction_rules`).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rules:
    """Requirements of a record; the defaults are those of a data set.

    Attributes:
        ids: whether `id` must be an integer or a string; otherwise any value is
            accepted, and `img` replaces a missing one.
        labels: whether `label` is read; otherwise every label is unknown.
        captions: whether `text` is required; otherwise it defaults to "".
        confined: whether `img` must be a path below the root; otherwise it may lie
            anywhere.
    """

    ids: bool = True
    labels: bool = True
    captions: bool = True
    confined: bool = True


DATASET = Rules()


def prediction_rules(*, captions: bool) -> Rules:
    """Rules of memes to predict on, whose `text` may be optional."""
    return Rules(ids=False, labels=False, captions=captions, confined=False)


def read_jsonl(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str],
    split: str,
    rules: Rules = DATASET,
) -> tuple[list[Meme], list[BadRecord]]:
    """Read one jsonl file; the images are not opened.

    `label` is 0, 1, "0" or "1"; absent or null, it is unknown. `id` is an integer or
    a string. `text` may be empty. Blank lines are skipped.

    Args:
        path: the file.
        root: the folder that `img` is relative to.
        split: the value of `Meme.split`.
        rules: requirements of a record.

    Returns:
        (memes, bad records), each in the order of the file.
    """
    memes: list[Meme] = []
    bad: list[BadRecord] = []
    name = os.path.basename(path)
    root = os.path.realpath(root) if rules.confined else os.path.abspath(root)
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            meme_id = None
            try:
                record = _parse(line)
                if rules.ids:
                    meme_id = _id(record)
                img = _img(record, rules)
                if meme_id is None:
                    meme_id = _any_id(record, img)
                text = _text(record, rules, img)
                label = _label(record) if rules.labels else -1
                image = _path_below(root, record) if rules.confined else None
            except _RecordError as error:
                bad.append(BadRecord(name, number, meme_id, str(error)))
                continue
            image = image or os.path.abspath(os.path.join(root, img))
            memes.append(Meme(meme_id, image, text, label, split, name, number))
    return memes, bad


class _RecordError(Exception):
    """Reason why the record on the current line is unusable."""


def _parse(line: bytes) -> dict:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _RecordError(
            f"is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    try:
        record = strict_json.loads(text)
    except ValueError as error:
        raise _RecordError(f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise _RecordError(
            f"is {type(record).__name__} {text.strip()!r:.80}, expected a JSON object"
        )
    return record


def _string(record: dict, name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise _RecordError(f"{name} is {value!r:.80}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON may escape half of a surrogate pair; no tokenizer accepts that.
        raise _RecordError(
            f"{name} is not valid Unicode (half a surrogate pair)"
        ) from None
    return value


def _id(record: dict) -> str:
    if "id" not in record:
        raise _RecordError("field 'id' is missing")
    value = record["id"]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise _RecordError(f"id is {value!r:.80}, expected an integer or a string")
    return _string(record, "id")


def _any_id(record: dict, img: str) -> str:
    """Return an `id` of any kind as text, by default the picture's path."""
    value = img if record.get("id") is None else str(record["id"])
    return _string({"id": value}, "id")


def _label(record: dict) -> int:
    value = record.get("label")
    if value is None:
        return -1
    if (type(value) is int and value in (0, 1)) or value in ("0", "1"):
        return int(value)
    raise _RecordError(
        f"label is {value!r:.80}, expected 0 (not hateful), 1 (hateful), or no label"
    )


def _img(record: dict, rules: Rules) -> str:
    """Return `img` as written; `_path_below` checks that it is below the root."""
    if rules.confined:
        if "img" not in record:
            raise _RecordError("field 'img' is missing")
        return record["img"]
    img = record.get("img")
    if not isinstance(img, str) or not img or "\0" in img:
        raise _RecordError(f"img is {img!r:.80}, expected the path of a picture")
    return img


def _text(record: dict, rules: Rules, img: str) -> str:
    if "text" not in record:
        if not rules.captions:
            return ""
        if rules.ids:
            raise _RecordError("field 'text' is missing")
    if not rules.ids and record.get("text") is None:
        # A meme without an id is named by its picture.
        raise _RecordError(
            f'{img} has no caption: give it "text", "" if it has no words'
        )
    return _string(record, "text")


def _path_below(root: str, record: dict) -> str:
    """Return the real path of the image; `root` is a real path itself."""
    img = _string(record, "img")
    if not img or "\0" in img:
        raise _RecordError(f"img is {img!r}, expected a path below the data folder")
    if os.path.isabs(img):
        raise _RecordError(
            f"img {img!r} is absolute, expected a path below the data folder"
        )
    path = os.path.realpath(os.path.join(root, img))
    if os.path.commonpath([root, path]) != root:
        raise _RecordError(f"img {img!r} leads outside the data folder (to {path})")
    return path
