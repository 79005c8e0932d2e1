"""The command of a study: what it runs, skips, refuses and writes."""

import json
import math

import numpy as np
import pytest
from ml_collections import ConfigDict
from support import refused

from memejax import folder, train
from memejax.datasets import labelled
from memejax.models.convnet import CONVNETS
from memejax.reproduce import __main__ as program
from memejax.reproduce.study import arms, command

TINY = {
    "data.train": "64",
    "data.validation": "30",
    "data.test": "30",
    "model.perceptron.hidden": "(8,)",
    "train.steps": "8",
    "train.batch": "8",
    "train.eval_every": "4",
    "curriculum.warmup": "2",
    "curriculum.refresh": "3",
    "curriculum.passes": "2",
    "checkpoint.every": "8",
    "log.every": "8",
}


@pytest.mark.parametrize("data", sorted(arms.SETUPS))
def test_arms_are_distinct_and_the_family_is_the_declared_one(data):
    every = arms.arms(data, steps=160)
    assert every[0].name == arms.REFERENCE
    assert len({arm.name for arm in every}) == len(every)
    assert len({json.dumps(dict(arm.overrides)) for arm in every}) == len(every)
    family = {arm.name for arm in every if arm.primary}
    expected = {f"bac-{s}-easy-2" for s in ("aadt", "entropy", "bald")}
    expected |= {f"dsac-{s}-easy-10" for s in ("aadt", "entropy", "bald")}
    assert family == expected | ({"switch-2"} if data == "geoshapes" else set())
    few = {arm.name for arm in arms.arms(data, steps=160, only_primary=True)}
    assert few == family | {"uniform", "replacement", "random-2"}
    # Patterns: alone, and beside the family.
    hard = {"dsac-aadt-hard-10", "dsac-aadt-hard-10-winsorized"}
    named = [a.name for a in arms.arms(data, steps=160, names=["*aadt-hard-10*"])]
    assert set(named) == {"uniform", "dsac-aadt-hard-100"} | hard | {
        "dsac-aadt-hard-100-winsorized"
    }
    both = arms.arms(data, steps=160, names=sorted(hard), only_primary=True)
    assert {a.name for a in both} == few | hard
    with pytest.raises(ValueError, match="no arm 'dsac-aadt-easy': did you mean dsac"):
        arms.arms(data, steps=160, names=["dsac-aadt-easy"])


@pytest.mark.parametrize("data", sorted(arms.SETUPS))
def test_every_arm_has_a_config_of_the_same_updates(tmp_path, data):
    root = str(tmp_path) if arms.SETUPS[data].files else None
    leaves = TINY | {"model.network": "perceptron"}
    base = command.base_config(data, seeds=3, root=root, leaves=leaves)
    for arm in arms.arms(data, steps=8):
        config = command.arm_config(base, arm, tmp_path)
        assert config.train.steps == (16 if arm.name == "uniform-twice" else 8)
        assert config.seeds == 3 and config.train.batch == 8
        ranked = arm.name.startswith("bac")
        assert (config.baseline == str(tmp_path / "uniform")) == ranked


def test_the_paper_only_caps_the_ratio():
    """The temperature starts at 1 and is only ever raised, in every arm."""
    for preset, expected in (("demo", 0.0), ("full", 0.0), ("paper", 1.0)):
        every = arms.arms("mnist", steps=160, preset=preset)
        dsac = {arm.name: arm for arm in every if arm.group == "dsac"}
        lowest = {
            arm.overrides["curriculum.min_temperature"]
            for arm in dsac.values()
            if arm.ratio != math.inf
        }
        assert lowest == {expected}
        free = dsac["dsac-entropy-easy-inf"].overrides
        assert free["curriculum.min_temperature"] == 1.0
        assert dsac["dsac-aadt-hard-10-winsorized"].overrides[
            "curriculum.winsorize"
        ] == pytest.approx(0.05)
        assert dsac["dsac-aadt_squared-easy-10"].score == "aadt_squared"
        # In the other presets draws by the other sampler stand beside the default.
        other = dsac.get("dsac-entropy-easy-10-categorical")
        assert (other is None) == (preset == "paper")
        if other is not None:
            assert other.overrides["curriculum.draws"] == "categorical"
            assert other.variant == "categorical" and not other.primary
        # Variants would stand in for plain arms in the chart over ratios.
        plain = [(a.score, a.favour, a.ratio) for a in dsac.values() if not a.variant]
        assert len(plain) == len(set(plain))


