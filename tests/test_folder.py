"""Files of a run's folder."""

import json

import pytest

from memejax import errors, folder


def claim(path, config, **more):
    with folder.claim(path, config, **more) as claimed:
        return claimed


def test_a_run_of_another_layout_is_refused_in_one_line(tmp_path):
    config = {"seed": 0}
    claim(tmp_path, config)
    # The same again resumes.
    claim(tmp_path, config)
    path = tmp_path / "environment.json"
    written = json.loads(path.read_text("utf-8"))
    assert written["layout"] == folder.LAYOUT
    # As the first releases wrote it.
    del written["layout"]
    path.write_text(json.dumps(written), "utf-8")
    with pytest.raises(folder.OtherRunError, match="a run of layout 1, ") as caught:
        claim(tmp_path, config)
    assert "\n" not in str(caught.value)


def test_a_start_that_failed_before_its_first_checkpoint_keeps_nobody_out(tmp_path):
    claim(tmp_path, {"seed": 0, "data": {"dev": "dev_seen"}})
    for name in ("memes", "cache", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    changed = {"seed": 0, "data": {"dev": "validation"}}
    claim(tmp_path, changed)
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == changed
    # What the other config wrote is not taken for this one's.
    assert not any((tmp_path / name).exists() for name in ("memes", "cache"))


@pytest.mark.parametrize(
    "saved",
    ["0/pretrain/checkpoints/3", "train/checkpoints/8", "0/pretrain/outcome.json"],
)
def test_a_run_that_has_begun_keeps_its_folder(tmp_path, saved):
    claim(tmp_path, {"seed": 0})
    (tmp_path / saved).mkdir(parents=True)
    with pytest.raises(folder.OtherRunError, match="seed: 0 there, 1 asked for"):
        claim(tmp_path, {"seed": 1})


def test_a_body_that_fails_leaves_a_new_folder_as_it_was(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(KeyError), folder.claim(tmp_path, {"seed": 0}):
        (tmp_path / "memes").mkdir()
        assert (tmp_path / "unclaimed.json").exists()
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    # And one of a run as it was.
    claim(tmp_path, {"seed": 0})
    (tmp_path / "memes").mkdir()
    with pytest.raises(KeyError), folder.claim(tmp_path, {"seed": 0}):
        raise KeyError
    assert (tmp_path / "memes").exists() and (tmp_path / "config.json").exists()


def test_what_a_killed_start_wrote_is_not_kept(tmp_path):
    (tmp_path / "unclaimed.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()
    with folder.claim(tmp_path, {"seed": 0}):
        assert not (tmp_path / "tokenizer").exists()
    assert not (tmp_path / "unclaimed.json").exists()


def test_a_folder_of_somebody_elses_files_is_not_claimed(tmp_path):
    (tmp_path / "memes").mkdir()
    with pytest.raises(folder.OtherRunError, match="holds memes, and no run"):
        claim(tmp_path, {"seed": 0})
    assert (tmp_path / "memes").exists()


def test_sections_that_nothing_has_read_may_change_and_both_values_stay(tmp_path):
    old = {"seed": 0, "finetune": {"steps": 3, "batch": 2}, "log": {"every": 1}}
    claim(tmp_path, old, runtime=("log",))
    (tmp_path / "0/pretrain/checkpoints/3").mkdir(parents=True)
    new = {"seed": 0, "finetune": {"steps": 5, "batch": 2}, "log": {"every": 2}}
    with pytest.raises(folder.OtherRunError, match="finetune.steps: 3 there, 5 asked"):
        claim(tmp_path, new, runtime=("log",))
    claim(tmp_path, new, runtime=("log",), unread=lambda _: {"finetune"})
    assert folder.read_config(tmp_path) == new
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (replaced,) = written["replaced"]
    assert replaced.pop("until").endswith("UTC") and replaced == {"finetune.steps": 3}
    # Once more: the first values stay.
    claim(tmp_path, new, runtime=("log",))
    written = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert len(written["replaced"]) == 1


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "outcome.json").write_text('{"steps": 1')
    with pytest.raises(errors.UserError, match="outcome.json is damaged"):
        folder.read_json(tmp_path / "outcome.json")


def test_a_damaged_config_refuses_the_folder(tmp_path):
    claim(tmp_path, {"seed": 0})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.UserError, match="config.json is damaged"):
        claim(tmp_path, {"seed": 0})
