"""Keep a list of known memes, and find them again by the hash of the picture.

    python -m memejax.known add --list=LIST --image=PICTURE --text=... --label=hateful
    python -m memejax.known match --list=LIST --input=memes.jsonl
    python -m memejax.known info LIST

A picture matches a known one if their PDQ hashes differ in at most 31 of 256 bits and,
with --same-words, their captions are equal but for a few slips of reading. No network
is run and no run is needed: a meme that is added is found from the next look on. `data.
known_memes` has the rules, `data.known_file` the format of the list.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from memejax import atomic
from memejax.data import known_memes, pdq
from memejax.data.hateful_memes import normalise_caption
from memejax.data.inputs import Item, open_source
from memejax.data.known_file import BENIGN, HATEFUL, HEADER, LABELS, KnownMeme
from memejax.data.known_memes import KnownMemes
from memejax.data.records import BadRecord, BadRecordsError
from memejax.data.same_words import MAX_EDITS, check_max_edits
from memejax.errors import printable, reported, user_errors

COLUMNS = ("id", "known", "distance", "label", "note")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the arguments describe."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command != "info":
        for name, value in vars(options).items():
            if name in ("text", "id") and options.image is None and value is not None:
                parser.error(f"--{name} goes with --image")
        if options.command == "add" and options.image and options.label is None:
            parser.error("--image takes --label")
    with reported(), user_errors():
        {"add": _add, "match": _match, "info": _info}[options.command](options)


def _add(options: argparse.Namespace) -> None:
    """Hash pictures and put them on the list."""
    atomic.check_target(os.path.realpath(options.list))
    memes = _given(options)
    labels = [options.label or (BENIGN, HATEFUL, None)[meme.label] for meme in memes]
    _refuse(
        {
            meme.id: meme.error or "has no label: give --label"
            for meme, label in zip(memes, labels, strict=True)
            if meme.error is not None or label is None
        }
    )
    hashes, qualities, errors = pdq.compute_all([meme.picture or "" for meme in memes])
    _refuse({memes[i].id: f"picture {e}" for i, e in sorted(errors.items())})
    given, both = _unique(
        KnownMeme(
            id=options.prefix + meme.id,
            pdq=pdq.to_hex(bits),
            quality=quality,
            caption=normalise_caption(meme.caption or ""),
            label=label or "",
            note=options.note,
            added=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        for meme, bits, quality, label in zip(
            memes, hashes, qualities.tolist(), labels, strict=True
        )
    )
    with known_memes.changing(options.list) as known:
        counts = Counter(known.add(meme) for meme in given)
    plain = int((qualities < pdq.MIN_QUALITY).sum())
    _say(
        f"{counts[known_memes.ADDED]} added, {counts[known_memes.PRESENT]} there "
        f"already, {counts[known_memes.RELABELLED]} given the other label; "
        f"{len(known)} known memes in {options.list}"
    )
    if len(given) < len(memes):
        _say(
            f"{len(memes) - len(given)} pictures are copies of others here, hash and "
            f"caption; {both} of them have both labels, and count as {HATEFUL}"
        )
    if plain:
        _say(
            f"{plain} of these pictures are too plain (quality below "
            f"{pdq.MIN_QUALITY}) and will match nothing"
        )


def _unique(memes: Iterable[KnownMeme]) -> tuple[list[KnownMeme], int]:
    """Leave out copies of the same meme; of two labels, hateful counts.

    So that the same input, given again, changes nothing.

    Returns:
        (memes, how many have both labels).
    """
    first: dict[tuple[str, str], KnownMeme] = {}
    both = set()
    for meme in memes:
        old = first.setdefault(meme.key, meme)
        if old.label != meme.label:
            both.add(meme.key)
            first[meme.key] = replace(old, label=HATEFUL)
    return list(first.values()), len(both)


def _match(options: argparse.Namespace) -> None:
    """Look pictures up in the list, and print or write a row for each."""
    if options.output is not None:
        atomic.check_target(options.output)
    check_max_edits(options.max_edits)
    known = KnownMemes.load(options.list)
    memes = _given(options)
    # An empty path is a picture that cannot be read.
    hashes, qualities, errors = pdq.compute_all([meme.picture or "" for meme in memes])
    matches = known.match(
        hashes,
        [meme.caption or "" for meme in memes],
        qualities=qualities,
        max_distance=options.max_distance,
        same_words=options.same_words,
        max_edits=options.max_edits,
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, (meme, match) in enumerate(zip(memes, matches, strict=True)):
        note = ""
        if i in errors:
            note = meme.error or errors[i].reason
        elif qualities[i] < pdq.MIN_QUALITY:
            note = f"too plain to match: quality {qualities[i]}"
        writer.writerow([meme.id, *(match or ("", "", "")), note])
    if options.output is None:
        print(printable(text.getvalue()), end="")
        return
    atomic.write_text(options.output, text.getvalue())
    labels = Counter(match.label for match in matches if match is not None)
    found = ", ".join(f"{labels[label]} {label}" for label in LABELS)
    _say(f"{labels.total()} of {len(memes)} known ({found}); in {options.output}")
    if errors:
        _say(f"{len(errors)} pictures cannot be read: see the column note")


def _info(options: argparse.Namespace) -> None:
    """Print the figures of a list."""
    known = KnownMemes.load(options.list)
    _say(f"{options.list}: version {HEADER['version']}, hash {HEADER['hash']}")
    for name, count in known.summary().items():
        _say(f"{count:>9,}  {name}")


def _given(options: argparse.Namespace) -> list[Item]:
    """Return the memes that the arguments name."""
    if options.input is not None:
        return list(open_source(options.input, say=_note).items())
    path, name = os.path.abspath(options.image), os.path.basename(options.image)
    return [Item(getattr(options, "id", None) or name, path, options.text or "")]


def _refuse(reasons: Mapping[str, str]) -> None:
    """Raise BadRecordsError for memes that cannot be used (id -> reason)."""
    bad = [BadRecord(name, 0, name, reason) for name, reason in reasons.items()]
    if bad:
        raise BadRecordsError("nothing added", bad)


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _note(line: str) -> None:
    # Standard output has rows.
    print(printable(line), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m memejax.known",
        description="Keep a list of known memes, and find them again by the hash of "
        "the picture.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser(
        "add",
        help="put memes on the list, which is made if missing",
        description="Put memes on a list. One with the same hash and caption as a meme "
        "of the list is not added again; another label replaces the one it has.",
    )
    _takes_pictures(add)
    add.add_argument(
        "--label",
        choices=LABELS,
        help="of every picture (default, with --input: the labels of the lines)",
    )
    add.add_argument("--id", help="with --image (default: the picture's name)")
    add.add_argument("--prefix", default="", metavar="TEXT", help="put before every id")
    add.add_argument("--note", default="", metavar="TEXT", help="kept with every meme")
    match = commands.add_parser(
        "match",
        help="look pictures up in the list",
        description="Print a CSV row for each picture: id, and of the nearest known "
        "meme the id (known), the distance in bits and the label, all empty if none is "
        "near enough; note says why a picture could not be looked up.",
    )
    _takes_pictures(match)
    match.add_argument("--output", metavar="FILE", help="write the rows to a file")
    match.add_argument(
        "--max-distance",
        type=int,
        default=pdq.MAX_DISTANCE,
        metavar="BITS",
        help="the largest distance of a match (default: %(default)s of 256)",
    )
    match.add_argument(
        "--same-words",
        action="store_true",
        help="a match has the same caption too, but for --max-edits",
    )
    match.add_argument(
        "--max-edits",
        type=float,
        default=MAX_EDITS,
        metavar="SHARE",
        help="edited characters over those of the longer caption, 0 for equal captions "
        "(default: %(default)s)",
    )
    info = commands.add_parser("info", help="print the figures of a list")
    info.add_argument("list", metavar="LIST", help="the list")
    return parser


def _takes_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the list and the pictures to a subcommand's arguments."""
    parser.add_argument("--list", required=True, metavar="LIST", help="the list's file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="FILE", help="a picture")
    what.add_argument(
        "--input",
        metavar="PATH",
        help="a folder of pictures, with the captions of its captions.jsonl; a jsonl, "
        "CSV or parquet file with img, and perhaps id, text and label; -: paths or "
        "JSON on standard input",
    )
    parser.add_argument("--text", help="with --image: the picture's caption")


if __name__ == "__main__":
    main()
