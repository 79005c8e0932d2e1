"""Digests of a folder's files: written when it is whole, verified before it is read."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zlib
from concurrent import futures
from typing import Any

FILE = "digests.json"
# Several at once use all cores, and hide the latency of a disk.
_THREADS = min(8, 2 * (os.cpu_count() or 1))
# Bytes of a part of a file, and of one read.
_PART, _BLOCK = 2**25, 2**20


def write(folder: str | os.PathLike[str]) -> None:
    """Write a digest of every file below a folder.

    Args:
        folder: whole, and not written to any more.
    """
    folder = pathlib.Path(folder)
    digests = _digests(folder, _files(folder))
    part = folder / f"{FILE}.part"
    part.write_text(json.dumps(digests, indent=1, sort_keys=True), "utf-8")
    # Not synced: that would wait for the arrays too, a fifth of the time of a save. A
    # loss of power before they are all on the disk is found out as any other damage.
    part.replace(folder / FILE)


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
    changed = [
        name
        for name in read
        if found[name] != known[name] and not _is_earlier(folder / name, known[name])
    ]
    return f"{folder / changed[0]} is damaged" if changed else None


def _is_earlier(path: pathlib.Path, known: Any) -> bool:
    """Whether a large file has the SHA-256 that an earlier memejax wrote for it."""
    if path.stat().st_size <= _PART:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == known


def _files(folder: pathlib.Path) -> list[str]:
    """Paths of all files below a folder but the digests, relative to it."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        # Of the digests themselves a kill may leave a part.
        if path.is_file() and not path.name.startswith(FILE)
    )


def _digests(folder: pathlib.Path, names: list[str]) -> dict[str, str]:
    """Return the digest of each file: SHA-256, or the CRC-32 of a large one's parts.

    Against damage, not against forgery: a CRC misses one damage in 4 billion, and no
    single bit. Of a state of the papers' size SHA-256 took a quarter of the time of
    its save, CRC-32 of parts in parallel a twentieth.
    """
    sizes = {name: (folder / name).stat().st_size for name in names}
    parts = [
        (name, start)
        for name, size in sizes.items()
        for start in range(0, max(1, size), _PART)
    ]

    def digest(part: tuple[str, int]) -> str:
        name, start = part
        if sizes[name] <= _PART:
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        found, left = 0, _PART
        with (folder / name).open("rb") as file:
            file.seek(start)
            while left and (block := file.read(min(_BLOCK, left))):
                found = zlib.crc32(block, found)
                left -= len(block)
        return f"{found:08x}"

    with futures.ThreadPoolExecutor(_THREADS) as pool:
        of_parts = list(pool.map(digest, parts))
    joined: dict[str, list[str]] = {}
    for (name, _), value in zip(parts, of_parts, strict=True):
        joined.setdefault(name, []).append(value)
    return {name: " ".join(values) for name, values in joined.items()}
