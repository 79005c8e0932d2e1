"""A run's folder: its config, its environment, its stages' folders, its results.

config.json        every leaf; a different identity on an old folder is an error
environment.json   versions, devices, git commit
starts.json        seconds and memory of the starts until now
results.json       figures of all seeds, and their summary
report.html        the same for a person
tokenizer/         the vocabulary in use
<seed>/<stage>/    metrics.jsonl, TensorBoard events, checkpoints/, predictions/
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import jax

from memejax import parallel

PACKAGES = (
    "memejax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "transformers",
    "tokenizers",
    "pillow",
)


# Of a run's folder; another one is refused. 2: evaluate/outcome.json names its stage.
LAYOUT = 2


class OtherRunError(ValueError):
    """The folder holds a run of another config."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when all is written.

    An error, or a kill, leaves what was there before.
    """
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
    part.replace(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a file whole or not at all; of several processes the first does."""
    if not parallel.is_first():
        return
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """The file's value, None if there is no such file."""
    path = pathlib.Path(path)
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def claim(
    workdir: str | os.PathLike[str], config: Mapping[str, Any], runtime: tuple[str, ...]
) -> pathlib.Path:
    """Makes the folder, or checks that it holds a run of the same identity.

    Of several processes all check, and the first one writes.

    Args:
        workdir: the run's folder.
        config: every leaf, JSON.
        runtime: top-level sections that may differ.

    Returns:
        The folder's absolute path.

    Raises:
        OtherRunError: with the leaves that differ, or for a folder of another layout.
    """
    folder = pathlib.Path(workdir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(config))
    old = read_json(folder / "config.json")
    if old is not None:
        check_layout(folder)
        before, now = flatten(old), flatten(config)
        different = [
            f"  {name}: {before.get(name, '(absent)')} there, "
            f"{now.get(name, '(absent)')} asked for"
            for name in sorted(before.keys() | now.keys())
            if name.split(".")[0] not in runtime and before.get(name) != now.get(name)
        ]
        if different:
            raise OtherRunError(
                f"{folder} holds a run of another config:\n"
                + "\n".join(different)
                + "\nchoose another --workdir, or remove that one"
            )
    # This order: a config without an environment would be of the first layout.
    write_json(folder / "environment.json", environment())
    write_json(folder / "config.json", config)
    return folder


def check_layout(folder: pathlib.Path) -> None:
    """Refuse a run's folder that another version of memejax laid out.

    Raises:
        OtherRunError: naming both layouts.
    """
    layout = (read_json(folder / "environment.json") or {}).get("layout", 1)
    if layout != LAYOUT:
        raise OtherRunError(
            f"{folder} holds a run of layout {layout}, and this memejax reads and "
            f"writes layout {LAYOUT}: choose another --workdir, or remove that one"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def environment() -> dict[str, Any]:
    """What the run ran on: versions, devices, commit."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "layout": LAYOUT,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "processes": parallel.count(),
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
        "packages": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the source in use, None outside of a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
