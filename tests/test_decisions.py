"""A run's threshold by a rule: what is read, what is refused, what comes back."""

import json
import re
import shutil
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from memejax import decisions, folder, labels, metrics
from memejax.bench import promise
from memejax.datasets import Data, Split
from memejax.decide.__main__ import main
from memejax.errors import UserError
from memejax.metrics.thresholds import CannotCertifyError, parse_rule
from memejax.report import decision as report_decision


def split(name, n, seed, captions=None):
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 2.5, n)
    truth = (rng.random(n) < special.expit(z)).astype(np.int32)
    captions = captions or [f"caption {i // 2} of {name}" for i in range(n)]
    ids = [f"{name}{i}" for i in range(n)]
    return Split(name, {"label": truth}, ids, truth, captions), z


@pytest.fixture
def run(tmp_path):
    """A finished run of two seeds whose logits are too large by a factor of 2."""
    path = tmp_path / "run"
    path.mkdir()
    root = tmp_path / "memes"
    root.mkdir()
    config = {
        "name": "heads",
        "data": {"dev": "dev_seen", "certify": 0.5, "root": str(root)},
    }
    folder.write_json(path / "config.json", config)
    folder.write_json(path / "environment.json", {"layout": folder.LAYOUT})
    folder.write_json(path / "results.json", {"seeds": {"0": {}, "1": {}}})
    for name, n in (("dev_seen", 400), ("certify", 400), ("test_seen", 300)):
        part, z = split(name, n, seed=len(name))
        rows = [
            {"id": one, "img": "a.png", "text": "x", "label": int(y), "kind": "ab"[y]}
            for one, y in zip(part.ids, part.labels, strict=True)
        ]
        if name != "certify":
            lines = "\n".join(map(json.dumps, rows))
            (root / f"{name}.jsonl").write_text(lines + "\n", "utf-8")
        for seed in ("0", "1"):
            stage = path / seed / "evaluate"
            (stage / "predictions").mkdir(parents=True, exist_ok=True)
            labels.write(stage, part)
            proba = special.expit(2 * z + 0.1 * int(seed))
            metrics.write_predictions(
                stage / "predictions" / f"{name}.csv", part.ids, proba=proba
            )
    return path


def test_half_of_dev_is_held_back_by_caption():
    dev, _ = split("dev_seen", 200, 0)
    train, _ = split("train", 50, 1)
    facts = {"sizes": {"train": 50, "dev_seen": 200}}
    data = Data({"train": train, "dev_seen": dev}, "dev_seen", 0, facts)
    held = data.hold_back(0.5, seed=0)
    one, other = held.splits["dev_seen"], held.splits["certify"]
    assert sorted([*one.ids, *other.ids]) == sorted(dev.ids)
    assert not set(one.captions) & set(other.captions)
    assert abs(len(one.ids) - 100) <= 2
    assert held.facts["sizes"]["certify"] == len(other.ids)
    label_of = dict(zip(dev.ids, dev.labels, strict=True))
    assert [label_of[i] for i in other.ids] == other.labels.tolist()
    assert other.source["label"].tolist() == other.labels.tolist()
    assert data.hold_back(0.0, seed=0) is data
    assert held.splits["train"] is train
    bare = Data({"dev": Split("dev", {}, ["1"], np.zeros(1, int))}, "dev", 0, facts)
    with pytest.raises(ValueError, match="caption"):
        bare.hold_back(0.5, seed=0)


def test_labels_and_back(tmp_path):
    part, _ = split("dev_seen", 4, 0, captions=["A  cat", "a cat", "", ""])
    labels.write(tmp_path, part)
    found = labels.read(tmp_path / "labels" / "dev_seen.csv")
    assert found.ids == part.ids
    assert found.labels.tolist() == part.labels.tolist()
    # As captions compare elsewhere; memes without words share nothing.
    assert found.captions[0] == found.captions[1]
    assert len(set(found.captions)) == 3
    (tmp_path / "x.csv").write_text("id,label\n1,0\n")
    with pytest.raises(ValueError, match="columns"):
        labels.read(tmp_path / "x.csv")


