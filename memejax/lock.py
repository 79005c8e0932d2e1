"""A lock on a folder that one start of a command writes to."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator

from memejax.errors import UserError

FILE = "lock"
# What a file system without file locks answers.
_WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class LockedError(UserError):
    """Another process writes to the folder; the message names it."""


@contextlib.contextmanager
def lock(
    folder: str | os.PathLike[str], *, warn: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Hold a folder's lock for the time of the body.

    The system drops the lock when the process ends in whatever way, so a file that a
    killed process left behind locks nothing.

    Args:
        folder: made if missing.
        warn: called with a line if the file system has no locks; the body then runs
            without one.

    Raises:
        LockedError: naming the process that holds it, its machine and since when.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{folder} is in use by {_holder(file)}") from None
        except OSError as error:
            if error.errno not in _WITHOUT:
                raise
            warn(
                f"WARNING: {folder} lies on a file system without locks "
                f"({error.strerror}): "
                "do not start a second command on this folder"
            )
        file.seek(0)
        file.truncate()
        now = datetime.datetime.now(datetime.UTC)
        json.dump(
            {
                "process": os.getpid(),
                "host": platform.node(),
                "since": f"{now:%Y-%m-%d %H:%M:%S} UTC",
            },
            file,
        )
        file.flush()
        yield


def remove_unused(folder: str | os.PathLike[str]) -> None:
    """Remove a folder that holds nothing but the lock."""
    folder = pathlib.Path(folder)
    if [path.name for path in folder.iterdir()] == [FILE]:
        (folder / FILE).unlink()
        folder.rmdir()


def _holder(file) -> str:
    """The process that holds a lock, in words."""
    try:
        file.seek(0)
        held = json.load(file)
        return f"process {held['process']} on {held['host']} since {held['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process, which has not written its name yet"
