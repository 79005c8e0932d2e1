"""A run's folder: config, environment, stage folders and results.

config.json        every leaf; a different identity in an old folder is an error
unclaimed.json     the config of a start that still reads its data and checks itself
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
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax

from memejax import atomic, parallel
from memejax.config import flatten
from memejax.errors import UserError

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


CONFIG, UNCLAIMED = "config.json", "unclaimed.json"
# In the config's file: earlier values of leaves that nothing had read yet.
REPLACED = "replaced"
# Folders that a start makes of the data, before it claims the run's folder.
INPUTS = ("memes", "cache", "tokenizer")


class OtherRunError(UserError):
    """The folder holds a run of another config."""


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a file atomically; only the first process writes."""
    if not parallel.is_first():
        return
    atomic.write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the file's value, None if there is no such file.

    Raises:
        UserError: if it is no JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error


def read_config(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return a run's config, None if the folder holds none.

    The values that the run began with, where others have replaced them since, are left
    out: they are in the file under `replaced`.
    """
    saved = read_json(folder / CONFIG)
    if saved is not None:
        saved.pop(REPLACED, None)
    return saved


@contextlib.contextmanager
def claim(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    runtime: Collection[str] = (),
    unread: Callable[[pathlib.Path], Collection[str]] = lambda _: (),
) -> Iterator[pathlib.Path]:
    """Make a folder a run's when the body succeeds, or check that it is this run's.

    The body loads the data, writes what it makes of them to the folder, and checks the
    config on them. If it fails, a folder that held no run is left as it was found. A
    folder in which no stage has saved anything yet is taken over by any config. Of
    several processes the first checks and writes for all.

    Args:
        workdir: the run's folder.
        config: every leaf, as JSON.
        runtime: top-level sections that may differ.
        unread: folder -> top-level sections that no stage begun so far has read: they
            may differ too, and config.json then records both values.

    Yields:
        The folder's absolute path.

    Raises:
        OtherRunError: if leaves differ (the message lists them), the layout does, or
            the folder holds files that are not of a run.
    """
    folder = pathlib.Path(workdir).absolute()
    leaves: dict[str, Any] = json.loads(json.dumps(config))
    problem, new = None, False
    if parallel.is_first():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            atomic.remove_stale(folder)
            new = _enter(folder, leaves, {*runtime, *unread(folder)})
        # A damaged file too: the other processes wait for the answer.
        except UserError as error:
            problem = str(error)
    problem = parallel.from_first(problem)
    if problem is not None:
        raise OtherRunError(problem)
    try:
        yield folder
    except BaseException:
        if new:
            _discard_inputs(folder)
            (folder / UNCLAIMED).unlink(missing_ok=True)
        raise
    if parallel.is_first():
        _write_claim(folder, leaves, runtime)


def _enter(folder: pathlib.Path, config: dict[str, Any], free: set[str]) -> bool:
    """Check a folder; return whether it is new, and clear it then."""
    old = read_config(folder)
    if old is not None:
        check_layout(folder)
        different = differences(old, config, free=free)
        if not different:
            return False
        if _has_begun(folder):
            raise other_run(folder, different)
        # A start that failed before its first checkpoint keeps nobody out.
        (folder / CONFIG).rename(folder / UNCLAIMED)
    if (folder / UNCLAIMED).exists():
        # Of a start that was killed before it claimed the folder.
        _discard_inputs(folder)
    else:
        foreign = [name for name in INPUTS if (folder / name).exists()]
        if foreign:
            raise OtherRunError(
                f"{folder} holds {', '.join(foreign)}, and no run: choose another "
                "--workdir"
            )
    atomic.write_text(folder / UNCLAIMED, json.dumps(config))
    return True


def _write_claim(
    folder: pathlib.Path, config: dict[str, Any], runtime: Collection[str]
) -> None:
    """Write the config, and the values that it replaces."""
    saved = read_json(folder / CONFIG)
    replaced = []
    if saved is not None:
        replaced = saved.pop(REPLACED, [])
        before, now = flatten(saved), flatten(config)
        changed = {
            name: before.get(name)
            for name in sorted(before.keys() | now.keys())
            if name.split(".")[0] not in runtime and before.get(name) != now.get(name)
        }
        if changed:
            date = datetime.datetime.now(datetime.UTC)
            replaced.append({"until": f"{date:%Y-%m-%d %H:%M:%S} UTC", **changed})
    # In this order: a config without an environment would count as layout 1.
    write_json(folder / "environment.json", environment())
    write_json(folder / CONFIG, config | ({REPLACED: replaced} if replaced else {}))
    (folder / UNCLAIMED).unlink(missing_ok=True)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Collection[str]
) -> list[str]:
    """Return a line for each leaf that differs between two configs.

    Args:
        old: every leaf, as JSON.
        new: likewise.
        free: top-level sections that may differ.
    """
    before, now = flatten(old), flatten(new)
    return [
        f"{name}: {before.get(name, '(absent)')} there, "
        f"{now.get(name, '(absent)')} asked for"
        for name in sorted(before.keys() | now.keys())
        if name.split(".")[0] not in free and before.get(name) != now.get(name)
    ]


def other_run(folder: pathlib.Path, different: Sequence[str]) -> OtherRunError:
    """Return the error for a folder with the run of a config that differs so."""
    lines = "\n".join(f"  {line}" for line in different)
    return OtherRunError(
        f"{folder} holds a run of another config:\n{lines}\n"
        "choose another --workdir, or remove that one"
    )


def _has_begun(folder: pathlib.Path) -> bool:
    """Whether a stage has saved a checkpoint or ended, for any seed."""
    saved = ("checkpoints/*", "outcome.json")
    patterns = [f"{depth}{name}" for depth in ("*/", "*/*/") for name in saved]
    return (folder / "results.json").exists() or any(
        next(folder.glob(pattern), None) is not None for pattern in patterns
    )


def _discard_inputs(folder: pathlib.Path) -> None:
    """Remove what a start wrote before it failed: another config may write others."""
    for name in INPUTS:
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
