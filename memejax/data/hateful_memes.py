"""Memes on disk in the layout of the Hateful Memes challenge.

    ROOT/img/42953.png          any name and format; the records point to it
    ROOT/train.jsonl            one {"id", "img", "label", "text"} per line
    ROOT/dev_seen.jsonl ...     any of SPLITS

`python -m memejax.data.hateful_memes check ROOT` prints a summary of such a folder
and every unusable record.
"""

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from memejax.data.images import MAX_PIXELS, Progress, check_all
from memejax.data.records import BadRecord as BadRecord
from memejax.data.records import BadRecordsError as BadRecordsError
from memejax.data.records import Meme as Meme
from memejax.data.records import read_jsonl as read_jsonl
from memejax.errors import UserError

# The last three are the names of the challenge's first phase.
SPLITS = (
    "train",
    "dev_seen",
    "dev_unseen",
    "test_seen",
    "test_unseen",
    "dev",
    "test",
)


class MissingDataError(UserError, FileNotFoundError):
    """Missing data folder, split or file."""


@dataclass(frozen=True)
class Memes:
    """Result of `read`: the usable memes of each split, and the records left out."""

    splits: dict[str, list[Meme]]
    bad: list[BadRecord] = field(default_factory=list)


def id_key(meme_id: str) -> str:
    """Return an id in canonical form: "00123" and "123" are the same meme."""
    if meme_id.isascii() and meme_id.isdigit():
        return meme_id.lstrip("0") or "0"
    return meme_id


def find_splits(root: str) -> dict[str, str]:
    """Find the split files of a data folder.

    Args:
        root: the folder with `train.jsonl` and its like.

    Returns:
        {name: path} in the order of SPLITS.

    Raises:
        MissingDataError: if there is no such folder, or none of the files in it.
    """
    if not os.path.isdir(root):
        raise MissingDataError(f"no data folder {root!r}")
    found = {name: os.path.join(root, f"{name}.jsonl") for name in SPLITS}
    found = {name: path for name, path in found.items() if os.path.lexists(path)}
    for path in found.values():
        if not os.path.isfile(path):
            raise MissingDataError(f"{path} is not a file: a folder, a pipe or a link")
    if found:
        return found
    # The archives of the challenge unpack into a folder (data/ in one release,
    # hateful_memes/ in another): a common mistake is to give its parent.
    inner = sorted(
        entry.path
        for entry in os.scandir(root)
        if entry.is_dir()
        and any(os.path.isfile(os.path.join(entry.path, f"{s}.jsonl")) for s in SPLITS)
    )
    hint = f"; did you mean {' or '.join(map(repr, inner))}?" if inner else ""
    raise MissingDataError(
        f"no split file in {root!r}: looked for "
        f"{', '.join(f'{name}.jsonl' for name in SPLITS)}{hint}"
    )


def _image_reasons(
    memes: Iterable[Meme],
    *,
    max_pixels: int,
    full: bool,
    threads: int | None,
    progress: Progress | None,
) -> dict[str, str]:
    """Reasons of the unusable images, by path."""
    paths = sorted({meme.image for meme in memes})
    if not full:
        return {path: "is missing" for path in paths if not os.path.isfile(path)}
    errors = check_all(paths, max_pixels=max_pixels, threads=threads, progress=progress)
    return {paths[place]: error.reason for place, error in errors.items()}


def _without_duplicates(memes: list[Meme]) -> tuple[list[Meme], list[BadRecord]]:
    first: dict[str, Meme] = {}
    kept, duplicates = [], []
    for meme in memes:
        earlier = first.setdefault(id_key(meme.id), meme)
        if earlier is meme:
            kept.append(meme)
            continue
        reason = f"id {meme.id} is already used on line {earlier.line}"
        duplicates.append(BadRecord(meme.file, meme.line, meme.id, reason))
    return kept, duplicates


