"""XLA options by JAX version; no other file depends on the version.

An unknown flag in XLA_FLAGS ends the process, and an unknown compile option raises.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

# Option -> first version of jaxlib without it.
_REMOVED = {"xla_cpu_use_fusion_emitters": (0, 11)}


def known(options: Mapping[str, bool | int]) -> dict[str, bool | int]:
    """Return the options that the installed version of XLA supports."""
    parts = importlib.metadata.version("jaxlib").split(".")
    installed = (int(parts[0]), int(parts[1]))
    return {
        name: value
        for name, value in options.items()
        if name not in _REMOVED or installed < _REMOVED[name]
    }


def as_flags(options: Mapping[str, bool | int]) -> str:
    """Format options for XLA_FLAGS: `--name=value --other=true`."""
    values = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in options.items()
    }
    return " ".join(f"--{name}={value}" for name, value in values.items())


# For a program that runs once and takes longer to compile than to run.
RUN_ONCE = known({"xla_backend_optimization_level": 0})
# For many small programs: without fusion emitters they compile in two thirds of the
# time, and they are too small to split among threads.
COMPILE_FAST = RUN_ONCE | known(
    {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
)
