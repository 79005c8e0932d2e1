"""Pieces of HTML: everything that goes in is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from memejax.metrics import AVERAGE
from memejax.report import tables

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #5c6773; --line: #dfe3e8;
  --accent: #0b6e8a; --wash: #f5f7f9 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 2rem 0 .5rem }
p { max-width: 46rem; margin: .5rem 0 }
a { color: var(--accent) }
.preset { color: var(--accent); font-weight: 600; margin: 0 0 .25rem }
.lead { font-size: 1.15rem; margin: 1rem 0 }
.note, figcaption { color: var(--muted); font-size: .875rem }
.warn { border-left: 3px solid #b42318; padding-left: .75rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem;
  margin: 1rem 0; font-size: .9375rem }
dt { color: var(--muted) } dd { margin: 0; overflow-wrap: anywhere }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9375rem; margin: .25rem 0 .5rem;
  font-variant-numeric: tabular-nums }
caption { text-align: left; font-size: 1.0625rem; font-weight: 600;
  padding: 1.5rem 0 .4rem }
h2 + .scroll caption { padding-top: 0 }
th, td { padding: .35rem 1rem .35rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line) }
th + th, td, th + td { padding-left: 1rem }
th { font-weight: 600 } tbody th { font-weight: 400 }
thead th { vertical-align: bottom; white-space: pre-line; color: var(--muted) }
th:first-child, .left { text-align: left }
tr.average > * { color: var(--accent); font-weight: 600 }
.plots { display: grid; gap: 1.25rem 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)) }
.large { grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)) }
figure { margin: 0 } figure img { width: 100%; display: block }
.whole { margin: 1rem 0 } .whole img { width: auto; max-width: 100% }
figcaption b { color: var(--ink); font-weight: 600 }
.confusion td, .confusion thead th { text-align: center }
.confusion { margin-top: .75rem }
pre { background: var(--wash); padding: .6rem .8rem; overflow-x: auto }
pre, code { font: .875rem/1.5 ui-monospace, Menlo, Consolas, monospace }
details td { text-align: left; white-space: normal; overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--accent) }
@media print { main { max-width: none; padding: 0 }
  figure, table { break-inside: avoid } }
"""


def escape(value: object) -> str:
    """Text as it is to be read, also inside a quoted attribute."""
    return html.escape(str(value))


def join(parts: Iterable[str]) -> str:
    """Pieces one below another, empty ones left out."""
    return "\n".join(part for part in parts if part)


def document(title: str, body: Iterable[str]) -> str:
    """A page that needs nothing but itself; the title is text, the body HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{join(body)}\n</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, *, kind: str = "note") -> str:
    """A sentence or two."""
    return f'<p class="{kind}">{escape(text)}</p>'


def table(content: tables.Table) -> str:
    """A table; the row of the average stands out."""
    head = _cells("th", content.columns, content.left, 'scope="col" ')
    rows = "".join(
        f'<tr class="{"average" if row[0] == AVERAGE else "row"}">'
        f'<th scope="row">{escape(row[0])}</th>'
        f"{_cells('td', row[1:], content.left - 1)}</tr>\n"
        for row in content.rows
    )
    return join(
        [
            f'<div class="scroll"><table><caption>{escape(content.title)}</caption>',
            f"<thead><tr>{head}</tr></thead>",
            f"<tbody>\n{rows}</tbody></table></div>",
            *(paragraph(note) for note in content.notes),
        ]
    )


def _cells(tag: str, texts: Sequence[str], left: int, more: str = "") -> str:
    """Cells of a row, the first few read from the left."""
    return "".join(
        f'<{tag} {more}class="{"left" if i < left else "right"}">{escape(text)}</{tag}>'
        for i, text in enumerate(texts)
    )


def figure(picture: str, title: str, said: str, *, whole: bool = False) -> str:
    """A plot; what it shows is said below it and to who cannot see it.

    Args:
        picture: a data URI.
        title: above what is said.
        said: what it shows, in a sentence or two.
        whole: a picture of many pixels in a line of its own.
    """
    kind = ' class="whole"' if whole else ""
    return (
        f"<figure{kind}>"
        f'<img src="{escape(picture)}" alt="{escape(f"{title}. {said}")}">'
        f"<figcaption><b>{escape(title)}.</b> {escape(said)}</figcaption></figure>"
    )


def gallery(figures: Sequence[str], *, large: bool = False) -> str:
    """Figures (HTML) side by side, as many as there is room for."""
    kind = "plots large" if large else "plots"
    return join([f'<div class="{kind}">', *figures, "</div>"]) if figures else ""


def facts(pairs: Mapping[str, object]) -> str:
    """Names and values, those that are None or empty left out."""
    rows = (
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in pairs.items()
        if value not in (None, "")
    )
    return join(["<dl>", *rows, "</dl>"])
