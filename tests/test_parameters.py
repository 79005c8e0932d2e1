"""The table of a stage's parameters."""

import types

import jax
import jax.numpy as jnp
import pytest

from memejax import parallel
from memejax.stages.parts import parameters

PARAMS = {
    "head": {"kernel": jax.ShapeDtypeStruct((3, 5), jnp.bfloat16)},
    "cnn": {
        "kernel": jax.ShapeDtypeStruct((100, 20), jnp.float32),
        "bias": jax.ShapeDtypeStruct((20,), jnp.float32),
    },
}
GROUPS = {"head": {"kernel": "frozen"}, "cnn": {"kernel": "cnn", "bias": "cnn"}}


def stage(step=()):
    """A stage as far as the table reads it: shapes alone."""
    state = types.SimpleNamespace(
        params=PARAMS, step=jax.ShapeDtypeStruct(step, jnp.int32)
    )
    return types.SimpleNamespace(abstract=state, groups=GROUPS)


def test_the_table_has_every_leaf_with_its_group(tmp_path):
    text = parameters.write(stage(), tmp_path / "0/pretrain")  # type: ignore[arg-type]
    assert text == "2,035 parameters in 2 groups (cnn 2,020, frozen 15)"
    lines = (tmp_path / "0/pretrain/parameters.txt").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row for row in rows if row] == [
        ["Name", "Shape", "Dtype", "Size", "Group"],
        ["cnn/bias", "(20,)", "float32", "20", "cnn"],
        ["cnn/kernel", "(100, 20)", "float32", "2,000", "cnn"],
        ["head/kernel", "(3, 5)", "bfloat16", "15", "frozen"],
    ]
    assert lines[-1] == text


def test_seeds_side_by_side_are_named(tmp_path):
    text = parameters.write(stage(step=(4,)), tmp_path)  # type: ignore[arg-type]
    assert text.endswith(", of 4 seeds together")


def test_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "is_first", lambda: False)
    parameters.write(stage(), tmp_path / "x")  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_run_has_the_table_of_every_stage(finished, name):
    folder, _ = finished
    text = (folder / f"0/{name}/parameters.txt").read_text("utf-8")
    assert "| cnn " in text and "| vit " in text
    assert "parameters in 2 groups (cnn " in text.splitlines()[-1]
