"""Which way imports point (the layers of the project), and what importing costs."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import memejax

ROOT = pathlib.Path(memejax.__file__).parent
ALL = {
    p.relative_to(ROOT).with_suffix("").parts[0]
    for p in ROOT.rglob("*.py")
    if p.name != "__init__.py"
}
# What runs an experiment, and what is made of one or beside one.
RUNS = {"train", "classify", "main", "loop", "evaluate", "reproduce"}
ENDS = {"predict", "export", "extract", "profile"}
# Part of memejax -> parts that it may import, itself aside.
MAY = {
    "losses": set(),
    "augment": set(),
    "metrics": set(),
    "significance": set(),
    "optim": set(),
    "checkpoint": set(),
    "logs": {"parallel"},
    "parallel": set(),
    "processes": {"parallel"},
    "folder": {"parallel"},
    "restored": {"folder", "data"},
    "models": set(),
    "data": set(),
    "weights": {"models"},
    "views": {"augment"},
    "curriculum": set(),
    "labelled": {"data"},
    "steps": {"losses", "augment", "curriculum", "optim", "views"},
    "feeders": {"parallel", "data"},
    "dataset": {"data"},
    "config": set(),
    "probes": {"metrics"},
    "attention": set(),
    "scores": {"feeders", "metrics", "curriculum"},
    "graphs": {"data", "weights"},
    "build": ALL - RUNS - ENDS - {"report"},
    "report": ALL - RUNS - ENDS,
    "evaluate": ALL - RUNS - ENDS,
    "loop": ALL - RUNS - (ENDS - {"profile"}),
    "classify": ALL - (RUNS - {"evaluate", "loop"}) - ENDS,
    "train": ALL - {"main", "reproduce"} - ENDS,
    "predict": ALL - RUNS - ENDS - {"report"},
    "extract": ALL - RUNS - ENDS - {"report"},
    "export": ALL - RUNS - (ENDS - {"predict"}),
    "profile": ALL - RUNS - ENDS - {"report", "models", "losses", "steps"},
    "reproduce": ALL - {"main"},
    "main": ALL,
    "bench": ALL,
}
# Part -> other packages that it may not import.
NEVER = {
    "losses": {"flax", "numpy", "ml_collections"},
    "augment": {"flax", "ml_collections"},
    "curriculum": {"flax", "ml_collections", "optax"},
    "models": {"ml_collections", "optax", "transformers"},
    "weights": {"ml_collections", "optax"},
    "data": {"jax", "flax", "optax", "ml_collections"},
    "probes": {"flax", "ml_collections", "optax"},
    "attention": {"flax", "ml_collections", "optax"},
    "steps": {"ml_collections", "grain"},
    "parallel": {"flax", "optax", "ml_collections"},
    "graphs": {"flax", "optax", "ml_collections"},
    "profile": {"optax", "orbax"},
    "metrics": {"ml_collections", "flax"},
    "significance": {"ml_collections", "flax", "jax"},
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_the_right_way(path):
    relative = path.relative_to(ROOT).with_suffix("")
    part = relative.parts[0]
    if part == "__init__":
        return
    assert part in MAY, f"say in this test what {part} may import"
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "memejax" and rest:
            other = rest[0]
            assert other == part or other in MAY[part], f"{relative} imports {name}"
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
    """`import memejax` loads neither jax nor flax, nor any other module of ours."""
    program = (
        "import sys, memejax; "
        "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'flax', 'numpy') "
        "or m.startswith('memejax.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


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
