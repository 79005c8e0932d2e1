"""Explanations as pages: one for each meme, and an index of them."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from memejax import atomic
from memejax.data.records import Meme
from memejax.predict.explain import sections
from memejax.predict.explain.explainer import Explainer
from memejax.predict.explain.explanation import Explanation
from memejax.predict.explain.graph_explainer import GraphExplainer
from memejax.report import blocks, render

INDEX = "index.html"
# Memes explained at once: their pictures are in memory.
CHUNK = 64
_WARNING = (
    "Memes may be offensive. Pictures and captions are blurred until you click them, "
    "or move to them with Tab and press Enter; the same covers them again."
)


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
    explainer: Explainer | GraphExplainer,
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


def contents(
    found: Explanation, explainer: Explainer | GraphExplainer, *, verdict: str
) -> blocks.Page:
    """Return an explanation as the content of a page."""
    arm, run = explainer.arm, explainer.restored
    facts = {
        "P(hateful), raw": f"{found.proba:.4f}",
        "logit": f"{found.logit:+.3f}",
        "decision": verdict,
        "classifier": f"{run.folder.name}, seed {run.seed}, {arm}",
    }
    head = [blocks.Facts(facts), blocks.Text(_WARNING, style="warning")]
    parts = [
        sections.words(found.words),
        sections.regions(found),
        sections.entities(found),
        sections.modalities(found),
        sections.training(found),
    ]
    return blocks.Page(
        title=f"Why: {found.meme.id}",
        heading=f"Why meme {found.meme.id} has a logit of {found.logit:+.2f}",
        preset=run.results["preset"],
        head=head,
        sections=[section for section in parts if section is not None],
    )


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
