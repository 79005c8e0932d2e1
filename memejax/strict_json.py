"""JSON as files of others may hold it: duplicate names and deep nesting are errors."""

from __future__ import annotations

import json
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
