"""Files that are replaced whole."""

import os

import pytest

from memejax import atomic
from memejax.errors import UserError


def test_a_file_takes_the_place_of_another_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.npy"
    with atomic.replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(OSError, match="no space"), atomic.replacing(path) as file:
        file.write(b"ha")
        raise OSError("no space")
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.npy"]


def test_the_content_and_the_name_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_text(tmp_path / "a.json", "{}")
    part, folder = synced
    assert part.startswith(str(tmp_path / "a.json.")) and folder == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder"),
        ("pipe", "is a device or a pipe"),
        ("missing/scores.csv", "there is no folder"),
    ],
)
def test_targets_that_cannot_be_written(tmp_path, name, message):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=message):
        atomic.check_target(tmp_path / name)
    atomic.check_target(tmp_path / "new.csv")


def test_a_device_is_no_target():
    with pytest.raises(UserError, match="/dev/full is a device"):
        atomic.check_target("/dev/full")
