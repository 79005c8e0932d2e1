"""What cannot run is refused before a folder is claimed, in words."""

import json
import subprocess
import sys

import pytest
from support import ROOT, shrunk, tiny

from memejax import train
from memejax.config import load_config
from memejax.data import synthetic_memes
from memejax.errors import UserError

ADMAW = {"finetune.optimizer.rule": "admaw"}


def start(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "memejax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        **more,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ADMAW, "finetune.optimizer.rule: got 'admaw'.*did you mean 'adamw'"),
        # Found only by building the stages.
        ({"finetune.optimizer.warmup": 13}, "stage finetune.*got warmup 13"),
        ({"finetune.optimizer.groups.cnn.pattern": "none"}, "stage finetune.*exactly"),
        ({"model.image.vit.heads": 3}, "stage pretrain.*heads|divide"),
        ({"finetune.accumulate": 5}, "stage finetune"),
        ({"finetune.batch": 0}, "finetune.batch: got 0"),
    ],
)
def test_a_wrong_leaf_claims_no_folder(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train.run(tiny(**change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_later_stage_is_checked_before_the_first_is_trained(tmp_path):
    """The corrected command runs in the same folder."""
    with pytest.raises(UserError, match="adamw"):
        train.run(tiny(**ADMAW), tmp_path / "run")
    config = tiny(**{"pretrain.steps": 2, "finetune.steps": 4})
    config.update_from_flattened_dict(
        {"pretrain.optimizer.warmup": 1, "finetune.optimizer.warmup": 1}
    )
    assert train.run(config, tmp_path / "run")["seeds"]["0"]["finetune"]["steps"] == 4


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda label: 1, "fine-tuning needs training memes of both labels"),
        ("dev_seen", lambda label: 0, "needs memes of both labels: 4 of its 4"),
        ("dev_seen", lambda label: None, "0 of its 4 memes are labelled"),
    ],
)
def test_labels_are_looked_at_first(tmp_path, split, change, message):
    root = tmp_path / "memes"
    synthetic_memes.write(root, train=16, dev=4, test=4, size=24, seed=0)
    path = root / f"{split}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["label"] = change(line["label"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=message):
        train.run(tiny(**{"data.root": str(root)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_section_of_a_stage_that_has_not_begun_may_change(tmp_path):
    """What pretraining took is not lost when fine-tuning has to change."""
    short = {"pretrain.steps": 2, "pretrain.optimizer.warmup": 1}
    old = tiny(stages=("pretrain", "finetune", "evaluate"), **short)
    path = tmp_path / "run"
    results = train.run(old, path)
    # As after a kill between the stages.
    for name in ("results.json", "report.html"):
        (path / name).unlink()
    for name in ("finetune", "evaluate"):
        subprocess.run(["rm", "-r", path / "0" / name], check=True)
    new = tiny(stages=old.stages, **short, **{"finetune.steps": 4})
    new.finetune.optimizer.warmup = 1
    again = train.run(new, path)["seeds"]["0"]
    assert again["pretrain"] == results["seeds"]["0"]["pretrain"]
    assert again["finetune"]["steps"] == 4
    written = json.loads((path / "config.json").read_text())
    assert written["finetune"]["steps"] == 4
    assert written["replaced"][0]["finetune.steps"] == 12
    # Now that it has been read, no more.
    with pytest.raises(UserError, match="finetune.steps: 4 there, 12 asked for"):
        train.run(old, path)


@pytest.mark.parametrize(
    ("kind", "leaf", "value", "message"),
    [
        ("bac", "curriculum.tasks", 10_000, "stage classify"),
        ("dsac", "curriculum.ratio_schedule", "linaer", "did you mean 'linear'"),
        ("bac", "baseline", "/nonexistent", "baseline=/nonexistent holds no scores"),
    ],
)
def test_curricula_are_checked_too(tmp_path, kind, leaf, value, message):
    config = shrunk(load_config(str(ROOT / "configs/curriculum.py")), {})
    config.update_from_flattened_dict(
        {
            "seeds": 1,
            "data.train": 64,
            "data.validation": 16,
            "data.test": 16,
            "curriculum.kind": kind,
            leaf: value,
        }
    )
    with pytest.raises(UserError, match=message):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_ends_with_one_line_and_status_2(tmp_path):
    common = ["--config=configs/cass_mm.py", f"--workdir={tmp_path / 'run'}"]
    for flags, message in [
        (["--config.data.root=/nonexistent"], "no data folder '/nonexistent'"),
        (["--config.finetune.optimzer.rule=adam"], "finetune.optimizer.rule"),
        (["--config.seeds=many"], "--config.seeds=many"),
        (["--config.seeds=0"], "--config.seeds: got 0"),
        (["--workdri=a"], "workdri"),
        (["extra"], "unexpected arguments: extra"),
    ]:
        done = start(*common, *flags)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    done = start("--config=configs/cass_mm.py:demi")
    assert done.returncode == 2 and "unknown preset 'demi'" in done.stderr


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path):
    """A limit on the size of files stands for the disk."""
    config = tiny(stages=("finetune", "evaluate"))
    program = (
        "import resource, sys; sys.path.insert(0, 'tests');"
        "from support import tiny; from memejax import command_line, errors, train;"
        "command_line.prepare();"
        "config = tiny(stages=('finetune', 'evaluate'));"
        "module = sys.modules['memejax.train.run'];"
        "real = module._run;"
        "limit = lambda *a: (resource.setrlimit(resource.RLIMIT_FSIZE,"
        " (30000, resource.RLIM_INFINITY)), real(*a))[1];"
        "module._run = limit\n"
        f"with errors.reported(): train.run(config, {str(tmp_path / 'run')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    (error,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert "no space left" in error and "nothing is saved yet" in error
    assert train.run(config, tmp_path / "run")["seeds"]["0"]["finetune"]["steps"] == 12
