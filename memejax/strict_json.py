"""JSON as files of others may hold it: duplicate names and deep nesting are errors."""

from __future__ import annotations

import json
import pathlib
from typing import Any


def loads(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: for what is not JSON, an object with a name that occurs twice (the
            standard parser takes the last), or nesting too deep to parse.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"it has {name!r:.80} twice")
        made[name] = value
    return made


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ValueError: if it is not JSON, or not an object.
    """
    try:
        content = loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object")
    return content
