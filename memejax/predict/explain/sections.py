"""Sections of a page on one explanation."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from memejax.explain.overlay import enlarge, overlay
from memejax.predict.explain.explanation import (
    GRAD_CAM,
    INTEGRATED,
    OCCLUSION,
    Explanation,
    WordScores,
)
from memejax.report import blocks
from memejax.report.cells import Table
from memejax.report.memes import thumbnail

# Completeness that integrated gradients should keep.
LARGEST_GAP = 0.01
# A map of regions tells more than its sum: only a gap as large as this is warned of.
ROUGH_GAP = 0.2
_COLOURS = "Vermilion speaks for hateful, blue against it."
_ABOUT = {
    OCCLUSION: "Drop of the logit when a square around a place is covered by the "
    "picture's mean colour.",
    INTEGRATED: "Gradients of the logit by pixels, from a picture of the mean colour "
    "to this one, summed over squares.",
    GRAD_CAM: "Grad-CAM of the last feature map: what speaks for the call.",
}
_LABELS = {0: "not hateful", 1: "hateful"}


def words(scores: WordScores | None) -> blocks.Section | None:
    """Return the caption coloured by word, by both methods."""
    if scores is None:
        return None
    if not scores.texts:
        return blocks.Section("Words", [blocks.Text("The caption has no words.")])
    found: list[blocks.Block] = [blocks.Text(_COLOURS)]
    if scores.integrated is None:
        text = (
            "There are no gradients by words for this classifier: their figures are "
            "drops of the logit when a word is left out."
        )
        found.append(blocks.Text(text, style="plain"))
    else:
        about = (
            "From padding to each word; together they are the difference in the logit "
            f"within {100 * scores.gap:.1f} %."
        )
        values = scores.integrated
        found.append(_words(scores.texts, values, "Integrated gradients", about))
        if scores.gap > LARGEST_GAP:
            text = "That is more than 1 %: the figures are rough."
            found.append(blocks.Text(text, style="warning"))
    about = "Drop of the logit when the word is left out."
    found.append(_words(scores.texts, scores.left_out, "Leave one out", about))
    if not scores.read.all():
        count = int((~scores.read).sum())
        text = (
            f"{count} of {len(scores.read)} words lie beyond the classifier's tokens."
        )
        found.append(blocks.Text(text))
    found.append(blocks.Fold("Figures of each word", [_word_table(scores)]))
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


def regions(found: Explanation) -> blocks.Section | None:
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


def entities(found: Explanation) -> blocks.Section | None:
    """Return the picture with its entities, and what each adds to the logit."""
    parts = found.entities
    if parts is None:
        return None
    if not len(parts.left_out):
        text = "No entity was found in the picture: the graph has none."
        return blocks.Section("Entities", [blocks.Text(text)])
    drawn = overlay(found.picture, parts.map(found.picture.shape[:2]))
    figures = [
        blocks.Figure(_data(found.picture), "Picture", "As it is.", covered=True),
        blocks.Figure(
            _data(_numbered(drawn, parts.boxes * len(drawn) / parts.size[0])),
            "Entities",
            "Drop of the logit when an entity is covered. Where several overlap, the "
            "colour is that of the one that counts most.",
            covered=True,
        ),
    ]
    rows = [
        [str(number), name, f"{score:.2f}", f"{covered:+.3f}", f"{left_out:+.3f}"]
        for number, (name, score, covered, left_out) in enumerate(
            zip(parts.names, parts.scores, parts.covered, parts.left_out, strict=True),
            start=1,
        )
    ]
    rows.append(["all", "", "", "", f"{parts.all_left_out:+.3f}"])
    note = (
        "Drop of the logit when the entity is covered in the picture by the mean "
        "colour, and when its node is left out of the graph, which still has the whole "
        "picture. Entities overlap, so that drops do not add up."
    )
    columns = ("", "entity", "confidence", "covered", "node left\nout")
    table = Table("Entities, in logits", columns, rows, notes=(note,))
    return blocks.Section(
        "Entities", [blocks.Text(_COLOURS), blocks.Gallery(figures), table]
    )


def _numbered(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Draw the outlines of boxes, in pixels of the picture, with numbers from 1."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for number, (left, top, right, bottom) in enumerate(boxes.tolist(), start=1):
        draw.rectangle((left, top, right - 1, bottom - 1), outline="black")
        draw.rectangle((left, top, left + 2 + 8 * len(str(number)), top + 12), "white")
        draw.text((left + 2, top), str(number), fill="black")
    return np.asarray(image)


def modalities(found: Explanation) -> blocks.Section | None:
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


def training(found: Explanation) -> blocks.Section:
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


def _data(picture: np.ndarray) -> str:
    """Encode a picture as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
