"""Compiled programs kept on disk."""

from __future__ import annotations

import os

import jax


def keep_compiled(folder: str | os.PathLike[str]) -> None:
    """Cache compiled programs in a folder, for other seeds and for a resumed run.

    A folder set before, by this function or by JAX_COMPILATION_CACHE_DIR, stays.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
