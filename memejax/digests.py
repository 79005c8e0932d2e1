"""Digests of a folder's files: written when it is whole, verified before it is read."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from concurrent import futures

from memejax import atomic

FILE = "digests.json"
# Digests read a file as fast as a disk gives it; several at once hide its latency.
_THREADS = 4


def write(folder: str | os.PathLike[str]) -> None:
    """Write the SHA-256 digest of every file below a folder, durably.

    Args:
        folder: whole, and not written to any more.
    """
    folder = pathlib.Path(folder)
    digests = _digests(folder, _files(folder))
    atomic.write_text(folder / FILE, json.dumps(digests, indent=1, sort_keys=True))


def exists(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder has digests."""
    return (pathlib.Path(folder) / FILE).is_file()


def problem(
    folder: str | os.PathLike[str], *, largest: int | None = None
) -> str | None:
    """Return what differs from the digests, in words; None if nothing does.

    Args:
        folder: with digests.
        largest: bytes of the largest file whose contents are read; None reads all.
            Of a larger one only the existence is checked.
    """
    folder = pathlib.Path(folder)
    try:
        known = json.loads((folder / FILE).read_text("utf-8"))
        if not isinstance(known, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        return f"{folder / FILE} cannot be read ({error})"
    there = {name: folder / name for name in known}
    missing = [name for name, path in there.items() if not path.is_file()]
    if missing:
        return f"{folder / missing[0]} is missing"
    unknown = set(_files(folder)) - known.keys()
    if unknown:
        return f"{folder / min(unknown)} was not there when it was saved"
    read = [
        name
        for name, path in there.items()
        if largest is None or path.stat().st_size <= largest
    ]
    try:
        found = _digests(folder, read)
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror})"
    changed = [name for name in read if found[name] != known[name]]
    return f"{folder / changed[0]} is damaged" if changed else None


def _files(folder: pathlib.Path) -> list[str]:
    """Paths of all files below a folder but the digests, relative to it."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        # Of the digests themselves a kill may leave a part.
        if path.is_file() and not path.name.startswith(FILE)
    )


def _digests(folder: pathlib.Path, names: list[str]) -> dict[str, str]:
    def digest(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with futures.ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))
