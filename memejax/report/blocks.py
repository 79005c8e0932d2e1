"""A page as plain data: sections of paragraphs, tables, figures and facts.

Nothing here is HTML: templates/ turns each block into it, and escapes every value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from memejax.report.cells import Table


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: a sentence or two.
        style: "plain", "note" or "warning".
    """

    text: str
    style: str = "note"


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture with its caption, which is also its text for a screen reader.

    Attributes:
        picture: a data URI.
        title: in bold before the caption.
        caption: a sentence or two about the picture.
        whole: whether it takes a line of its own, in its own size.
        covered: whether it is blurred until it is clicked.
    """

    picture: str
    title: str
    caption: str
    whole: bool = False
    covered: bool = False


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        rows: (true class, its cells); a cell is (memes, share of the row), and the
            columns have the classes in the order of the rows.
        title: in bold before the caption.
        caption: below the matrix.
    """

    rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]
    title: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as there is room for.

    Attributes:
        figures: figures and confusion matrices.
        size: "small", "medium" or "large": the least width of a figure.
    """

    figures: Sequence[Figure | Confusion]
    size: str = "small"


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names and values; those that are None or empty are left out."""

    pairs: Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Links:
    """A label and links, as (text, relative address)."""

    label: str
    links: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line to copy."""

    label: str
    command: str


@dataclasses.dataclass(frozen=True)
class Terms:
    """A list of terms, each with a sentence."""

    pairs: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Fold:
    """Blocks that can be folded away."""

    summary: str
    blocks: Sequence[Block]
    is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Meme:
    """A meme with its score, covered until it is clicked.

    Attributes:
        id: of the record.
        picture: a data URI; None if there is no picture to show.
        side: the longer side of the picture in pixels.
        caption: the meme's text.
        score: P(hateful), as it is to be read.
        label: the true class.
        measure: name of the score, if it is another.
    """

    id: str
    picture: str | None
    side: int
    caption: str
    score: str
    label: str
    measure: str = "P(hateful)"


@dataclasses.dataclass(frozen=True)
class Memes:
    """Memes of one kind, as the most confident false positives."""

    title: str
    memes: Sequence[Meme]


@dataclasses.dataclass(frozen=True)
class Words:
    """A caption whose words are coloured by weights, covered until it is clicked.

    Attributes:
        words: (text, weight in [-1, 1], value as it is to be read).
        title: in bold before the caption.
        caption: a sentence or two about the weights.
    """

    words: Sequence[tuple[str, float, str]]
    title: str
    caption: str


Block = (
    Text
    | Heading
    | Table
    | Figure
    | Gallery
    | Confusion
    | Facts
    | Links
    | Command
    | Terms
    | Fold
    | Memes
    | Words
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page under its title."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: its head, then its sections.

    Attributes:
        title: of the document.
        heading: the first line that is read.
        preset: of the run.
        head: blocks under the heading.
        sections: in order.
        is_wide: whether tables of many columns want a wide page.
    """

    title: str
    heading: str
    preset: str
    head: Sequence[Block]
    sections: Sequence[Section]
    is_wide: bool = False
