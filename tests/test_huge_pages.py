"""A command starts again with huge pages: when, and as what."""

import os
import subprocess
import sys

import pytest

from memejax import huge_pages

OURS = ["python", "-m", "memejax.main", "--config=x.py"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Environments that a program was started with; a system that has huge pages."""
    found = []
    modes = tmp_path / "enabled"
    modes.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_MODES", modes)
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(os, "execve", lambda *given: found.append(given))
    monkeypatch.setattr(sys, "orig_argv", OURS)
    for name in (huge_pages.VARIABLE, huge_pages.OFF):
        monkeypatch.delenv(name, raising=False)
    return found


def test_starts_again_once(started, monkeypatch):
    monkeypatch.setenv(huge_pages.VARIABLE, "glibc.malloc.arena_max=2")
    huge_pages.restart()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, OURS)
    both = "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    assert environment == {**os.environ, huge_pages.VARIABLE: both}
    monkeypatch.setenv(huge_pages.VARIABLE, both)
    huge_pages.restart()
    assert len(started) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["python", "-m", "pytest", "tests"],
        ["python", "-m", "cProfile", "-m", "memejax.main"],
        ["python", "-c", "import memejax"],
        ["python"],
        ["python", "train.py", "memejax"],
    ],
)
def test_programs_of_others_stay(started, monkeypatch, arguments):
    monkeypatch.setattr(sys, "orig_argv", arguments)
    huge_pages.restart()
    assert not started


def test_the_installed_command_starts_again(started, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "/usr/bin/memejax", "main"])
    huge_pages.restart()
    assert len(started) == 1


def test_where_there_are_none(started, monkeypatch, tmp_path):
    monkeypatch.setenv(huge_pages.OFF, "0")
    huge_pages.restart()
    monkeypatch.delenv(huge_pages.OFF)
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.34")
    huge_pages.restart()
    monkeypatch.setattr(os, "confstr", lambda _: None)
    huge_pages.restart()
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(huge_pages, "_MODES", tmp_path / "gone")
    huge_pages.restart()
    for mode in ("[always] madvise never", "always madvise [never]"):
        (tmp_path / "modes").write_text(mode)
        monkeypatch.setattr(huge_pages, "_MODES", tmp_path / "modes")
        huge_pages.restart()
    assert not started


def test_a_real_command(tmp_path):
    """It goes on under the same process id, and reads its standard input."""
    environment = {k: v for k, v in os.environ.items() if k != huge_pages.VARIABLE}
    arguments = ["-m", "memejax.known", "info", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "error:" in done.stderr
