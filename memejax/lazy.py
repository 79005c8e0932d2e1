"""Names of a package that are imported when they are first used (PEP 562).

    __getattr__, __dir__ = exports(__name__, {"load": "memejax.weights.checkpoint"})

So that a command's --help, and a module that needs one constant, need not wait for JAX.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def exports(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        places: name -> module that has it; a module of that very name is the value.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(places[name])
        if places[name] == f"{package}.{name}":
            return module
        return getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names