def test_a_decision_is_calibrated_and_comes_back(run):
    found = decisions.make(run, parse_rule("precision>=0.8"))
    assert found.calibration.kind == "temperature"
    assert_allclose(found.calibration.slope, 0.5, atol=0.1)
    held = decisions.scored(run, "certify", seeds=["0"], arm="average")
    proba = found.calibration.apply(held.proba)
    flagged = proba > found.certified.threshold
    assert flagged.sum() == found.certified.n
    assert (held.labels[flagged] == 1).sum() == found.certified.right
    decisions.write(run, found)
    assert decisions.read(run) == found
    # The rule is kept on what is decided: more precision is promised.
    held = decisions.scored(run, "certify", seeds=("0",), arm="average")
    rule = parse_rule("precision>=0.75")
    found = decisions.make(run, rule, abstain=(0.3, 0.6))
    proba = found.calibration.apply(held.proba)
    flagged = found.decide(proba) == decisions.HATEFUL
    assert found.certified.n == flagged.sum()
    assert found.certified.right == held.labels[flagged].sum()
    assert not flagged[(proba >= 0.3) & (proba <= 0.6)].any()
    with pytest.raises(CannotCertifyError, match="no labelled"):
        decisions.make(run, rule, abstain=(0.0, 1.0))
    assert decisions.read(run.parent) is None


def test_all_seeds_are_averaged_before_calibration(run):
    found = decisions.make(run, parse_rule("accuracy"), seed="all")
    assert found.seeds == ("0", "1")
    both = decisions.scored(run, "certify", seeds=["0", "1"], arm="average").proba
    each = [
        decisions.scored(run, "certify", seeds=[s], arm="average").proba for s in "01"
    ]
    assert_allclose(both, np.mean(each, axis=0))


def test_what_is_between_goes_to_a_person(run):
    found = decisions.make(run, parse_rule("accuracy"), abstain=(0.25, 0.75))
    decided = found.decide(np.array([0.0, 0.24, 0.25, 0.5, 0.75, 0.76, 1.0]))
    assert decided.tolist() == [
        "not hateful",
        "not hateful",
        "review",
        "review",
        "review",
        "hateful",
        "hateful",
    ]
    decisions.write(run, found)
    assert decisions.read(run) == found


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(seed="7"), "got seed 7, but .* has the seeds 0, 1"),
        (dict(arm="cnn"), "no arm 'cnn'"),
        (dict(split="dev_seen"), "chose the parameters or the checkpoint"),
        (dict(split="nothing"), "it has certify, dev_seen, test_seen"),
        (dict(abstain=(0.7, 0.3)), "two rising"),
    ],
)
def test_refusals(run, options, message):
    with pytest.raises(UserError, match=message):
        decisions.make(run, parse_rule("accuracy"), **options)


def test_a_run_that_held_nothing_back_names_the_leaf(run):
    config = folder.read_json(run / "config.json")
    config["data"]["certify"] = 0.0
    folder.write_json(run / "config.json", config)
    with pytest.raises(UserError, match=r"--certify.*data\.certify=0\.5"):
        decisions.make(run, parse_rule("accuracy"))
    assert decisions.make(run, parse_rule("accuracy"), split="test_seen")


def test_subgroups_by_hand():
    found = decisions.Scored(
        np.array([0.9, 0.2, 0.8, 0.6, 0.1, 0.3]),
        np.array([1, 0, 0, 1, 0, 1]),
        np.array([""] * 6),
        list("abcdef"),
    )
    decided = found.proba > 0.5
    table = decisions.by_group(found, decided, ["x", "x", "x", "y", "y", "y"])
    assert table["x"]["n"] == 3 and table["x"]["positives"] == 1
    # Its positive is above both of its negatives.
    assert table["x"]["auroc"] == 1
    # Its negatives .2 and .8 against the other's positives .6 and .3: 2 of 4.
    assert table["x"]["bpsn"] == 0.5
    # Its positive .9 against the other's negative .1.
    assert table["x"]["bnsp"] == 1
    assert (table["x"]["fpr"], table["x"]["fnr"]) == (0.5, 0.0)
    assert_allclose([table["x"]["fpr_gap"], table["x"]["fnr_gap"]], [1 / 6, -1 / 3])
    alone = decisions.by_group(found, decided, ["x", "y", "y", "y", "y", "y"])
    assert np.isnan(alone["x"]["auroc"]) and np.isnan(alone["x"]["fpr"])


