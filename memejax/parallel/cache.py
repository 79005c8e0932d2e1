"""Compiled programs kept on disk."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax

from memejax import user_cache

# The least recently used programs go first.
MOST_BYTES = 2 << 30
# Compiling what takes less costs as much as reading it.
LEAST_SECONDS = 0.2


def keep_compiled(folder: str | os.PathLike[str] | None = None) -> None:
    """Cache compiled programs, for other runs, other seeds and a second start.

    A folder set before, by this function or by JAX_COMPILATION_CACHE_DIR, stays. One
    that cannot be written is done without.

    Args:
        folder: of the programs; None: the user's, of this JAX and this kind of CPU, of
            at most `MOST_BYTES`.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    if folder is None:
        folder = user_cache.folder() / "compiled" / _machine()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))


def _machine() -> str:
    """Name the JAX and the instructions that programs are compiled for.

    A home may be shared by machines of which one lacks what another has.
    """
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = " ".join(sorted(flags.split())) or platform.processor()
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    return f"jax-{jax.__version__}-{platform.machine()}-{digest}"
