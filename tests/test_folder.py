"""Files of a run's folder."""

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
