"""Finding and loading config files."""

from __future__ import annotations

import importlib.util
import os
import pathlib

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