def collect(
    paths: dict[str, str],
    *,
    root: str,
    max_pixels: int,
    check_images: bool,
    threads: int | None,
    progress: Progress | None,
    read_caption: Callable[[str], str] | None = None,
) -> tuple[dict[str, list[Meme]], list[BadRecord], dict[str, list[str]]]:
    """Read the files, check the pictures, and leave out unusable records.

    Args:
        paths: split -> jsonl file.
        root: the data folder.
        max_pixels: larger pictures are refused.
        check_images: whether every picture is decoded; otherwise only its file must
            exist.
        threads: number of decoding threads; one per core if None.
        progress: called as `progress(done, total)`.
        read_caption: see `read_jsonl`.

    Returns:
        Usable memes by split, bad records in the order of the files, duplicate ids by
        split.
    """
    parsed = {
        split: read_jsonl(path, root=root, split=split, read_caption=read_caption)
        for split, path in paths.items()
    }
    reasons = _image_reasons(
        [meme for memes, _ in parsed.values() for meme in memes],
        max_pixels=max_pixels,
        full=check_images,
        threads=threads,
        progress=progress,
    )
    good: dict[str, list[Meme]] = {}
    bad: list[BadRecord] = []
    duplicate_ids: dict[str, list[str]] = {}
    real_root = os.path.realpath(root)
    for split, (memes, broken) in parsed.items():
        if not memes and not broken:
            broken = [BadRecord(f"{split}.jsonl", 0, None, "is empty: holds no memes")]
        usable = []
        for meme in memes:
            if meme.image not in reasons:
                usable.append(meme)
                continue
            shown = os.path.relpath(meme.image, real_root)
            reason = f"image {shown} {reasons[meme.image]}"
            broken.append(BadRecord(meme.file, meme.line, meme.id, reason))
        # Last, so that a record with a broken image does not displace a later usable
        # one with the same id.
        good[split], duplicates = _without_duplicates(usable)
        duplicate_ids[split] = [record.id or "" for record in duplicates]
        bad += sorted(broken + duplicates, key=lambda record: record.line)
    return good, bad, duplicate_ids


def read(
    root: str,
    *,
    splits: Sequence[str] | None = None,
    on_bad_record: str = "error",
    max_pixels: int = MAX_PIXELS,
    check_images: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    read_caption: Callable[[str], str] | None = None,
) -> Memes:
    """Read the splits of a data folder and check every record and image.

    An id may be in two splits (400 memes are both in dev_seen and in dev_unseen), but
    not twice in one. Ids of digits compare as numbers.

    Args:
        root: the folder with the jsonl files; no image may lie outside it.
        splits: names from SPLITS; all that exist if None.
        on_bad_record: "error" raises one error with all bad records of all splits;
            "skip" leaves them out and returns them. The first usable record of a
            duplicate id is kept.
        max_pixels: the largest width x height of an image, by its header.
        check_images: whether every image is decoded to its end; otherwise only its
            file must exist.
        threads: number of images checked at once; one per core if None.
        progress: called with (done, count) after each distinct image.
        read_caption: path of an image -> its caption, for records without `text`;
            None: they are bad records.

    Returns:
        Memes, in the order of the files.

    Raises:
        MissingDataError: if there is no such folder, or no file of a split.
        BadRecordsError: for bad records under "error"; a split without a usable meme.
        ValueError: for an unknown split or `on_bad_record`.
    """
    if on_bad_record not in ("error", "skip"):
        raise ValueError(
            f"on_bad_record is {on_bad_record!r}, expected 'error' or 'skip'"
        )
    found = find_splits(root)
    for split in splits if splits is not None else ():
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        if split not in found:
            raise MissingDataError(
                f"no split {split!r}: looked for {os.path.join(root, split)}.jsonl, "
                f"found {', '.join(found)}"
            )
    good, bad, _ = collect(
        {split: found[split] for split in (splits if splits is not None else found)},
        root=root,
        max_pixels=max_pixels,
        check_images=check_images,
        threads=threads,
        progress=progress,
        read_caption=read_caption,
    )
    empty = {f"{split}.jsonl" for split, memes in good.items() if not memes}
    fatal = bad if on_bad_record == "error" else [b for b in bad if b.file in empty]
    if fatal:
        raise BadRecordsError(root, fatal)
    return Memes(good, bad)


