"""The commands of `python -m memejax.data.hateful_memes`: check and caption."""

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from memejax.data.captions import CAPTIONS, caption_folder
from memejax.data.hateful_memes import MissingDataError, collect, find_splits, id_key
from memejax.data.images import MAX_PIXELS, Progress
from memejax.data.ocr import CaptionReader
from memejax.data.records import SHOWN, BadRecord, Meme
from memejax.errors import STATUS, printable


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of one split. Captions compare as written; empty ones do not count.

    Attributes:
        split: its name.
        n: number of usable memes.
        negatives, positives, unlabelled: of them.
        words_mean, words_p95, words_max: words per caption.
        empty_captions: memes without text.
        duplicate_ids: id of each record that repeats an earlier one.
        mixed_texts, mixed_rows: captions with both labels, and the memes with them.
        text_oracle: accuracy of always predicting the commoner label of a caption, the
            upper bound for text alone; None without labels.
        in_train: memes whose caption is in train too.
    """

    split: str
    n: int
    negatives: int
    positives: int
    unlabelled: int
    words_mean: float
    words_p95: float
    words_max: int
    empty_captions: int
    duplicate_ids: list[str]
    mixed_texts: int
    mixed_rows: int
    text_oracle: float | None
    in_train: int

    @property
    def majority(self) -> float | None:
        """Accuracy of a constant answer; None without labels."""
        labelled = self.negatives + self.positives
        return max(self.negatives, self.positives) / labelled if labelled else None


@dataclass(frozen=True)
class SharedIds:
    """Ids common to two splits; their labels agree, differ, or one is unknown."""

    first: str
    second: str
    n: int
    agree: int
    differ: int


@dataclass(frozen=True)
class CheckReport:
    """Report of `check`.

    Attributes:
        root: the data folder.
        splits: one summary per split.
        shared_ids: one entry for each pair of splits with ids in common.
        shared_images: {image, below root: ids of the different memes that use it}.
        bad: every unusable record.
    """

    root: str
    splits: list[SplitSummary]
    shared_ids: list[SharedIds]
    shared_images: dict[str, list[str]]
    bad: list[BadRecord]

    @property
    def warnings(self) -> list[str]:
        """Findings that are not errors, but spoil a result."""
        found = []
        for pair in self.shared_ids:
            names = f"{pair.first} and {pair.second}"
            if pair.first == "train":
                found.append(
                    f"{pair.n} ids are in both {names}: scores on {pair.second} "
                    "would be on memes trained on"
                )
            if pair.differ:
                found.append(f"{pair.differ} ids have different labels in {names}")
        return found

    def format(self) -> str:
        """Return the report as text."""
        out = [f"Memes in {self.root}", ""]
        out += _table(self.splits)
        for summary in self.splits:
            if summary.duplicate_ids:
                ids = ", ".join(summary.duplicate_ids)
                out += ["", f"Duplicate ids in {summary.split}: {ids}"]
        if self.shared_ids:
            out += ["", "Ids in two splits:"]
        for pair in self.shared_ids:
            unknown = pair.n - pair.agree - pair.differ
            out.append(
                f"  {pair.first} and {pair.second}: {pair.n} (label the same in "
                f"{pair.agree}, different in {pair.differ}, unknown in {unknown})"
            )
        if self.shared_images:
            out += ["", f"Images used by several memes: {len(self.shared_images)}"]
        for image, ids in list(self.shared_images.items())[:SHOWN]:
            out.append(f"  {image}: ids {', '.join(ids)}")
        if len(self.shared_images) > SHOWN:
            out.append(f"  ... and {len(self.shared_images) - SHOWN} more")
        out += ["", *(f"Warning: {text}" for text in self.warnings)]
        out.append(f"Bad records: {len(self.bad) or 'none'}")
        out += [f"  {record}" for record in self.bad]
        return "\n".join(out)


def _table(summaries: Sequence[SplitSummary]) -> list[str]:
    """Lines of a table with one column per split and one row per figure."""

    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows: list[tuple[str, Callable[[SplitSummary], str]]] = [
        ("", lambda s: s.split),
        ("memes", lambda s: str(s.n)),
        ("  label 0 (not hateful)", lambda s: str(s.negatives)),
        ("  label 1 (hateful)", lambda s: str(s.positives)),
        ("  no label", lambda s: str(s.unlabelled)),
        ("accuracy of a constant answer", lambda s: ratio(s.majority)),
        ("words per caption: mean", lambda s: f"{s.words_mean:.1f}"),
        ("  95 % have at most", lambda s: f"{s.words_p95:.0f}"),
        ("  most", lambda s: str(s.words_max)),
        ("empty captions", lambda s: str(s.empty_captions)),
        ("captions with both labels", lambda s: str(s.mixed_texts)),
        ("  memes with them", lambda s: str(s.mixed_rows)),
        ("best accuracy from text alone", lambda s: ratio(s.text_oracle)),
        (
            "memes whose caption is in train",
            lambda s: "-" if s.split == "train" else str(s.in_train),
        ),
    ]
    columns = [[get(summary) for _, get in rows] for summary in summaries]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for place, (title, _) in enumerate(rows):
        cells = (c[place].rjust(w) for c, w in zip(columns, widths, strict=True))
        lines.append(f"{title:<32}" + "  ".join(cells))
    return lines


def _summary(
    split: str, memes: Sequence[Meme], train: set[str], duplicate_ids: list[str]
) -> SplitSummary:
    counts = Counter(meme.label for meme in memes)
    words = [len(meme.text.split()) for meme in memes] or [0]
    by_text: dict[str, Counter[int]] = defaultdict(Counter)
    for meme in memes:
        if meme.label >= 0:
            by_text[meme.text][meme.label] += 1
    mixed = [c for text, c in by_text.items() if text.strip() and len(c) == 2]
    right = sum(max(labels.values()) for labels in by_text.values())
    labelled = counts[0] + counts[1]
    return SplitSummary(
        split=split,
        n=len(memes),
        negatives=counts[0],
        positives=counts[1],
        unlabelled=counts[-1],
        words_mean=float(np.mean(words)),
        words_p95=float(np.percentile(words, 95)),
        words_max=max(words),
        empty_captions=sum(not meme.text.strip() for meme in memes),
        duplicate_ids=duplicate_ids,
        mixed_texts=len(mixed),
        mixed_rows=sum(labels.total() for labels in mixed),
        text_oracle=right / labelled if labelled else None,
        in_train=sum(bool(m.text.strip()) and m.text in train for m in memes),
    )


def _shared_ids(splits: dict[str, list[Meme]]) -> list[SharedIds]:
    labels = {
        split: {id_key(meme.id): meme.label for meme in memes}
        for split, memes in splits.items()
    }
    found = []
    for (first, left), (second, right) in combinations(labels.items(), 2):
        pairs = [(left[key], right[key]) for key in left.keys() & right.keys()]
        known = [(a, b) for a, b in pairs if a >= 0 and b >= 0]
        agree = sum(a == b for a, b in known)
        if pairs:
            found.append(
                SharedIds(first, second, len(pairs), agree, len(known) - agree)
            )
    return found


def check(
    root: str,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check all splits of a data folder without raising for bad records.

    Args:
        root: the folder with the jsonl files.
        max_pixels: the largest width x height of an image, by its header.
        threads: number of images checked at once; one per core if None.
        progress: called with (done, count) after each distinct image.

    Returns:
        The report; figures are over the usable records.

    Raises:
        MissingDataError: if there is no such folder, or no split file in it.
    """
    splits, bad, duplicate_ids = collect(
        find_splits(root),
        root=root,
        max_pixels=max_pixels,
        check_images=True,
        threads=threads,
        progress=progress,
    )
    train = {meme.text for meme in splits.get("train", [])}
    users: dict[str, dict[str, str]] = defaultdict(dict)
    real_root = os.path.realpath(root)
    for memes in splits.values():
        for meme in memes:
            image = os.path.relpath(meme.image, real_root)
            users[image].setdefault(id_key(meme.id), meme.id)
    return CheckReport(
        root=root,
        splits=[
            _summary(split, memes, train, duplicate_ids[split])
            for split, memes in splits.items()
        ],
        shared_ids=_shared_ids(splits),
        shared_images={
            image: list(ids.values()) for image, ids in users.items() if len(ids) > 1
        },
        bad=bad,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0: clean, 1: bad records, 2: usage or no data."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.data.hateful_memes",
        description="Inspect a folder of memes, or read its captions off the pictures.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "check",
        help="summarise a data folder",
        description="Print how many memes each split has, which are in two splits, and "
        "which records are unusable. The exit status is 0 if all are usable, 1 if some "
        "are not, and 2 if there are no memes.",
    )
    command.add_argument("root", metavar="DIR", help="folder with train.jsonl ...")
    command.add_argument(
        "--max-pixels",
        type=_positive,
        default=MAX_PIXELS,
        metavar="N",
        help="largest width x height of an image (default: %(default)s)",
    )
    reads = commands.add_parser(
        "caption",
        help="read the captions of a folder of bare pictures",
        description="Write captions.jsonl for a folder of pictures, which python -m "
        "memejax.predict reads: one {img, text, confidence} per line, read off the "
        "pictures by RapidOCR (pip install 'memejax[ocr]'). Captions that the file has "
        "stay, so that an interrupted run goes on.",
    )
    reads.add_argument("root", metavar="DIR", help="folder of pictures")
    reads.add_argument(
        "--output", metavar="FILE", help=f"the file (default: DIR/{CAPTIONS})"
    )
    options = parser.parse_args(arguments)
    if options.command == "caption":
        return _caption(options.root, options.output)
    try:
        report = check(options.root, max_pixels=options.max_pixels)
    except MissingDataError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return STATUS
    print(printable(report.format()))
    return 1 if report.bad else 0


def _caption(folder: str, output: str | None) -> int:
    """Read captions; return 0: all pictures read, 1: not all, 2: no pictures."""
    try:
        errors = caption_folder(folder, reader=CaptionReader(), output=output)
    except ValueError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return STATUS
    for error in errors.values():
        print(printable(str(error)), file=sys.stderr)
    return 1 if errors else 0
