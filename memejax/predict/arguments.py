"""The arguments of `python -m memejax.predict`."""

from __future__ import annotations

import argparse

from memejax.data.captions import CAPTIONS
from memejax.data.inputs import STDIN
from memejax.metrics import AVERAGE
from memejax.predict.rows import FIELDS

# Address of a Ray cluster that is started on this machine.
LOCAL = "local"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; what goes with what is checked by the command."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.predict",
        description="P(hateful) of a meme, or of many, by a finished run.",
    )
    add = parser.add_argument
    add("--workdir", required=True, metavar="RUN", help="the run's folder")
    add(
        "--seed",
        default="0",
        metavar="N",
        help='one of its seeds, or "all" for their mean (default: %(default)s)',
    )
    add(
        "--arm",
        default=AVERAGE,
        metavar="NAME",
        help="one arm alone (default: %(default)s, of all arms)",
    )
    _add_memes(parser)
    _add_output(parser)
    _add_decision(parser)
    return parser


def _add_memes(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the memes."""
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="FILE", help="a picture")
    what.add_argument(
        "--input",
        metavar="PATH",
        help="a folder of pictures; a jsonl, CSV or parquet file with img (path, or "
        f'content), and perhaps id and text; "{STDIN}": paths or JSON on standard '
        "input",
    )
    add(
        "--text",
        help="with --image: its caption (default: read off the picture)",
    )
    add(
        "--captions",
        metavar="FILE",
        help='with a folder as --input: its captions, one {"img", "text"} per line '
        f"(default: its {CAPTIONS}; those that are missing are read off the pictures)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what is written, and by how many."""
    add = parser.add_argument
    add(
        "--output",
        metavar="FILE",
        help="with --input: a .csv, .jsonl or .parquet file to write: "
        f"{','.join(FIELDS)}; an interrupted prediction goes on",
    )
    add(
        "--strict",
        action="store_true",
        help="with --input: predict nothing if a meme cannot be predicted, in place of "
        "a row with its error",
    )
    add(
        "--excel",
        action="store_true",
        help="with --output: put a ' before texts that a spreadsheet would run as a "
        "formula",
    )
    add(
        "--explain",
        metavar="DIR",
        help="write a page for each meme that says why: words, regions, what picture "
        "and caption add together, the nearest training memes",
    )
    add(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="with --input: predict by a pool of Ray actors on this machine, or on the "
        "cluster at this address (extra ray)",
    )
    add(
        "--actors",
        type=int,
        default=1,
        metavar="N",
        help="with --ray: their number (default: %(default)s)",
    )


def _add_decision(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what decides."""
    add = parser.add_argument
    add(
        "--rule",
        help="decide by this rule in place of the run's decision.json, see python -m "
        "memejax.decide",
    )
    add("--certify", metavar="SPLIT", help="with --rule: find its threshold on it")
    add(
        "--known",
        metavar="LIST",
        help="look pictures up in a list of python -m memejax.known",
    )
    add(
        "--same-words",
        action="store_true",
        help="with --known: a match has the same caption too",
    )
    add(
        "--known-decides",
        action="store_true",
        help="with --known: the label of a match decides, and the network is not run",
    )
    add(
        "--prevalence",
        type=float,
        metavar="P",
        help="share of hateful memes where this is used: shifts the calibrated "
        "probabilities, and leaves the decisions",
    )
