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


def test_a_start_that_failed_before_its_first_checkpoint_keeps_nobody_out(tmp_path):
    folder.claim(tmp_path, {"seed": 0, "data": {"dev": "dev_seen"}}, ())
    for name in ("memes", "cache", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    changed = {"seed": 0, "data": {"dev": "validation"}}
    folder.claim(tmp_path, changed, ())
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == changed
    # What the other config wrote is not taken for this one's.
    assert not any((tmp_path / name).exists() for name in ("memes", "cache"))


@pytest.mark.parametrize(
    "saved",
    ["0/pretrain/checkpoints/3", "train/checkpoints/8", "0/pretrain/outcome.json"],
)
def test_a_run_that_has_begun_keeps_its_folder(tmp_path, saved):
    folder.claim(tmp_path, {"seed": 0}, ())
    (tmp_path / saved).mkdir(parents=True)
    with pytest.raises(folder.OtherRunError, match="seed: 0 there, 1 asked for"):
        folder.claim(tmp_path, {"seed": 1}, ())
