"""Files of a run's folder."""

import json

import pytest

from memejax import folder


def test_a_file_takes_the_place_of_another_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.npy"
    with folder.replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(OSError, match="no space"), folder.replacing(path) as file:
        file.write(b"ha")
        raise OSError("no space")
    assert path.read_bytes() == b"whole"


def test_a_run_of_another_layout_is_refused_in_one_line(tmp_path):
    config = {"seed": 0}
    folder.claim(tmp_path, config, ())
    # The same again resumes.
    folder.claim(tmp_path, config, ())
    path = tmp_path / "environment.json"
    written = json.loads(path.read_text("utf-8"))
    assert written["layout"] == folder.LAYOUT
    # As the first releases wrote it.
    del written["layout"]
    path.write_text(json.dumps(written), "utf-8")
    with pytest.raises(folder.OtherRunError, match="a run of layout 1, ") as caught:
        folder.claim(tmp_path, config, ())
    assert "\n" not in str(caught.value)
