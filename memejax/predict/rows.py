"""Rows of the output, one for each meme."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """Decision on one meme, and what it rests on.

    Attributes:
        id: of the meme.
        proba: P(hateful), calibrated if the run has been; None with an error, or if a
            known meme has decided.
        raw_proba: P(hateful) as the network has it; None likewise.
        decision: "hateful", "not hateful" or "review"; "" with an error.
        caption: the words that were used, given or read.
        matched: id of the known meme that it is; "" if it is none.
        error: reason why there is no probability; "" if there is one.
    """

    id: str
    proba: float | None = None
    raw_proba: float | None = None
    decision: str = ""
    caption: str = ""
    matched: str = ""
    error: str = ""


FIELDS = tuple(field.name for field in dataclasses.fields(Row))
