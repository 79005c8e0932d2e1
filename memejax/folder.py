"""A run's folder: config, environment, stage folders and results.

config.json        every leaf; a different identity in an old folder is an error
environment.json   versions, devices, git commit
lock               held by the start that writes to the folder
starts.json        seconds and memory of each start so far
results.json       figures of all seeds, and their summary
report.html        the same figures as a page
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
import shutil
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


# Layout of a run's folder; others are refused. 2: evaluate/outcome.json has `stage`.
LAYOUT = 2


class OtherRunError(ValueError):
    """The folder holds a run of another config."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once it is completely written.

    An error or a kill leaves the old file in place.
    """
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
    part.replace(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a file atomically; only the first process writes."""
    if not parallel.is_first():
        return
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the file's value, None if there is no such file."""
    path = pathlib.Path(path)
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def claim(
    workdir: str | os.PathLike[str], config: Mapping[str, Any], runtime: tuple[str, ...]
) -> pathlib.Path:
    """Create a run's folder, or check that it holds a run of the same identity.

    A folder in which no stage has saved anything yet is taken over by any config. All
    processes check; only the first one writes.

    Args:
        workdir: the run's folder.
        config: every leaf, as JSON.
        runtime: top-level sections that may differ.

    Returns:
        The folder's absolute path.

    Raises:
        OtherRunError: if leaves differ (the message lists them), or the layout does.
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
        if different and not _has_begun(folder):
            # A start that failed before its first checkpoint keeps nobody out.
            if parallel.is_first():
                _discard_inputs(folder)
        elif different:
            raise OtherRunError(
                f"{folder} holds a run of another config:\n"
                + "\n".join(different)
                + "\nchoose another --workdir, or remove that one"
            )
    # In this order: a config without an environment would count as layout 1.
    write_json(folder / "environment.json", environment())
    write_json(folder / "config.json", config)
    return folder


def _has_begun(folder: pathlib.Path) -> bool:
    """Whether a stage has saved a checkpoint or ended, for any seed."""
    saved = ("checkpoints/*", "outcome.json")
    patterns = [f"{depth}{name}" for depth in ("*/", "*/*/") for name in saved]
    return (folder / "results.json").exists() or any(
        next(folder.glob(pattern), None) is not None for pattern in patterns
    )


def _discard_inputs(folder: pathlib.Path) -> None:
    """Remove the data that an earlier config wrote: another one may write others."""
    for name in ("memes", "cache", "tokenizer"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "bad_records.jsonl").unlink(missing_ok=True)


def check_layout(folder: pathlib.Path) -> None:
    """Check that a run's folder has the layout of this version of memejax.

    Raises:
        OtherRunError: if it has another one; the message names both.
    """
    layout = (read_json(folder / "environment.json") or {}).get("layout", 1)
    if layout != LAYOUT:
        raise OtherRunError(
            f"{folder} holds a run of layout {layout}, and this memejax reads and "
            f"writes layout {LAYOUT}: choose another --workdir, or remove that one"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def environment() -> dict[str, Any]:
    """Return the versions, devices and commit of this run."""
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
    """Return the commit of the source in use, None outside a checkout."""
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
