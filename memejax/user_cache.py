"""The user's folder of what can be made again: compiled programs, captions read."""

from __future__ import annotations

import os
import pathlib


def folder() -> pathlib.Path:
    """Return $MEMEJAX_CACHE, or memejax in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("MEMEJAX_CACHE")
    if own:
        return pathlib.Path(own)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "memejax"