def test_the_command(run, capsys, monkeypatch):
    # It has no results to write a page of.
    monkeypatch.setattr("memejax.decide.command.write_page", lambda folder: folder)
    arguments = ["--workdir", str(run), "--rule", "precision>=0.8"]
    main([*arguments, "--abstain", "0.3:0.6"])
    out = capsys.readouterr().out
    assert re.search(r"precision>=0\.8 with probability 0\.95: threshold 0\.\d{4}", out)
    assert "go to a person" in out and "temperature" in out
    assert folder.read_json(run / "decision.json")["rule"] == "precision>=0.8"
    main([*arguments, "--certify", "test_seen", "--subgroup", "kind", "--seed", "all"])
    out = capsys.readouterr().out
    assert re.search(r"^kind +n +positives +auroc", out, re.M)
    # Each group has one label: no area, and one of the rates.
    assert re.search(r"^a +\d+ +0 +nan", out, re.M)


def test_the_page_has_the_measures_and_a_diagram(run):
    finished = types.SimpleNamespace(folder=run)
    assert report_decision.section(finished) is None
    made = decisions.make(run, parse_rule("precision>=0.8"))
    decisions.write(run, made)
    facts, table, gallery = report_decision.section(finished).blocks
    assert facts.pairs["Rule"] == "precision>=0.8, kept with probability 0.95"
    held = decisions.scored(run, "certify", seeds=("0",), arm="average")
    for row, proba in zip(
        table.rows, (held.proba, made.calibration.apply(held.proba)), strict=True
    ):
        loss = -np.log(np.where(held.labels == 1, proba, 1 - proba)).mean()
        assert row[1] == f"{loss:.4f}"
    (figure,) = gallery.figures
    assert figure.picture.startswith("data:image/svg+xml")
    # The predictions have gone.
    shutil.rmtree(run / "0")
    _, text = report_decision.section(finished).blocks
    assert "No diagram" in text.text


def test_promises_by_simulation(run, tmp_path):
    """Each of the outcomes; the rates are of the memes that were not drawn."""
    rng = np.random.default_rng(0)
    n = 4000
    proba = rng.random(n)
    ids = [str(i) for i in range(n)]
    truth = (rng.random(n) < proba).astype(int)
    population = decisions.Scored(proba, truth, np.array(ids), ids)

    def simulate(rule, seed):
        return promise.simulate(
            str(run),
            population,
            parse_rule(rule),
            memes=800,
            rng=np.random.default_rng(seed),
            folder=tmp_path,
        )

    found = [simulate("precision>=0.8", seed) for seed in range(10)]
    counts = promise.summary(found)
    assert sum(counts[name] for name in promise.OUTCOMES) == 10
    assert counts["kept"] >= 8 and counts["kept of those made"] >= 0.8
    low, middle, _ = counts["lowest, median, highest"]
    # Calibrated, P > t has a precision of (1 + t) / 2.
    assert low > 0.77 and 0.8 < middle < 0.92
    assert simulate("precision>=0.999", 0)[0] == "refused"
    flagged = np.array([True, True, False, False, True])
    labels = np.array([1, 0, 0, 1, 1])
    rates = [
        promise.rate(parse_rule(rule), flagged, labels)
        for rule in ("precision>=0.5", "recall>=0.5", "fpr<=0.5")
    ]
    assert rates == [2 / 3, 2 / 3, 1 / 2]


def test_the_command_refuses_in_one_line(run, capsys):
    for arguments, message in (
        (["--rule", "f1>=0.9"], "unknown rule"),
        (["--rule", "precision>=0.999"], "at least 2995 flagged"),
        (["--rule", "accuracy", "--subgroup", "colour"], "has a field 'colour'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--workdir", str(run), *arguments])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not (run / "decision.json").exists()


def test_too_few_say_how_many(run):
    with pytest.raises(CannotCertifyError, match="at least"):
        decisions.make(run, parse_rule("recall>=0.999"))
