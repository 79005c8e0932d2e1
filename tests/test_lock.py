"""Two starts on one folder."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from memejax import lock

HOLD = """
import sys, time
from memejax import lock
with lock.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of a folder."""
    done = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.readline() == "held\n"
    yield done
    done.kill()
    done.wait()
    done.stdout.close()


def test_the_second_start_is_told_who_holds_the_folder(tmp_path, other):
    with (
        pytest.raises(lock.LockedError) as caught,
        lock.lock(tmp_path),
    ):
        raise AssertionError("both hold it")
    said = str(caught.value)
    assert f"in use by process {other.pid} on " in said and " since 20" in said
    assert "\n" not in said


def test_a_killed_process_holds_nothing(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert (tmp_path / lock.FILE).exists()
    with lock.lock(tmp_path):
        pass


def test_one_after_the_other(tmp_path):
    folder = tmp_path / "new"
    for _ in range(2):
        with lock.lock(folder):
            assert str(os.getpid()) in (folder / lock.FILE).read_text("utf-8")
            time.sleep(0.01)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    lines = []
    with lock.lock(tmp_path, warn=lines.append):
        assert len(lines) == 1 and "No locks available" in lines[0]


def test_any_other_error_is_one(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output"), lock.lock(tmp_path):
        pass
