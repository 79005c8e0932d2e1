"""True labels beside a run's predictions, so that its folder is enough to judge them.

`<seed>/evaluate/labels/<split>.csv` has `id,label,caption`, in the order of
`predictions/<split>.csv`; `caption` is a digest, the same for memes that share theirs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import pathlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memejax import atomic
from memejax.data.hateful_memes import normalise_caption

if TYPE_CHECKING:
    from memejax.datasets import Split

HEADER = ["id", "label", "caption"]


class Labels(NamedTuple):
    """Labels of a split.

    Attributes:
        ids: `[n]`.
        labels: int64 `[n]`, 0 or 1.
        captions: digests, `[n]`.
    """

    ids: list[str]
    labels: np.ndarray
    captions: np.ndarray


def write(folder: pathlib.Path, split: Split) -> None:
    """Write a split's labels below a stage's folder, if all are known.

    Args:
        folder: of the stage.
        split: of memes; nothing is written for other data.
    """
    if not split.labelled or split.captions is None:
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for one, label, caption in zip(
        split.ids, split.labels.tolist(), split.captions, strict=True
    ):
        # A meme without words shares them with no other.
        words = normalise_caption(caption) or f"\0{one}"
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        writer.writerow([str(one), label, digest])
    path = folder / "labels" / f"{split.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text.getvalue())


def read(path: str | os.PathLike[str]) -> Labels:
    """Read the file that `write` writes.

    Raises:
        ValueError: if the columns are not `id,label,caption`.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != HEADER:
            raise ValueError(f"{path}: got columns {header}, expected {HEADER}")
        rows = list(reader)
    return Labels(
        [row[0] for row in rows],
        np.array([int(row[1]) for row in rows], np.int64),
        np.array([row[2] for row in rows]),
    )
