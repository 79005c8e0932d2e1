"""What benchmarks say of themselves."""

import importlib
import re

import pytest

from memejax.bench.command_line import Parser

# Benchmark -> options that are for processes that it starts, and not for people.
BENCHMARKS = {
    "checkpoint": [],
    "curriculum": ["--part"],
    "detector": [],
    "encoders": [],
    "explain": [],
    "faults": [],
    "gpu": [],
    "graphs": [],
    "heads": ["--part"],
    "inference": [],
    "input_pipeline": [],
    "input_study": ["--part"],
    "known": [],
    "loop": [],
    "ocr": [],
    "promise": [],
    "scaling": ["--part"],
    "scaling_paper": [],
    "start": [],
    "train_step": [],
    "weights": ["--side", "--folder"],
}

PACKAGES = ("explain", "faults", "inference", "train_step")


def shown(capsys, call):
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 0
    return capsys.readouterr().out


def listed(text):
    """Lines of a help text's options, each with its own text beside it."""
    # Below a long option its text stands in a line of its own.
    return re.sub(r"\n {8,}", "  ", text.split("\noptions:\n")[1]).splitlines()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_of_benchmarks(name, capsys, monkeypatch):
    """The docstring as it stands, and a help text for every option but hidden ones."""
    path = f"memejax.bench.{name}" + (".__main__" if name in PACKAGES else "")
    module = importlib.import_module(path)
    monkeypatch.setattr("sys.argv", [name, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    text = shown(capsys, module.main)
    assert text.startswith(f"usage: python -m memejax.bench.{name} [-h] [--out FILE]")
    about = (module.__doc__ or "").strip()
    assert about and about in text
    for line in listed(text):
        assert re.search(r"\S  +\S", line), line
    for hidden in BENCHMARKS[name]:
        assert hidden not in text.replace(about, "")


def test_defaults_are_shown_as_typed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    parser = Parser("name", "About 100 % of it.\n\n    as it stands", pairs=7)
    parser.number("--several", [1, 2], text="numbers", several=True)
    parser.number("--zero", 0, text="a number")
    parser.number("--none", None, text="another")
    parser.names("--names", ("a", "b c"), default=("b c",), text="of %(choices)s")
    parser.add_argument("--share", default="5%", help="a share")
    parser.add_argument("--flag", action="store_true", help="a flag")
    text = shown(capsys, lambda: parser.parse_args(["--help"]))
    assert "About 100 % of it.\n\n    as it stands\n" in text
    options = {
        line.split()[0]: re.split(r"  +", line.strip())[-1] for line in listed(text)
    }
    assert options["--pairs"].endswith("(default: 7)")
    assert options["--several"] == "numbers (default: 1 2)"
    assert options["--zero"] == "a number (default: 0)"
    assert options["--none"] == "another"
    assert options["--names"] == "of a, b c (default: 'b c')"
    assert options["--share"] == "a share (default: 5%)"
    assert options["--flag"] == "a flag"


def test_what_is_parsed():
    parser = Parser("name", None, pairs=7)
    parser.number("--steps", 3, text="steps")
    parser.number("--batches", [1, 2], text="memes", several=True)
    parser.names("--kind", ("a", "b"), default=("a", "b"), text="kinds")
    given = ["--steps=4", "--batches", "8", "9", "--kind", "b", "--out=f.json"]
    assert vars(parser.parse_args(given)) == {
        "out": "f.json",
        "pairs": 7,
        "steps": 4,
        "batches": [8, 9],
        "kind": ["b"],
    }
    assert vars(Parser("name", None).parse_args([])) == {"out": None}
