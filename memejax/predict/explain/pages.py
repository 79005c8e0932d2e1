"""Explanations as pages: one for each meme, and an index of them."""

from __future__ import annotations

import base64
import io
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from memejax import atomic
from memejax.data.records import Meme
from memejax.explain.overlay import enlarge, overlay
from memejax.predict.explain.explainer import Explainer
from memejax.predict.explain.explanation import (
    GRAD_CAM,
    INTEGRATED,
    OCCLUSION,
    Explanation,
    WordScores,
)
from memejax.report import blocks, render
from memejax.report.cells import Table
from memejax.report.memes import thumbnail

INDEX = "index.html"
# Memes explained at once: their pictures are in memory.
CHUNK = 64
# Completeness that integrated gradients should keep.
LARGEST_GAP = 0.01
# A map of regions tells more than its sum: only a gap as large as this is warned of.
ROUGH_GAP = 0.2
_WARNING = (
    "Memes may be offensive. Pictures and captions are blurred until you click them, "
    "or move to them with Tab and press Enter; the same covers them again."
)
_COLOURS = "Vermilion speaks for hateful, blue against it."
_ABOUT = {
    OCCLUSION: "Drop of the logit when a square around a place is covered by the "
    "picture's mean colour.",
    INTEGRATED: "Gradients of the logit by pixels, from a picture of the mean colour "
    "to this one, summed over squares.",
    GRAD_CAM: "Grad-CAM of the last feature map: what speaks for the call.",
}
_LABELS = {0: "not hateful", 1: "hateful"}


class Page(NamedTuple):
    """A written page: a line of the index."""

    meme_id: str
    file: str
    proba: str
    logit: str
    interaction: str
    verdict: str


def write_pages(
    folder: str | os.PathLike[str],
    explainer: Explainer,
    *,
    memes: Sequence[Meme],
    verdicts: Sequence[str] | None = None,
) -> pathlib.Path:
    """Explain memes on disk, and write a page for each and an index.

    Args:
        folder: of the pages; made if missing.
        explainer: of a run.
        memes: n memes, such as `predict` reads.
        verdicts: a sentence on the decision about each meme; None: its call at 0.5.

    Returns:
        Path of the index.

    Raises:
        ValueError: if a picture cannot be read.
    """
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    pages = []
    for start in range(0, len(memes), CHUNK):
        for found in explainer.explain(memes[start : start + CHUNK]):
            number = len(pages)
            verdict = verdicts[number] if verdicts else _call(found.proba)
            name = _file(number, found.meme.id)
            html = render.page(contents(found, explainer, verdict=verdict))
            atomic.write_text(path / name, html)
            pages.append(_line(found, name, verdict))
    index = render.explanations(
        f"Why: {len(pages)} memes, by {explainer.restored.folder.name}",
        preset=explainer.restored.results["preset"],
        pages=pages,
    )
    atomic.write_text(path / INDEX, index)
    return path / INDEX


def contents(found: Explanation, explainer: Explainer, *, verdict: str) -> blocks.Page:
    """Return an explanation as the content of a page."""
    arm, run = explainer.arm, explainer.restored
    facts = {
        "P(hateful), raw": f"{found.proba:.4f}",
        "logit": f"{found.logit:+.3f}",
        "decision": verdict,
        "classifier": f"{run.folder.name}, seed {run.seed}, {arm}",
    }
    head = [blocks.Facts(facts), blocks.Text(_WARNING, style="warning")]
    sections = [
        _caption(found.words),
        _picture(found),
        _modalities(found),
        _training(found),
    ]
    return blocks.Page(
        title=f"Why: {found.meme.id}",
        heading=f"Why meme {found.meme.id} has a logit of {found.logit:+.2f}",
        preset=run.results["preset"],
        head=head,
        sections=[section for section in sections if section is not None],
    )


def _caption(words: WordScores | None) -> blocks.Section | None:
    """Return the caption coloured by word, by both methods."""
    if words is None:
        return None
    if not words.texts:
        return blocks.Section("Words", [blocks.Text("The caption has no words.")])
    found: list[blocks.Block] = []
    if words.integrated is None:
        text = (
            "The classifier has no gradient by its words: their figures are drops of "
            "the logit when a word is left out."
        )
        found.append(blocks.Text(text, style="plain"))
    else:
        about = (
            "From padding to each word; together they are the difference in the logit "
            f"within {100 * words.gap:.1f} %."
        )
        values = words.integrated
        found.append(blocks.Text(_COLOURS))
        found.append(_words(words.texts, values, "Integrated gradients", about))
        if words.gap > LARGEST_GAP:
            text = "That is more than 1 %: the figures are rough."
            found.append(blocks.Text(text, style="warning"))
    about = "Drop of the logit when the word is left out."
    found.append(_words(words.texts, words.left_out, "Leave one out", about))
    if not words.read.all():
        count = int((~words.read).sum())
        text = f"{count} of {len(words.read)} words lie beyond the classifier's tokens."
        found.append(blocks.Text(text))
    found.append(blocks.Fold("Figures of each word", [_word_table(words)]))
    return blocks.Section("Words", found)


