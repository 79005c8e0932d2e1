"""Files to features and probabilities: both sides of the benchmark, in tiny form."""

import importlib
import json
import pathlib

import numpy as np
import pytest

from memejax.bench.inference import ours, problem
from memejax.bench.inference.cases import CASES

main = importlib.import_module("memejax.bench.inference.__main__")


@pytest.fixture
def peer():
    pytest.importorskip("torch", exc_type=ImportError)
    pytest.importorskip("transformers", exc_type=ImportError)


def given(case, folder):
    return problem.make(case, "tiny", folder, count=6, batch=4, dtype="float32")


@pytest.mark.parametrize("case", CASES)
def test_our_side(case, tmp_path):
    """Every meme has its result, in both orders of the work the same."""
    one = ours.Runner(given(case, tmp_path))
    assert one.run() > 0 and one.parameters > 0
    found = one._run()
    assert len(found) == 6 and np.isfinite(found).all()
    if case in ("predict", "evaluate"):
        assert found.shape == (6,) and (found > 0).all() and (found < 1).all()
    else:
        assert found.ndim == 2


def test_predictions_are_those_of_an_evaluation(tmp_path):
    """The same weights, files and captions, of which one side pads less."""
    both = [
        ours.Runner(given(case, tmp_path / case))._run()
        for case in ("predict", "evaluate")
        if not (tmp_path / case).mkdir()
    ]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_sides_have_the_same_networks(case, peer, tmp_path):
    from memejax.bench.inference.peer import Runner

    own = given(case, tmp_path)
    other = Runner(own, compiled=False)
    assert other.run() > 0
    assert other.parameters == ours.Runner(own).parameters


def test_the_command(monkeypatch, tmp_path, capsys):
    out = tmp_path / "out.json"
    options = "--case=text --size=tiny --memes=4 --batch=2 --pairs=2 --eager".split()
    monkeypatch.setattr("sys.argv", ["inference", *options, f"--out={out}"])
    main.main()
    assert "text" in capsys.readouterr().out.splitlines()[-1]
    found = json.loads(pathlib.Path(out).read_text("utf-8"))["text"]
    assert (found["count"], found["unit"]) == (4, "captions/s")
    sides = found.get("eager", found)
    assert len(sides["ours"]) == 2
