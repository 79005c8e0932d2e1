"""`python -m memejax` and the console script: a list of commands, and each of them."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from support import ROOT

from memejax import __main__ as command
from memejax.data import synthetic_memes

# Started by others, in a Python or a folder of their own.
NOT_COMMANDS = {"bench.torchvision_peer", "export.run_predictor"}


def start(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT
    )


def is_run(path):
    """Whether a module has `if __name__ == "__main__":` at its top level."""
    return any(
        isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test)
        for node in ast.parse(path.read_text("utf-8")).body
    )


def test_every_command_is_listed(capsys):
    package = ROOT / "memejax"
    found = set()
    for path in package.rglob("*.py"):
        if is_run(path):
            parts = path.relative_to(package).with_suffix("").parts
            found.add(".".join(part for part in parts if part != "__main__"))
    assert set(command.COMMANDS) == found - NOT_COMMANDS - {""}
    command.run([])
    out = capsys.readouterr().out
    for name, line in command.COMMANDS.items():
        assert re.search(rf"^  {re.escape(name)} +{re.escape(line)}$", out, re.M)
        assert importlib.util.find_spec(f"memejax.{name}") is not None
    assert all(len(line) <= 80 for line in out.splitlines())
    assert set(command.ALIASES.values()) <= set(command.COMMANDS)
    assert not set(command.ALIASES) & set(command.COMMANDS)


def test_the_list_needs_nothing_heavy():
    program = (
        "import sys; sys.argv[1:] = []; from memejax.__main__ import run; run(); "
        "print([m for m in ('jax', 'numpy', 'absl', 'rich') if m in sys.modules])"
    )
    done = start("-c", program)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert start("-m", "memejax").stdout == command.usage() + "\n"


@pytest.mark.parametrize("name", command.COMMANDS)
def test_help_does_not_wait_for_jax(name):
    """A command's own module, which --help imports, has its networks further down."""
    program = (
        "import runpy, sys; sys.argv = ['command', '--help']\n"
        f"try: runpy.run_module('memejax.{name}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "slow = 'jax', 'scipy', 'sklearn', 'orbax', 'transformers'\n"
        "print([module for module in slow if module in sys.modules])"
    )
    done = start("-c", program)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_command_runs_as_with_python_m(tmp_path):
    arguments = ["--train=8", "--dev=4", "--test=4", "--size=16"]
    outputs = []
    for i, way in enumerate((["memejax", "data.synthetic_memes"], None)):
        way = way or ["memejax.data.synthetic_memes"]
        done = start("-m", *way, str(tmp_path / str(i)), *arguments)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.replace(str(tmp_path / str(i)), "DIR"))
    assert outputs[0] == outputs[1] and outputs[0].startswith("DIR: 8 train")


def test_usage_and_errors_are_those_of_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["memejax"])
    # runpy runs a module of its own making, not the one that tests have imported.
    monkeypatch.delitem(sys.modules, synthetic_memes.__name__)
    with pytest.raises(SystemExit) as ended:
        command.run(["memejax.data.synthetic_memes", "--help"])
    assert ended.value.code == 0
    assert "python -m memejax.data.synthetic_memes" in capsys.readouterr().out


def test_train_is_main():
    done = start("-m", "memejax", "train", "--confg=x")
    assert done.returncode == 2
    assert "Unknown command line flag 'confg'" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("pedict", "predict"), ("inspect", "weights.inspect"), ("trian", "train")],
)
def test_an_unknown_command_has_one_line(capsys, wrong, near):
    with pytest.raises(SystemExit) as ended:
        command.run([wrong])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"unknown command '{wrong}'; the nearest: " in line and near in line
    with pytest.raises(SystemExit):
        command.run(["zzzzzz"])
    assert "the nearest" not in capsys.readouterr().err


def test_the_console_script():
    scripts = tomllib.loads(pathlib.Path(ROOT / "pyproject.toml").read_text("utf-8"))
    assert scripts["project"]["scripts"] == {"memejax": "memejax.__main__:run"}
