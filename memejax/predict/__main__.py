"""The command line of `python -m memejax.predict`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from memejax import atomic, command_line, decisions, logs, metrics
from memejax.data import images
from memejax.data.captions import CAPTIONS
from memejax.data.hateful_memes import Meme
from memejax.errors import UserError, reported, user_errors
from memejax.metrics import AVERAGE
from memejax.predict import memes as sources
from memejax.predict.predictor import Predictor, load_predictor

# Pictures decoded at once, 80 MB at 224 pixels.
CHUNK = 512


def main(argv: Sequence[str] | None = None) -> None:
    """Predict the memes given by the arguments."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.image is None and options.text is not None:
        parser.error("--text goes with --image")
    if options.input is None and options.captions is not None:
        parser.error("--captions goes with --input")
    if options.excel and options.output is None:
        parser.error("--excel goes with --output")
    if (options.input is None) != (options.output is None):
        parser.error("--input and --output go together")
    command_line.prepare()
    with reported():
        _predict(options)


def _predict(options: argparse.Namespace) -> None:
    """Predict, and print or write the result."""
    # Files, folders and names are the user's.
    with user_errors():
        if options.output is not None:
            atomic.check_target(options.output)
        predictor = load_predictor(options.workdir, seed=options.seed, arm=options.arm)
        memes = _memes(options, predictor.modalities != "image")
        rule = decisions.read(options.workdir)
    proba = predict_memes(predictor, memes)
    if rule is not None and (rule.arm, rule.seeds) != (
        options.arm,
        (str(options.seed),),
    ):
        logs.say(
            f"the run's decision.json is of {rule.arm} of seed "
            f"{', '.join(rule.seeds)}: not used"
        )
        rule = None
    if options.output is None:
        if rule is None:
            decision = "hateful" if proba[0] > 0.5 else "not hateful"
            logs.say(f"P(hateful) {proba[0]:.4f}")
            logs.say(f"{decision} at 0.5{_at_dev(predictor, proba)}")
        else:
            calibrated = rule.calibration.apply(proba)
            logs.say(f"P(hateful) {calibrated[0]:.4f}, calibrated from {proba[0]:.4f}")
            logs.say(f"{rule.decide(calibrated)[0]} by {_rule_text(rule)}")
        return
    ids = [meme.id for meme in memes]
    if options.excel:
        ids = [_quoted(one) for one in ids]
    metrics.write_predictions(options.output, ids, proba=proba)
    if rule is None:
        found = f"{int((proba > 0.5).sum())} of {len(memes)} hateful at 0.5"
        found += _at_dev(predictor, proba)
    else:
        decided = rule.decide(rule.calibration.apply(proba))
        found = f"{int((decided == decisions.HATEFUL).sum())} of {len(memes)} hateful"
        if rule.abstain is not None:
            found += f", {int((decided == decisions.REVIEW).sum())} for a person"
        found += f" by {_rule_text(rule)}"
    logs.say(f"{found}; probabilities, not calibrated, in {options.output}")


def _quoted(text: str) -> str:
    """Put a ' before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def predict_memes(predictor: Predictor, memes: Sequence[Meme]) -> np.ndarray:
    """Compute P(hateful) of memes on disk, one chunk at a time.

    Args:
        predictor: from a finished run.
        memes: n memes.

    Returns:
        float64 [n].

    Raises:
        BadRecordsError: if any picture cannot be read (all are listed); nothing is
            predicted then.
        UserError: if a probability is not finite.
    """
    paths = [meme.image for meme in memes]
    errors = images.check_all(paths, max_pixels=predictor.max_pixels)
    sources.refuse_unreadable(memes, errors)
    proba = []
    for start in range(0, len(memes), CHUNK):
        part = memes[start : start + CHUNK]
        pictures, wrong = predictor.read([meme.image for meme in part])
        sources.refuse_unreadable(part, wrong)
        proba.append(predictor.predict(pictures, [meme.text for meme in part]))
    found = np.concatenate(proba)
    if not np.isfinite(found).all():
        # Weights are finite, or they would not have been restored.
        first = memes[int(np.argmin(np.isfinite(found)))]
        raise UserError(
            f"the network gives {first.id} no finite probability: its weights are of "
            "another size than it can compute with"
        )
    return found


def _memes(options: argparse.Namespace, captions: bool) -> list[Meme]:
    """Return the memes given by the arguments."""
    if options.image is not None:
        if options.text is None and captions:
            raise ValueError(
                f'{options.image} has no caption: give --text, "" if it has no words'
            )
        path, name = os.path.abspath(options.image), os.path.basename(options.image)
        return [Meme(name, path, options.text or "", -1, "", name, 0)]
    if os.path.isdir(options.input):
        return sources.from_folder(
            options.input, captions_file=options.captions, captions=captions
        )
    if options.captions is not None:
        raise ValueError(
            f"--captions goes with a folder of pictures; {options.input} is none"
        )
    return sources.from_jsonl(options.input, captions=captions)


def _rule_text(rule: decisions.Decision) -> str:
    return f"{rule.rule}, at a threshold of {rule.certified.threshold:.4f}"


def _at_dev(predictor: Predictor, proba: np.ndarray) -> str:
    """Describe the decision at the threshold chosen on the dev split."""
    if predictor.threshold is None:
        return ""
    above = proba > predictor.threshold
    decision = f"{int(above.sum())} of them"
    if len(proba) == 1:
        decision = "hateful" if above[0] else "not hateful"
    return f", {decision} at the dev split's threshold of {predictor.threshold:.4f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m memejax.predict",
        description="P(hateful) of a meme, or of many, by a finished run.",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="the run's folder"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="one of its seeds (default: %(default)s)",
    )
    parser.add_argument(
        "--arm",
        default=AVERAGE,
        metavar="NAME",
        help="one arm alone (default: %(default)s, of all arms)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="FILE", help="a picture")
    what.add_argument(
        "--input",
        metavar="PATH",
        help='a file with one {"img", "text"} per line, or a folder of pictures',
    )
    parser.add_argument("--text", help="with --image: the picture's caption")
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help='with a folder as --input: its captions, one {"img", "text"} per line '
        f"(default: its {CAPTIONS})",
    )
    parser.add_argument(
        "--excel",
        action="store_true",
        help="with --output: put a ' before ids that a spreadsheet would run as a "
        "formula",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="with --input: a CSV file to write: id,proba,label",
    )
    return parser


if __name__ == "__main__":
    main()
