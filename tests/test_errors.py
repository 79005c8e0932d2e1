"""Errors about what the user gave, and text that is safe to print."""

import errno
import os

import pytest

from memejax import console, errors


def test_control_characters_are_escaped():
    assert errors.printable("a\x1b[31mb\tc\nd") == "a\\x1b[31mb\\x09c\nd"
    assert errors.printable("\x9b\x7f\u202e\u2066é") == "\\x9b\\x7f\\u202e\\u2066é"
    assert errors.printable(os.fsdecode(b"\xff")) == "\\udcff"


def test_lines_for_the_console_are_escaped(capsys):
    console.say("memes of \x1b]0;title\x07")
    assert capsys.readouterr().out == "memes of \\x1b]0;title\\x07\n"


def test_a_user_error_ends_with_its_message(capsys, monkeypatch):
    monkeypatch.delenv("MEMEJAX_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended, errors.reported():
        raise errors.UserError("no folder \x1b")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no folder \\x1b\n"
    monkeypatch.setenv("MEMEJAX_TRACEBACK", "1")
    with pytest.raises(SystemExit), errors.reported():
        raise errors.UserError("no folder")
    assert "Traceback" in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    for error in (ValueError("a defect"), KeyError("x"), OSError("no file name")):
        with pytest.raises(type(error)), errors.reported():
            raise error
    with pytest.raises(OSError), errors.user_errors():
        raise OSError("no file name")


def test_errors_about_what_the_user_gave():
    with pytest.raises(errors.UserError, match="^data: not 3$"):
        with errors.user_errors("data: "):
            raise ValueError("not 3")
    with pytest.raises(errors.UserError, match="/nonexistent"):
        with errors.user_errors():
            open("/nonexistent")
    own = errors.UserError("own")
    with pytest.raises(errors.UserError) as caught, errors.user_errors("data: "):
        raise own
    assert caught.value is own


def test_a_full_disk_is_known_by_its_number_its_words_or_its_cause():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert errors.is_disk_full(full)
    assert errors.is_disk_full(RuntimeError("INTERNAL: No space left on device [28]"))
    try:
        try:
            raise full
        except OSError as error:
            raise RuntimeError("save failed") from error
    except RuntimeError as error:
        assert errors.is_disk_full(error)
    assert not errors.is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not errors.is_disk_full(None)
