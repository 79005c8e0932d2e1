"""From plain data to HTML: the templates and the one style sheet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jinja2

from memejax.metrics import AVERAGE
from memejax.report.blocks import Page


def page(content: Page) -> str:
    """Return a page as HTML that needs no other file and no network."""
    return template("page.html.j2", page=content)


def explanations(title: str, *, preset: str, pages: Sequence[Any]) -> str:
    """Return the index of the pages that explain memes.

    Args:
        title: first line.
        preset: of the run.
        pages: with `meme_id`, `file`, `proba`, `logit`, `interaction` and `verdict`.
    """
    return template("explanations.html.j2", title=title, preset=preset, pages=pages)


def template(name: str, **values: Any) -> str:
    """Return a template of templates/ filled with values, all of them escaped."""
    return _environment().get_template(name).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("memejax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["kind"] = lambda block: type(block).__name__
    found.globals["AVERAGE"] = AVERAGE
    return found
