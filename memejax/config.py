"""Where a config is found, and how it is read."""

from __future__ import annotations

import importlib.util
import os
import pathlib

from ml_collections import ConfigDict


def find_config(name: str) -> tuple[str, str | None]:
    """`FILE.py[:PRESET]` -> (path, preset).

    `configs/x.py` is found where only the installed package has that file, too.
    """
    file, colon, preset = name.partition(":")
    here = pathlib.Path(__file__).parent
    for folder in (here, here.parent):
        if not os.path.exists(file) and (folder / file).exists():
            file = str(folder / file)
    return file, preset if colon else None


def located(argument: str) -> str:
    """A command line's `--config=FILE.py[:PRESET]` with the path that is found.

    Any other argument stays as it is.
    """
    flag, equals, value = argument.partition("=")
    if flag.lstrip("-") != "config" or not equals:
        return argument
    file, preset = find_config(value)
    return f"{flag}={file}" + ("" if preset is None else f":{preset}")


def load_config(name: str) -> ConfigDict:
    """The config of `FILE.py[:PRESET]`, as `--config` reads it.

    Raises:
      ValueError: if there is no such file.
    """
    file, preset = find_config(name)
    spec = importlib.util.spec_from_file_location("memejax_config", file)
    if spec is None or spec.loader is None or not os.path.exists(file):
        raise ValueError(f"no config file {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config() if preset is None else module.get_config(preset)
