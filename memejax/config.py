"""Config files and their leaves: finding, loading, flattening."""

from __future__ import annotations

import difflib
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def find_config(name: str) -> tuple[str, str | None]:
    """Return the path and text of `FILE.py[:TEXT]`; the text is None without a colon.

    `configs/x.py` also resolves to the file in the installed package.
    """
    file, colon, text = name.partition(":")
    here = pathlib.Path(__file__).parent
    for folder in (here, here.parent):
        if not os.path.exists(file) and (folder / file).exists():
            file = str(folder / file)
    return file, text if colon else None


def load_config(name: str) -> ConfigDict:
    """Return the config of `FILE.py[:TEXT]`, exactly as `--config` does.

    Raises:
        ValueError: if the file, the preset or an option does not exist.
    """
    file, text = find_config(name)
    spec = importlib.util.spec_from_file_location("memejax_config", file)
    if spec is None or spec.loader is None or not os.path.isfile(file):
        raise ValueError(f"no config file {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config() if text is None else module.get_config(text)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def unknown_leaf(config: ConfigDict, name: str) -> str | None:
    """Return an error for a dotted name that is not in a config; None if it is.

    Args:
        config: an experiment's.
        name: of a leaf or a section.
    """
    place: Any = config
    for part in name.split("."):
        if not isinstance(place, ConfigDict) or part not in place:
            break
        place = place[part]
    else:
        return None
    leaves = list(flatten(config.to_dict()))
    near = difflib.get_close_matches(name, leaves, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"--config.{name}: this config has no such leaf{hint}"
