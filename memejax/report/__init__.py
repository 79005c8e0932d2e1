"""Reports on finished runs: tables on the console and a page of HTML.

    show.py         console and write: start here
    finished.py     a finished run, read from its folder
    tables.py       results.json as tables of text, for the console and the page; those
                    of the collapse panel in panel.py, of frozen features in probed.py
    blocks.py       a page as plain data: sections of tables, figures and facts
    page.py         the page of a run, put together from data.py, memes.py, curves.py,
                    representation.py, decision.py, graph_pictures.py and profiled.py
    plots.py        its charts
    render.py       from plain data to HTML, by templates/ and its one style sheet
    paper_table.py  a paper's table beside our figures
    card.py         the model card of an export
    study/          the page of a study of curricula

`python -m memejax.report RUN` writes the page of a finished run anew.
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
    from memejax.report.show import console as console
    from memejax.report.show import write as write

__getattr__, __dir__ = exports(
    __name__,
    {
        "console": "memejax.report.show",
        "write": "memejax.report.show",
    },
)
