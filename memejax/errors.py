"""Errors about what the user gave, and text that is safe to print.

A command's body runs under `reported()`: a `UserError` ends it with status 2 and its
message, without a traceback; MEMEJAX_TRACEBACK=1 shows the traceback too. Any other
exception is a defect and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STATUS = 2
# A full disk, an exceeded quota, a file above the size limit.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Their words in messages of libraries that do not raise OSError.
_FULL_WORDS = tuple(os.strerror(number) for number in _FULL)
# Characters that a terminal interprets, but for the end of a line.
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 10
}
# Characters that reorder or hide the text around them.
_CONTROL |= {
    code: f"\\u{code:04x}"
    for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class UserError(ValueError):
    """An error about what the user gave; its message alone says what to change."""


class NotFiniteError(UserError, FloatingPointError):
    """A loss or a score that is NaN or infinite: training has diverged."""


class DiskFullError(UserError):
    """A file could not be written because the disk is full."""


def printable(text: str) -> str:
    r"""Escape characters that a terminal would act on or could not encode.

    Newlines stay. Lone surrogates, by which Python keeps bytes of file names that are
    not UTF-8, are escaped too.

    >>> printable("a\x1b[2Jb\udcff")
    'a\\x1b[2Jb\\udcff'
    """
    return text.translate(_CONTROL).encode("utf-8", "backslashreplace").decode("utf-8")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, is a full disk."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in _FULL_WORDS):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


@contextlib.contextmanager
def user_errors(prefix: str = "") -> Iterator[None]:
    """Raise the body's ValueError, or OSError of a file, as UserError.

    For code that works on what the user gave: flags, configs, files.

    Args:
        prefix: put before the message of an error that is not yet a UserError.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(_make_room(error)) from error
        if error.filename is None:
            raise
        raise UserError(f"{prefix}{error}") from error
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error


def command(main: Callable[P, T]) -> Callable[P, T]:
    """Run a command's main function under `reported`."""

    @functools.wraps(main)
    def run(*args: P.args, **more: P.kwargs) -> T:
        with reported():
            return main(*args, **more)

    return run


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """End the program with status 2 and the message of a UserError of the body."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError) and not is_disk_full(error):
            raise
        if os.environ.get("MEMEJAX_TRACEBACK"):
            traceback.print_exc()
        sys.stdout.flush()
        message = str(error) if isinstance(error, UserError) else _make_room(error)
        print(f"error: {printable(message)}", file=sys.stderr, flush=True)
        raise SystemExit(STATUS) from None


def leave_out_full_disks() -> None:
    """Keep threads and libraries from printing tracebacks of a full disk.

    The command says so in one line. orbax, tensorstore and tensorboardX print some
    hundred lines more, from threads that notice it by themselves.
    """
    show_unraisable, show_in_thread = sys.unraisablehook, threading.excepthook

    def unraisable(raised: Any) -> None:
        # Of tensorstore's threads, whose writes end after the loop that began them.
        late = str(raised.exc_value) == "Event loop is closed"
        if not (late or is_disk_full(raised.exc_value)):
            show_unraisable(raised)

    def in_thread(raised: Any) -> None:
        # tensorboardX's thread goes on until its queue is gone.
        late = str(raised.exc_value) == "handle is closed"
        if not (late or is_disk_full(raised.exc_value)):
            show_in_thread(raised)

    def is_other(record: logging.LogRecord) -> bool:
        return not (record.exc_info and is_disk_full(record.exc_info[1]))

    sys.unraisablehook, threading.excepthook = unraisable, in_thread
    logging.getLogger("absl").addFilter(is_other)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.*never awaited")
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache")


def _make_room(error: Exception) -> str:
    return f"no space left ({error}): make room, and give the command again"
