"""Files that are replaced whole and last through a crash of the machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import BinaryIO

from memejax.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once it is completely written.

    An error or a kill leaves the old file in place. Once the body has ended, the new
    content is on the disk, and so is its name: after a loss of power there is the old
    file or the new one.
    """
    path = pathlib.Path(path)
    # Several processes, on several machines, may write the same file.
    part = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file by text in UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Remove the parts that killed processes of this machine left in a folder."""
    for part in pathlib.Path(folder).glob(f"*.{platform.node()}.*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            part.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Write a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems have no fsync of folders.
        pass
    finally:
        os.close(handle)


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before the work whose result it is to hold.

    Raises:
        UserError: if the path is a folder or a device, its folder does not exist, or
            it may not be written.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise UserError(
            f"{path} is a device or a pipe, expected the name of a file: the result "
            "would replace it"
        )
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: permission denied")
