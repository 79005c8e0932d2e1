"""The benchmark of faults: a few of each part, and what a case that is wrong shows."""

import json

import numpy as np
import pytest

from memejax.bench.faults import checkpoints, inputs, report, runs, values


def test_damaged_inputs(tmp_path):
    found = inputs.inputs(60, seed=0, folder=tmp_path).as_json()
    assert found["cases"] == 60 and found["wrong"] == []
    kinds = {outcome.split(":")[0] for outcome in found["outcomes"]}
    assert kinds == {"memes", "records", "weights", "store"}


def test_wrong_values(tmp_path, monkeypatch):
    # Without those that train.
    monkeypatch.setattr(values, "CONFIGS", ("supervised",))
    monkeypatch.setattr(values, "NUMBERS", (-1,))
    monkeypatch.setattr(values, "FLOATS", (float("nan"),))
    monkeypatch.setattr(values, "TEXTS", ("nonsense",))
    monkeypatch.setattr(values.train, "run", refuse_only(values.train.run))
    found = values.values(12, seed=0, folder=tmp_path).as_json()
    assert found["cases"] == 12 and found["wrong"] == []
    assert found["outcomes"]["refused, the leaf named"] >= 6


def refuse_only(run):
    def checked(config, workdir):
        values_of_leaves = values.flatten(config.to_dict()).values()
        if any(v in (-1, "nonsense") or v != v for v in values_of_leaves):
            return run(config, workdir)
        return {}

    return checked


def test_a_damaged_last_and_best_checkpoint(tmp_path):
    found = checkpoints.checkpoints(2, seed=0, folder=tmp_path).as_json()
    assert found["wrong"] == []
    assert sorted(found["outcomes"]) == [
        "best: refused",
        "last: noticed, resumed from the one before, results the same",
    ]


@pytest.mark.parametrize("kind", checkpoints.DAMAGES)
def test_damage_changes_a_file(tmp_path, kind):
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / str(number)
        path.write_bytes(bytes(5000) + b"end")
        checkpoints.damage_file(path, kind, rng)
        assert not path.exists() or path.read_bytes() != bytes(5000) + b"end"


def test_wrong_cases_are_counted_and_shown(capsys):
    cases = report.Cases("kills")
    cases.add("resumed")
    cases.add("wrong", wrong="killed after 3 s: other results")
    found = cases.as_json()
    assert found["outcomes"] == {"resumed": 1, "wrong": 1}
    assert "killed after 3 s" in capsys.readouterr().out
    assert (
        report.table([found]).splitlines()[-1]
        == "| kills | 2 | 1 resumed, 1 wrong | 1 |"
    )


def test_fingerprints_leave_time_out(tmp_path):
    (tmp_path / "0/finetune").mkdir(parents=True)
    results = {"seconds": 1.0, "summary": {"auroc": 0.5, "seconds": 3}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    line = {"step": 1, "loss": 0.5, "clock": {"steps_per_second": 2.0}}
    (tmp_path / "0/finetune/metrics.jsonl").write_text(json.dumps(line) + "\n")
    first = runs.fingerprint(tmp_path)
    changed = results | {"seconds": 2.0, "summary": {"auroc": 0.5, "seconds": 4}}
    (tmp_path / "results.json").write_text(json.dumps(changed))
    line["clock"] = {}
    (tmp_path / "0/finetune/metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert runs.fingerprint(tmp_path) == first
    line["loss"] = 0.5000001
    (tmp_path / "0/finetune/metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert runs.fingerprint(tmp_path) != first
