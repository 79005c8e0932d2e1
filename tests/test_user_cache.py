"""What a user's folder keeps: where it is, and what is done without it."""

import os
import subprocess
import sys

import pytest

from memejax import user_cache

PROGRAM = """
import jax, os
from memejax import parallel
parallel.keep_compiled()
print(jax.config.jax_compilation_cache_dir)
"""


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMEJAX_CACHE", str(tmp_path))
    assert user_cache.folder() == tmp_path
    monkeypatch.delenv("MEMEJAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.folder() == tmp_path / "memejax"


def kept(tmp_path, **environment):
    """The folder of compiled programs in a new process."""
    own = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=own | {"MEMEJAX_CACHE": str(tmp_path / "cache")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_programs_are_kept_by_jax_and_cpu(tmp_path):
    import jax

    folder = kept(tmp_path)
    assert folder.startswith(f"{tmp_path}/cache/compiled/jax-{jax.__version__}-")
    assert os.path.isdir(folder)
    # One that was set stays.
    other = str(tmp_path / "other")
    assert kept(tmp_path, JAX_COMPILATION_CACHE_DIR=other) == other


@pytest.mark.skipif(os.name != "posix", reason="a file in place of a folder")
def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "cache").touch()
    assert kept(tmp_path) == "None"
