"""XLA's options by version of JAX."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from memejax.parallel import xla


@pytest.mark.parametrize(
    ("version", "has_emitters"),
    [("0.10.2", True), ("0.11.0", False), ("0.12.0.1", False), ("1.0", False)],
)
def test_options_that_were_removed(monkeypatch, version, has_emitters):
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    options = {"xla_cpu_use_fusion_emitters": False, "xla_embed_ir_in_executable": True}
    expected = options if has_emitters else {"xla_embed_ir_in_executable": True}
    assert xla.known(options) == expected


def test_flags_as_the_environment_has_them():
    assert xla.as_flags({"xla_a": False, "xla_b": 2}) == "--xla_a=false --xla_b=2"
    assert xla.as_flags({}) == ""


@pytest.mark.parametrize("options", [xla.RUN_ONCE, xla.COMPILE_FAST])
def test_this_xla_knows_the_options(options):
    """As compile options, and as flags, where an unknown one ends the process."""
    compiled = jax.jit(lambda x: x + 1, compiler_options=options)
    assert compiled(jnp.ones(())) == 2
    done = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.jit(lambda x: x + 1)(1))"],
        env=dict(os.environ) | {"XLA_FLAGS": xla.as_flags(options)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "2"
