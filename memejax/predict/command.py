"""The work of `python -m memejax.predict`."""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from memejax import decisions, logs, parallel
from memejax.data import inputs, ocr, pdq
from memejax.data.inputs import Item, Source
from memejax.data.known_memes import KnownMemes
from memejax.data.records import Meme
from memejax.errors import UserError
from memejax.predict import ray_pool
from memejax.predict.explain import load_explainer, write_pages
from memejax.predict.load import load_moderator
from memejax.predict.moderator import Known, Moderator, batched, stream
from memejax.predict.outputs import RowWriter, check_output
from memejax.predict.rows import Row

# Seconds between two lines of progress.
PROGRESS = 10.0


def predict(options: argparse.Namespace) -> None:
    """Predict the memes given by the arguments, and print or write what is found."""
    parallel.keep_compiled()
    if options.image is not None:
        _predict_one(options)
    else:
        _predict_many(options)


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `load_moderator`."""
    return {
        # An actor of Ray has another working folder.
        "workdir": os.path.abspath(options.workdir),
        "seed": options.seed,
        "arm": options.arm,
        "rule": options.rule,
        "certify": options.certify,
        "known": _known(options),
        "prevalence": options.prevalence,
        "captions_cache": ocr.default_cache(),
    }


def _known(options: argparse.Namespace) -> Known | None:
    if options.known is None:
        return None
    pdq.require()
    memes = KnownMemes.load(options.known)
    return Known(memes, options.same_words, options.known_decides)


def _predict_one(options: argparse.Namespace) -> None:
    """Print what is said of one meme."""
    moderator = load_moderator(**_arguments(options))
    name = os.path.basename(options.image)
    item = Item(name, os.path.abspath(options.image), options.text)
    (row,) = moderator.rows([item])
    if row.error:
        raise UserError(f"{row.id}: {row.error}")
    if options.text is None and moderator.predictor.modalities != "image":
        logs.say(f"caption read: {row.caption or '(no words)'}")
    _say(row, moderator)
    _explain(options, [item], [row], moderator)


def _say(row: Row, moderator: Moderator) -> None:
    """Print what a row has."""
    if row.matched:
        logs.say(f"matches the known meme {row.matched}")
    if row.proba is None or row.raw_proba is None:
        logs.say(f"{row.decision} by the list of known memes")
        return
    decision = moderator.decision
    if decision is None:
        logs.say(f"P(hateful) {row.proba:.4f}, not calibrated")
        logs.say(f"{row.decision} at 0.5{_at_dev(moderator, [row.raw_proba])}")
    else:
        logs.say(f"P(hateful) {row.proba:.4f}, calibrated from {row.raw_proba:.4f}")
        logs.say(f"{row.decision} by {_rule_text(decision)}")


def _predict_many(options: argparse.Namespace) -> None:
    """Write a row for each meme of the input."""
    check_output(options.output)
    source = inputs.open_source(options.input, captions=options.captions, say=logs.say)
    if options.ray is not None:
        ray_pool.connect(options.ray)
    arguments = _arguments(options)
    moderator = load_moderator(**arguments)
    made_by = _made_by(options, moderator)
    writer = RowWriter(options.output, made_by=made_by, excel=options.excel)
    if options.strict:
        _check(source, moderator)
    asked: list[Item] = []
    items = _left(source, writer)
    if options.explain is not None:
        items = _recorded(items, asked)
    if writer.ids:
        logs.say(f"{len(writer.ids)} rows are there already: going on")
    began = last = time.monotonic()
    done = 0
    if options.ray is None:
        parts = stream(_for(source, moderator), items)
    else:
        parts = ray_pool.stream(arguments, items, actors=options.actors)
    written: list[Row] = []
    for found in parts:
        writer.write(found)
        if options.explain is not None:
            written += found
        done += len(found)
        now = time.monotonic()
        if now - last > PROGRESS:
            logs.say(_progress(done, len(writer.ids), source.total, now - began))
            last = now
    counts = writer.finish()
    logs.say(
        _summary(counts, moderator, options.output, time.monotonic() - began, done)
    )
    _explain(options, asked, written, moderator)


def _recorded(items: Iterable[Item], into: list[Item]) -> Iterator[Item]:
    """Yield items, and keep them."""
    for item in items:
        into.append(item)
        yield item


def _explain(
    options: argparse.Namespace,
    items: Sequence[Item],
    rows: Sequence[Row],
    moderator: Moderator,
) -> None:
    """Write a page for each meme that the network has scored, if asked for."""
    if options.explain is None:
        return
    memes, verdicts = [], []
    by = "at 0.5" if moderator.decision is None else f"by {moderator.decision.rule}"
    for item, row in zip(items, rows, strict=True):
        if row.proba is not None and item.picture is not None:
            # A content in place of a path is decoded as well.
            picture = cast(str, item.picture)
            memes.append(Meme(row.id, picture, row.caption, -1, "", "", 0))
            verdicts.append(f"{row.decision} {by}, P(hateful) {row.proba:.4f}")
    explainer = load_explainer(options.workdir, seed=int(options.seed), arm=options.arm)
    logs.say(f"explaining {len(memes)} memes; the first takes the longest")
    index = write_pages(options.explain, explainer, memes=memes, verdicts=verdicts)
    logs.say(f"why: {index}")


def _for(source: Source, moderator: Moderator) -> Moderator:
    """Return the moderator whose calls suit the number of memes."""
    if source.total is not None and source.total <= moderator.predictor.batch // 2:
        return moderator
    return moderator.for_many()


def _check(source: Source, moderator: Moderator) -> None:
    """Raise BadRecordsError if any item cannot be predicted, listing them all."""
    errors: dict[str, str] = {}
    for part in batched(source.items()):
        errors |= moderator.errors(part)
    inputs.refuse(errors, source.name)


def _left(source: Source, writer: RowWriter) -> Iterator[Item]:
    """Return the items whose rows are not there yet."""
    items = source.items()
    for place, name in enumerate(writer.ids, start=1):
        item = next(items, None)
        if item is None or item.id != name:
            found = "has ended" if item is None else f"has {item.id!r}"
            raise UserError(
                f"{writer.part} is of other memes: its row {place} is of {name!r}, "
                f"where {source.name} {found}; delete it to begin again"
            )
    return items


def _made_by(options: argparse.Namespace, moderator: Moderator) -> dict[str, Any]:
    """Return what a row depends on, besides its meme."""
    results = pathlib.Path(options.workdir) / "results.json"
    decision = moderator.decision
    return {
        "results": _digest(results),
        "seed": options.seed,
        "arm": options.arm,
        "decision": None if decision is None else decision.as_json(),
        "prevalence": options.prevalence,
        "known": _digest(options.known),
        "same_words": options.same_words,
        "known_decides": options.known_decides,
    }


def _digest(path: str | os.PathLike[str] | None) -> str | None:
    """Return the SHA-256 of a file; None without one."""
    if path is None:
        return None
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _progress(done: int, before: int, total: int | None, seconds: float) -> str:
    rate = done / seconds
    line = f"predict {before + done}"
    if total is None:
        return f"{line}  {rate:.1f} memes/s"
    left = (total - before - done) / rate
    share = 100 * (before + done) / total
    return f"{line}/{total}  {share:3.0f}%  {rate:.1f} memes/s  ETA {logs.clock(left)}"


def _summary(
    counts: collections.Counter[str],
    moderator: Moderator,
    output: str,
    seconds: float,
    done: int,
) -> str:
    """Describe the rows of a file."""
    decision = moderator.decision
    line = f"{counts[decisions.HATEFUL]} of {counts.total()} hateful"
    if decision is not None and decision.abstain is not None:
        line += f", {counts[decisions.REVIEW]} for a person"
    line += f" by {_rule_text(decision)}" if decision else " at 0.5, not calibrated"
    if counts[""]:
        line += f"; {counts['']} cannot be predicted, see their column error"
    return f"{line}; in {output} ({done / max(seconds, 1e-9):.1f} memes/s)"


def _rule_text(decision: decisions.Decision) -> str:
    return f"{decision.rule}, at a threshold of {decision.certified.threshold:.4f}"


def _at_dev(moderator: Moderator, proba: Sequence[float]) -> str:
    """Describe the decision at the threshold chosen on the dev split."""
    threshold = moderator.predictor.threshold
    if threshold is None:
        return ""
    decision = "hateful" if proba[0] > threshold else "not hateful"
    return f", {decision} at the dev split's threshold of {threshold:.4f}"