def write_bad_records(path: str, records: Iterable[BadRecord]) -> None:
    """Write bad records as jsonl, one {"file", "line", "id", "reason"} per line."""
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")


def normalise_caption(text: str) -> str:
    """Fold the case of a caption and collapse each run of whitespace to one space."""
    return " ".join(text.casefold().split())


def split_by_caption(
    memes: Sequence[Meme], *, fraction: float = 0.2, seed: int
) -> tuple[list[Meme], list[Meme]]:
    """Split memes so that no caption is on both sides.

    Hateful Memes is built from captions with several pictures, often with both labels:
    a split by rows leaks them. Groups of one caption are divided into strata (all 0,
    all 1, mixed, unlabelled), shuffled within each by a hash of seed and caption, and
    taken so that the validation share never differs from `fraction` by more than half
    of the largest group.

    Args:
        memes: rows of one or more splits. A meme without caption is its own group.
        fraction: of rows for validation, in (0, 1).
        seed: determines the choice, independent of the order of the rows.

    Returns:
        (train, validation), each in the order of `memes`.

    Raises:
        ValueError: if `fraction` is out of range, or one side would be empty.
    """
    _check_fraction(fraction)
    groups: dict[tuple[str, str], list[Meme]] = defaultdict(list)
    for meme in memes:
        caption = normalise_caption(meme.text)
        groups[caption, "" if caption else id_key(meme.id)].append(meme)

    def order(group: tuple[str, str]) -> tuple:
        labels = sorted({meme.label for meme in groups[group]})
        name = json.dumps([int(seed), *group]).encode()
        return labels, hashlib.sha256(name).digest()

    seen = taken = 0
    chosen: set[tuple[str, str]] = set()
    for group in sorted(groups, key=order):
        size = len(groups[group])
        seen += size
        # Taking it must bring the count closer to its target than leaving it.
        if fraction * seen - taken >= size / 2:
            chosen.add(group)
            taken += size
    if not 0 < taken < len(memes):
        raise ValueError(
            f"{len(memes)} memes with {len(groups)} different captions cannot be "
            f"split with {fraction} for validation: one side would be empty"
        )
    validation = {id(meme) for group in chosen for meme in groups[group]}
    return (
        [meme for meme in memes if id(meme) not in validation],
        [meme for meme in memes if id(meme) in validation],
    )


def split_randomly(
    memes: Sequence[Meme], *, fraction: float = 0.2, seed: int
) -> tuple[list[Meme], list[Meme]]:
    """Split memes at random, row by row, as is often published.

    The same caption may be on both sides: see `split_by_caption`.

    Args:
        memes: rows.
        fraction: of rows for validation, in (0, 1).
        seed: determines the choice, independent of the order of the rows.

    Returns:
        (train, validation), each in the order of `memes`.

    Raises:
        ValueError: if `fraction` is out of range, or one side would be empty.
    """
    _check_fraction(fraction)

    def order(row: int) -> bytes:
        name = json.dumps([int(seed), id_key(memes[row].id)]).encode()
        return hashlib.sha256(name).digest()

    taken = round(fraction * len(memes))
    if not 0 < taken < len(memes):
        raise ValueError(
            f"{len(memes)} memes cannot be split with {fraction} for validation: one "
            "side would be empty"
        )
    chosen = set(sorted(range(len(memes)), key=order)[:taken])
    return (
        [meme for row, meme in enumerate(memes) if row not in chosen],
        [meme for row, meme in enumerate(memes) if row in chosen],
    )


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}, expected more than 0, less than 1")


if __name__ == "__main__":
    from memejax.data import meme_check

    sys.exit(meme_check.main())
