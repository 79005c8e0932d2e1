"""The first lines of a run: its experiment, its devices, its plan and its duration."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax.config import flatten, load_config
from memejax.stages import STAGES
from memejax.stages.parts.choices import RUNTIME

# (config, preset) -> minutes that the command took without further flags, on 2 CPU
# cores with jax 0.10.2. A run without a line here is announced without a duration.
MINUTES = {
    ("cass_mm", "demo"): 3,
    ("supervised", "demo"): 2,
    ("curriculum", "demo"): 1,
}

# At most so many changed leaves are listed beside an error.
_FEW = 12


def experiment(config: ConfigDict) -> str:
    """Name the experiment, and the way to run the real one."""
    own = STAGES[config.stages[0]].about
    if own is not None:
        return f"{config.name}, preset {config.preset}: {own(config)}"
    if config.preset != "demo":
        return f"{config.name}, preset {config.preset}"
    data, root = f"built-in {config.data.name}", " --config.data.root=FOLDER"
    if config.data.root is not None:
        data = f"the {config.data.name} of {config.data.root}"
        root = f" --config.data.root={config.data.root}"
    elif config.data.name == "geoshapes":
        # Built in at every scale.
        root = ""
    return (
        f"{config.name}, preset demo: small models on {data}; the full recipe is\n"
        f"  --config=configs/{config.name}.py:full{root}"
    )


def machine(mesh: Mesh | None) -> str:
    """Describe the devices of a run, the cores of this machine and the jax version."""
    devices = list(mesh.devices.flat) if mesh is not None else jax.devices()
    if devices[0].platform == "cpu":
        # Its kind is only "cpu" again.
        described = _count(len(devices), "CPU device")
    else:
        kinds = Counter(device.device_kind for device in devices)
        described = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return (
        f"on {described}, {_count(os.cpu_count() or 1, 'core')}, jax {jax.__version__}"
    )


def duration(config: ConfigDict) -> str:
    """Return the measured duration of a run; "" if its work was never measured."""
    minutes = MINUTES.get((config.name, config.preset))
    if minutes is None or not _is_as_measured(config):
        return ""
    return f"about {_count(minutes, 'minute')} (measured on 2 CPU cores)"


def plan(config: ConfigDict, data: Any) -> str:
    """List the stages with their planned updates."""
    parts = []
    for name in config.stages:
        updates = STAGES[name].updates
        planned = {} if updates is None else updates(config, data)
        lines = [f"{part} {count:,} updates" for part, count in planned.items()]
        # A stage without updates is done in one go.
        parts += lines or [name]
    text = ", ".join(parts)
    if config.seeds == 1:
        return f"plan: {text}"
    if STAGES[config.stages[0]].together:
        return f"plan: {text}, of {config.seeds} seeds at once"
    return f"plan for each of {config.seeds} seeds: {text}"


def changes(config: ConfigDict) -> str:
    """List the leaves that differ from the config's preset; "" if that tells little."""
    try:
        original = load_config(f"configs/{config.name}.py:{config.preset}")
    except ValueError:
        return ""
    before, now = flatten(original.to_dict()), flatten(config.to_dict())
    changed = [
        f"{name}={value!r:.80}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    # Of more, as after a switch behind the colon, none stands out.
    if not 0 < len(changed) <= _FEW:
        return ""
    return f"\nchanged from the preset {config.preset}: {', '.join(changed)}"


def _count(number: int, noun: str) -> str:
    """Format 1 core, 2 cores."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is_as_measured(config: ConfigDict) -> bool:
    """Whether a config is its preset unchanged, but for seed and runtime leaves."""
    try:
        original = load_config(f"configs/{config.name}.py:{config.preset}")
    except ValueError:
        return False

    def work(one: ConfigDict) -> dict[str, Any]:
        return {
            name: value
            for name, value in flatten(one.to_dict()).items()
            if name.split(".")[0] not in (*RUNTIME, "seed")
        }

    return work(config) == work(original)
