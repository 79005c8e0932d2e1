"""Stored features for the demo's graph networks, from a run's encoders."""

from __future__ import annotations

import os
import pathlib

from memejax import folder
from memejax.config import load_config
from memejax.extract import extract


def store(run: str | os.PathLike[str], out: str | os.PathLike[str]) -> str:
    """Store the features of a finished run's memes by its own encoders.

    Features that are already stored are kept, so that an interrupted call resumes.

    Args:
        run: folder of the run.
        out: folder of the store, made if missing.

    Returns:
        The store's key.

    Raises:
        ValueError: if there is no finished run, or as in `extract.extract`.
    """
    path = pathlib.Path(run)
    ran = folder.read_config(path)
    if ran is None or not (path / "results.json").exists():
        raise ValueError(f"{path} holds no finished run (config.json, results.json)")
    config = load_config("configs/graph.py:demo").unlock()
    # The same memes: built-in ones are generated again from these leaves.
    config.seed = ran["seed"]
    for leaf in ("root", "dev", "validation", "image_size"):
        config.data[leaf] = ran["data"][leaf]
    if "synthetic" in ran["data"]:
        config.data.synthetic.update(ran["data"]["synthetic"])
    config.extract.run = os.fspath(path)
    config.extract.arm = ran["arms"][0]
    return extract(config.lock(), out)