def _words(
    texts: Sequence[str], values: np.ndarray, title: str, caption: str
) -> blocks.Words:
    largest = float(np.abs(values).max()) or 1.0
    rows = [
        (text, float(value) / largest, f"{value:+.3f}")
        for text, value in zip(texts, values, strict=True)
    ]
    return blocks.Words(rows, title, caption)


def _word_table(words: WordScores) -> Table:
    columns = {"integrated\ngradients": words.integrated, "left out": words.left_out}
    known = {name: values for name, values in columns.items() if values is not None}
    rows = [
        [text, *(f"{values[row]:+.3f}" for values in known.values())]
        for row, text in enumerate(words.texts)
    ]
    return Table("Words, in logits", ("", *known), rows)


def _picture(found: Explanation) -> blocks.Section | None:
    """Return the picture, and each map over it."""
    if found.regions is None:
        return None
    sign = 1 if found.logit >= 0 else -1
    figures = [
        blocks.Figure(
            _data(enlarge(found.picture, side=320)),
            "Picture",
            "As the classifier sees it.",
            covered=True,
        )
    ]
    for name, values in found.regions.maps.items():
        kind = GRAD_CAM if name.startswith(GRAD_CAM) else name
        # Grad-CAM explains the call, the others the score.
        signed = sign * values if kind == GRAD_CAM else values
        figures.append(
            blocks.Figure(
                _data(overlay(found.picture, signed)),
                name[0].upper() + name[1:],
                f"{_ABOUT[kind]}{_size(kind, signed, found.regions.gap)}",
                covered=True,
            )
        )
    content: list[blocks.Block] = [blocks.Text(_COLOURS), blocks.Gallery(figures)]
    if INTEGRATED in found.regions.maps and found.regions.gap > ROUGH_GAP:
        text = (
            "Integrated gradients do not add up to the difference in the logit here "
            "(see how complete they are): their map is rough, occlusion is the better "
            "one."
        )
        content.append(blocks.Text(text, style="warning"))
    if INTEGRATED not in found.regions.maps:
        text = "The classifier has no gradient by pixels: occlusion needs none."
        content.append(blocks.Text(text, style="plain"))
    return blocks.Section("Regions", content)


def _size(kind: str, values: np.ndarray, gap: float) -> str:
    """Describe the unit of a map's colours: a map of next to nothing is bright too."""
    if kind == GRAD_CAM:
        return ""
    largest = values.flat[np.argmax(np.abs(values))]
    total = f" Complete within {100 * gap:.1f} %." if kind == INTEGRATED else ""
    return f" The strongest colour is {largest:+.3f}.{total}"


def _modalities(found: Explanation) -> blocks.Section | None:
    """Return what picture, caption and both together add to the logit."""
    parts = found.modalities
    if parts is None:
        text = "There are no other memes to compare the picture and the caption with."
        return blocks.Section("Picture and caption", [blocks.Text(text)])
    rows = [
        ["neither: other pictures with other captions", f"{parts.neither:+.3f}"],
        ["the picture adds", f"{parts.picture - parts.neither:+.3f}"],
        ["the caption adds", f"{parts.caption - parts.neither:+.3f}"],
        ["both together add beyond that", f"{parts.interaction:+.3f}"],
        ["the meme", f"{parts.both:+.3f}"],
    ]
    note = (
        f"Means over {found.references} other memes' pictures and captions; the first "
        "four add up to the last."
    )
    table = Table("In logits", ("", "logit"), rows, notes=(note,))
    return blocks.Section("Picture and caption", [table])


def _training(found: Explanation) -> blocks.Section:
    """Return the nearest training memes with their labels."""
    note = blocks.Text(found.note)
    if not found.neighbours:
        return blocks.Section("Nearest training memes", [note])
    memes = []
    for one in found.neighbours:
        picture, side = thumbnail(one.meme.image)
        memes.append(
            blocks.Meme(
                id=one.meme.id,
                picture=picture,
                side=side,
                caption=one.meme.text,
                score=f"{one.cosine:.3f}",
                label=_LABELS.get(one.meme.label, "unknown"),
                measure="cosine",
            )
        )
    title = "By cosine of the classifier's features"
    return blocks.Section("Nearest training memes", [note, blocks.Memes(title, memes)])


def _line(found: Explanation, name: str, verdict: str) -> Page:
    parts = found.modalities
    return Page(
        meme_id=found.meme.id,
        file=quote(name),
        proba=f"{found.proba:.4f}",
        logit=f"{found.logit:+.3f}",
        interaction="" if parts is None else f"{parts.interaction:+.3f}",
        verdict=verdict,
    )


def _call(proba: float) -> str:
    return f"{'hateful' if proba > 0.5 else 'not hateful'} at 0.5"


def _file(number: int, meme_id: str) -> str:
    """Return the name of a page, whatever characters an id has."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", meme_id).strip("-")[:40]
    return f"{number:05d}-{slug}.html" if slug else f"{number:05d}.html"


def _data(picture: np.ndarray) -> str:
    """Encode a picture as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
