"""From plain data to HTML: the templates and the one style sheet."""

from __future__ import annotations

import functools
from typing import Any

import jinja2

from memejax.metrics import AVERAGE
from memejax.report.blocks import Page


def page(content: Page) -> str:
    """Return a page as HTML that needs no other file and no network."""
    return template("page.html.j2", page=content)


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