@pytest.mark.parametrize("preset", ["full", "paper"])
def test_presets_are_of_their_data_set(tmp_path, preset):
    made = {
        data: command.base_config(
            data,
            preset=preset,
            root=str(tmp_path) if arms.SETUPS[data].files else None,
            leaves={},
        )
        for data in arms.SETUPS
    }
    assert made["geoshapes"].model.network == "perceptron"
    assert made["geoshapes"].data.train == 10_000
    # All pictures but those of validation.
    assert made["mnist"].data.train is None and made["cifar10"].data.train is None
    cifar = made["cifar10"]
    assert cifar.model.network == "convnet" and cifar.train.batch == 64
    assert cifar.model.convnet.dense == CONVNETS["convnet_cifar10"]["dense"]
    # 50 epochs of 45,000.
    assert cifar.train.steps * 64 == pytest.approx(50 * 45_000, rel=1e-3)


@pytest.fixture
def few(monkeypatch):
    """A study of three arms."""
    every = arms.arms

    def chosen(data, **options):
        names = ("uniform", "bac-entropy-easy-2", "dsac-entropy-easy-10")
        return [arm for arm in every(data, **options) if arm.name in names]

    monkeypatch.setattr(command, "arms", chosen)


def check_pictures(made, where):
    """Of each class those with the lowest and the highest scores, first to last."""
    config = ConfigDict(folder.read_config(where))
    data = labelled.load(config, range(2))
    steps = sorted(int(f.stem) for f in (where / "train/refreshes").glob("*.npz"))
    middle = steps[len(steps) // 2]
    assert set(made.pictures) == {
        (where.name, label, step)
        for label in data.classes
        for step in (steps[0], middle, steps[-1])
    }
    for (_, label, step), (low, high) in made.pictures.items():
        with np.load(where / f"train/refreshes/{step}.npz") as saved:
            rows, u = saved["rows"], saved["uncertainty"]
        own = data.labels[rows] == data.classes.index(label)
        ordered = rows[own][np.argsort(u[own], kind="stable")]
        count = min(8, own.sum())
        np.testing.assert_array_equal(low, data.images[ordered[:count]])
        assert len(high) == count and (high[0] == data.images[ordered[-1]]).all()


def test_a_study_runs_what_is_missing_and_writes_its_files(tmp_path, few, monkeypatch):
    options = dict(seeds=2, workdir=tmp_path, leaves=TINY)
    with pytest.raises(ValueError, match="the arm uniform is not finished"):
        command.study("geoshapes", table_only=True, **options)
    made = command.study("geoshapes", **options)
    assert [arm.finished for arm in made.arms] == [True] * 3
    for arm in made.arms:
        results = folder.read_json(tmp_path / arm.name / "results.json")
        np.testing.assert_array_equal(arm.test_error[:, -1], results["errors"]["test"])
        assert (tmp_path / arm.name / "report.html").exists()
    page = (tmp_path / "study.html").read_text()
    assert "DSAC, entropy, easy favoured, ratio 10" in page and "data:image" in page
    assert (tmp_path / "study.csv").exists()
    assert "BAC, entropy" in (tmp_path / "study.md").read_text()
    check_pictures(made, tmp_path / "dsac-entropy-easy-10")

    def run(*_):
        raise AssertionError("a finished arm was run again")

    monkeypatch.setattr(train, "run", run)
    command.study("geoshapes", **options)
    with pytest.raises(folder.OtherRunError, match=r"train\.steps: 8 there, 16 asked"):
        command.study("geoshapes", **options | {"leaves": TINY | {"train.steps": "16"}})
    # One arm less: it still counts as declared, and has no verdict.
    (tmp_path / "bac-entropy-easy-2" / "results.json").unlink()
    part = command.study("geoshapes", table_only=True, **options)
    assert [arm.finished for arm in part.arms] == [True, False, True]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["curriculum", "--data=letters"], "unknown data 'letters'"),
        (["curriculum", "--set", "train.stepz=3"], "no leaf train.stepz"),
        (["curriculum", "--set", "seeds=3"], "sets \\['seeds'\\]"),
        (["curriculum", "--shard=0/2"], "--shard is for tables"),
        (["curriculum", "--root=x"], "geoshapes takes no --root"),
        (["curriculum", "--data=mnist"], "mnist needs --root=FOLDER"),
    ],
)
def test_bad_arguments_are_named(tmp_path, argv, message, capsys):
    with refused(capsys, message):
        program.main([*argv, f"--workdir={tmp_path}"])
