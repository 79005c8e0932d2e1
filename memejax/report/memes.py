"""The section that shows memes: the most confident calls, right and wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from memejax.data import images
from memejax.data.hateful_memes import Meme, id_key
from memejax.report import blocks, tables
from memejax.report.finished import Finished, Scored

# Memes of each kind, and the longer side of their pictures in pixels.
SHOWN, SIDE = 4, 320
# A caption in characters; the rest of a longer one is cut.
_CAPTION = 600
# Title, true label, whether they are called hateful.
_KINDS = (
    ("Hateful, and called so: true positives", 1, True),
    ("Not hateful, and called so: true negatives", 0, False),
    ("Not hateful, but called hateful: false positives", 0, True),
    ("Hateful, but not called so: false negatives", 1, False),
)
_LABELS = ("not hateful", "hateful")
_WARNING = (
    "Memes may be offensive. Picture and caption are blurred until you click them, or "
    "move to them with Tab and press Enter; the same covers them again."
)


def section(run: Finished) -> blocks.Section | None:
    """The most confident memes of each kind, of the first seed and the main split.

    None if no labelled split was scored, or its memes are not there any more.
    """
    split = tables.headline(run.results)
    if split is None or not run.seeds:
        return None
    seed = run.seeds[0]
    scored = run.scored(split, seed)
    if scored is None:
        return None
    threshold = run.report(seed, split)["threshold"]
    of = f" of seed {seed}" if len(run.seeds) > 1 else ""
    intro = (
        f"The most confident calls of the average{of} on {split}, at the threshold "
        f"{threshold:.4f} that {run.results['dev']} chose."
    )
    records = run.memes(split)
    return blocks.Section(
        "Memes",
        [
            blocks.Text(_WARNING, style="warning"),
            blocks.Text(intro),
            *(
                _group(title, scored, label, called, threshold, records)
                for title, label, called in _KINDS
            ),
        ],
    )


def _group(
    title: str,
    scored: Scored,
    label: int,
    called: bool,
    threshold: float,
    records: dict[str, Meme],
) -> blocks.Memes:
    """Memes of one label and one call, the most confident first."""
    rows = np.flatnonzero(
        (scored.labels == label) & ((scored.proba > threshold) == called)
    )
    order = np.argsort(scored.proba[rows], kind="stable")
    chosen = rows[order[::-1] if called else order][:SHOWN]
    shown = f"{len(chosen)} of {len(rows):,}" if len(rows) > SHOWN else str(len(rows))
    return blocks.Memes(
        f"{title} ({shown})",
        [
            _meme(records[id_key(scored.ids[row])], float(scored.proba[row]), label)
            for row in chosen
        ],
    )


def _meme(record: Meme, proba: float, label: int) -> blocks.Meme:
    picture, side = thumbnail(record.image)
    caption = record.text
    if len(caption) > _CAPTION:
        caption = caption[:_CAPTION] + " …"
    return blocks.Meme(
        id=record.id,
        picture=picture,
        side=side,
        caption=caption,
        score=f"{proba:.4f}",
        label=_LABELS[label],
    )


def thumbnail(path: str) -> tuple[str | None, int]:
    """Return a small picture as a data URI, and its longer side in pixels.

    The pixels are encoded anew: nothing else of a file gets into a page.

    Args:
        path: of the picture.

    Returns:
        (None, 0) if it cannot be read.
    """
    try:
        side = min(SIDE, max(images.open_size(path)))
        image_hwc, (height, width) = images.decode(
            path, size=side, resize="pad", draft=True
        )
    except images.ImageError:
        return None, 0
    buffer = io.BytesIO()
    # JPEG, which every build of Pillow has, and WebP not.
    Image.fromarray(image_hwc[:height, :width]).save(buffer, "JPEG", quality=85)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/jpeg;base64,{code}", side
