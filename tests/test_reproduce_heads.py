"""The comparison of heads: its trials, its bootstrap and its table."""

import json

import numpy as np
import pytest
from graph_support import write_store
from support import refused

from memejax import metrics
from memejax.reproduce import __main__ as command_line
from memejax.reproduce.heads import command, methods, protocol
from memejax.reproduce.heads.protocol import Memes, Trial
from memejax.stages.parts.heads.training import Job


def memes(n=120, seed=0):
    """Memes of which every caption has two, and 20 more of another split."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n + 20).astype(np.int32)
    groups = np.concatenate([np.arange(n) // 2, 1000 + np.arange(20)])
    return Memes(
        {"train": np.arange(n), "dev_seen": np.arange(n, n + 20)},
        labels,
        [f"caption {g}" for g in groups],
        groups,
        rng.integers(0, 2**63, n + 20).astype(np.uint64),
    )


def test_no_caption_is_on_two_sides():
    known = memes()
    found = protocol.trials(known, range(3))
    assert len(found) == 3 * 6
    for seed in range(3):
        own = [trial for trial in found if trial.job.seed == seed]
        folds = [trial.tests["fold"] for trial in own if "fold" in trial.tests]
        # Every meme is tested once.
        np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(120))
        assert set(own[-1].tests) == {"held out", "dev_seen"}
        for trial in own:
            sides = [trial.job.train, trial.job.held_out]
            sides += [trial.tests["fold"]] if "fold" in trial.tests else []
            captions = [set(known.groups[rows]) for rows in sides]
            for i, one in enumerate(captions):
                assert not any(one & other for other in captions[i + 1 :])
            assert 0.1 < len(sides[1]) / (len(sides[0]) + len(sides[1])) < 0.3
    one, other = found[0].tests["fold"], found[6].tests["fold"]
    assert set(one) != set(other)


def test_memes_whose_caption_or_picture_is_known():
    groups = np.array([0, 1, 2, 0, 3, 4])
    bits = [0, 2**40 - 1, 2**63, 2**20 - 1, 0b1111, 2**63 + 0b11111]
    known = Memes(
        {"train": np.arange(3), "dev": np.arange(3, 6)},
        np.zeros(6, np.int32),
        [""] * 6,
        groups,
        np.array(bits, np.uint64),
    )
    trial = Trial(Job(0, np.array([0, 1]), np.array([2])), {})
    # The first has a known caption, the second a picture 4 bits from a known one, the
    # third one of 5 bits.
    new = protocol.unseen(known, trial, np.arange(3, 6))
    assert new.tolist() == [False, False, True]


def test_weighted_areas():
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 8, 60) / 2, rng.integers(0, 2, 60)
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    got = protocol.weighted_auroc(scores, labels, weights)
    for row, area in zip(weights, got, strict=True):
        assert area == pytest.approx(metrics.auroc(scores, labels, weights=row))


def test_the_bootstrap_draws_captions():
    """A method that is better everywhere has an interval above 0; itself has 0."""
    known = memes()
    trials = [t for t in protocol.trials(known, range(2)) if "fold" in t.tests]
    rng = np.random.default_rng(4)
    noise = [rng.normal(size=len(t.tests["fold"])) for t in trials]
    signal = [
        known.labels[t.tests["fold"]] + n for t, n in zip(trials, noise, strict=True)
    ]
    found = protocol.difference(known, trials, signal, noise, resamples=200)
    areas = [
        [
            metrics.auroc(s, known.labels[t.tests["fold"]])
            for t, s in zip(trials, of, strict=True)
        ]
        for of in (signal, noise)
    ]
    assert found["mean"] == pytest.approx(np.mean(areas[0]) - np.mean(areas[1]))
    assert 0 < found["low"] < found["mean"] < found["high"]
    assert found["p"] == pytest.approx(2 / 200)
    same = protocol.difference(known, trials, noise, noise, resamples=50)
    assert same == {"mean": 0, "low": 0, "high": 0, "p": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "features")


@pytest.fixture
def small(monkeypatch):
    """Two settings of a search, small and few."""
    settings = {
        "small": dict(width=16, layers=1, lr=3e-2, epochs=40.0),
        "smaller": dict(width=4, layers=1, lr=1e-3, epochs=1.0),
    }
    monkeypatch.setattr(methods, "SEARCH", {"demo": settings})
    monkeypatch.setattr(methods, "STRENGTHS", (0.1, 1.0))
    monkeypatch.setattr(protocol, "RESAMPLES", 50)


def test_the_table(store, small, tmp_path, monkeypatch):
    names = ["kernel", "align", "memeclip"]
    options = dict(features=str(store), workdir=tmp_path, seeds=2, names=names)
    made = command.perform(command.prepare(**options))
    rows = {row[0]: dict(zip(made.columns, row, strict=True)) for row in made.rows}
    assert list(rows) == [*methods.BASELINES, "kernel", "align", "memeclip", "constant"]
    assert rows["memeclip"]["AUROC, five folds"] == "not applicable"
    # A product, which a sum of both features has not.
    product = float(rows["align"]["AUROC, five folds"].split()[0])
    assert product > 0.8 > float(rows["linear"]["AUROC, five folds"].split()[0])
    assert rows["align"][f"difference to {made.figures['best_baseline']}"].startswith(
        "+"
    )
    assert rows["align"]["published"] == "81.6 / 85.8"
    assert set(made.figures["rows"]["align"]["settings"]) <= {"small", "smaller"}
    assert "AUROC, dev_seen" in made.columns and "AUROC, test_seen" in made.columns
    for suffix in ("md", "csv", "html", "json"):
        assert (tmp_path / f"heads.{suffix}").stat().st_size > 500
    saved = json.loads((tmp_path / "heads.json").read_text())
    assert saved["figures"]["rows"]["align"]["fold"]["auroc"][0] == pytest.approx(
        product, abs=1e-4
    )

    # What is measured is not measured again.
    def never(*_):
        raise AssertionError

    for name in (*methods.BASELINES, "kernel", "align"):
        monkeypatch.setitem(methods.METHODS, name, never)
    again = command.perform(command.prepare(**options))
    assert again.rows == made.rows
    with pytest.raises(ValueError, match="of other features, seeds or settings"):
        command.perform(command.prepare(**options | {"seeds": 3}))


def test_every_trial_is_chosen_by_its_own_held_out_memes(store, small):
    opened = command.open_store(store)
    known = protocol.read_memes(opened)
    search = methods.SEARCH["demo"]
    inputs = command._inputs(opened, known)._replace(search=search)
    trials = protocol.trials(known, [0])
    scored = methods.METHODS["align"](inputs, trials, lambda line: None)
    each = {
        setting: methods._fit("align", changes, inputs, trials, lambda line: None)
        for setting, changes in search.items()
    }
    for i, setting in enumerate(scored.settings):
        ratings = {name: found[i].rating for name, found in each.items()}
        assert ratings[setting] == max(ratings.values())
        np.testing.assert_allclose(
            scored.logits[i], each[setting][i].logits["head"], atol=1e-5
        )


def test_cross_is_searched_narrow():
    search = {"a": dict(width=64, lr=1e-3), "b": dict(width=256, lr=1e-3)}
    inputs = methods.Inputs(None, {}, search=search)
    assert list(methods.settings_of("align", inputs)) == ["a", "b"]
    assert list(methods.settings_of("cross", inputs)) == ["a"]
    wide = inputs._replace(wide=True)
    assert list(methods.settings_of("cross", wide)) == ["a", "b"]


def test_what_cannot_be_compared(store, tmp_path, capsys):
    with pytest.raises(ValueError, match="heads needs --features=STORE"):
        command.prepare(features=None)
    with pytest.raises(ValueError, match=r"got methods \['alining'\] and 20 seeds"):
        command.prepare(features=str(store), names=["alining"])
    plan = command.prepare(features=str(store), workdir=tmp_path, table_only=True)
    with pytest.raises(ValueError, match="no method is measured in"):
        command.perform(plan)
    with refused(capsys, "heads is made alone, not with tables"):
        command_line.main(["heads", "table1"])
    with refused(capsys, "heads takes --features, --preset, --workdir, --seeds and"):
        command_line.main(["heads", f"--features={store}", "--set", "heads.width=3"])
    unknown = write_store(tmp_path / "unknown", without=("train",))
    with pytest.raises(ValueError, match="needs training memes of both labels, and"):
        command.prepare(features=str(unknown))
