"""Which way imports point (the layers of the project), and what importing costs."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import memejax

ROOT = pathlib.Path(memejax.__file__).parent
# Below all: errors and files, in plain Python.
BASE = {"atomic", "errors", "lazy", "strict_json", "user_cache"}
# The storeys, the lowest first; a part may import its own storey's and those below.
LIBRARY = {
    "losses",
    "augment",
    "curriculum",
    "optim",
    "steps",
    "metrics",
    "models",
    "graphs",
    "explain",
    "weights",
}
DATA = {"data"}
RUN = {
    "checkpoint",
    "command_line",
    "commands",
    "config",
    "console",
    "datasets",
    "decisions",
    "digests",
    # A command whose parts a run uses too, for a head on features.
    "extract",
    "feeders",
    "folder",
    "frozen",
    "huge_pages",
    "labels",
    "lock",
    "logs",
    "loop",
    "plan_runner",
    "outcomes",
    "parallel",
    "process_flags",
    "restored",
    "scoring",
    "signals",
    "stage",
    "stages",
    "store",
    "train",
}
COMMANDS = {
    "__main__",
    "bench",
    "decide",
    "evaluate",
    "export",
    "known",
    "main",
    "predict",
    "profile",
    "report",
    "reproduce",
}
# They import nothing of memejax.
PURE = {"losses", "augment"}
# Part of memejax -> parts that it may import, itself aside, where that is not all of
# its storey and those below.
MAY = {
    "optim": set(),
    "curriculum": set(),
    "explain": {"graphs"},
    "metrics": set(),
    "models": {"data"},
    "graphs": {"data"},
    "weights": {"models"},
    "steps": LIBRARY,
    "data": set(),
    "parallel": set(),
    "process_flags": {"parallel"},
    "folder": {"config", "parallel"},
    "console": {"parallel"},
    "logs": {"console", "parallel"},
    "checkpoint": {"digests"},
    "digests": set(),
    "lock": set(),
    "command_line": {"config", "huge_pages", "parallel"},
    "commands": set(),
    "huge_pages": set(),
    "config": set(),
    "feeders": {"data", "parallel"},
    "outcomes": set(),
    "scoring": {"feeders", "metrics"},
    "signals": {"parallel"},
    "stage": LIBRARY | DATA | {"datasets", "feeders"},
    "loop": {
        "checkpoint",
        "data",
        "folder",
        "logs",
        "parallel",
        "plan_runner",
        "signals",
        "stage",
    },
    "plan_runner": {"feeders", "logs", "parallel", "stage"},
    "stages": LIBRARY | DATA | (RUN - {"train"}),
    "extract": LIBRARY | DATA | (RUN - {"loop", "stage", "train"}),
    # The page at a run's end, and a window of it in the profiler.
    "train": LIBRARY | DATA | RUN | {"profile", "report"},
    "datasets": {"console", "data"},
    "store": {"graphs", "weights"},
    "restored": {
        "checkpoint",
        "console",
        "data",
        "digests",
        "folder",
        "frozen",
        "metrics",
        "outcomes",
    },
    "frozen": {"data", "digests", "folder", "weights"},
    "main": DATA | RUN,
    # Benchmarks count FLOPs, and study what `predict` explains.
    "bench": LIBRARY | DATA | RUN | {"predict", "profile", "report"},
    # Some tables are measurements.
    "reproduce": LIBRARY | DATA | RUN | {"bench", "profile", "report"},
}
# Part -> other packages that it may not import.
NEVER = {
    "losses": {"flax", "numpy", "ml_collections"},
    "augment": {"flax", "ml_collections"},
    "curriculum": {"flax", "ml_collections", "optax"},
    "models": {"ml_collections", "optax", "transformers"},
    "weights": {"ml_collections", "optax"},
    "data": {"jax", "flax", "optax", "ml_collections"},
    "metrics": {"flax", "ml_collections", "optax"},
    "explain": {"flax", "ml_collections", "optax"},
    "steps": {"ml_collections", "grain"},
    "parallel": {"flax", "optax", "ml_collections"},
    "graphs": {"flax", "optax", "ml_collections"},
    "store": {"flax", "jax", "ml_collections", "optax"},
    "profile": {"optax", "orbax"},
    "optim": {"ml_collections", "flax"},
    "checkpoint": {"ml_collections", "flax"},
    "logs": {"ml_collections", "flax"},
}


def imports(path):
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


FILES = sorted(
    p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] != "configs"
)


def may_import(part):
    if part in BASE:
        return BASE
    if part in PURE:
        return set()
    if part in MAY:
        return BASE | MAY[part]
    if part in RUN:
        return BASE | LIBRARY | DATA | RUN
    assert part in COMMANDS, f"{part} belongs to no storey: say in this test to which"
    return BASE | LIBRARY | DATA | RUN | {"report"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_the_right_way(path):
    relative = path.relative_to(ROOT).with_suffix("")
    part = relative.parts[0]
    if part == "__init__":
        return
    below = may_import(part)
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "memejax" and rest:
            other = rest[0]
            assert other == part or other in below, f"{relative} imports {name}"
        assert package not in NEVER.get(part, set()), f"{relative} imports {name}"


def test_private_names_stay_private():
    for path in FILES:
        for name in imports(path):
            if name.startswith("memejax."):
                assert not name.rsplit(".", 1)[-1].startswith("_"), f"{path}: {name}"


def test_configs_hide_no_hyperparameter():
    for path in FILES:
        assert "config.get(" not in path.read_text("utf-8"), path


def test_import_is_light():
    """`import memejax` loads neither jax nor flax, and of ours what loads the rest."""
    program = (
        "import sys, memejax; "
        "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'flax', 'numpy') "
        "or m.startswith('memejax.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['memejax.lazy']"


def test_exports_are_there():
    for name in memejax.__all__:
        assert getattr(memejax, name) is not None
    assert set(memejax.__all__) <= set(dir(memejax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = memejax.nothing


def test_what_the_docstring_names_is_there():
    named = re.findall(r"`memejax\.(\w+)`", memejax.__doc__)
    assert len(named) > 5
    for name in named:
        assert getattr(memejax, name).__name__ == f"memejax.{name}"


@pytest.mark.parametrize("part", ["losses", "curriculum", "models", "augment"])
def test_the_library_needs_little(part):
    """Pure functions and modules come without what runs and shows experiments."""
    heavy = (
        "transformers",
        "tensorflow_datasets",
        "matplotlib",
        "sklearn",
        "ml_collections",
    )
    program = (
        f"import sys, memejax.{part}; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
