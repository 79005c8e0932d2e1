"""The stored features that the demo's graph networks read, of a run's encoders."""

from __future__ import annotations

import os
import pathlib

from memejax import folder
from memejax.config import load_config
from memejax.extract import extract


def store(run: str | os.PathLike[str], out: str | os.PathLike[str]) -> str:
    """Stores what a finished run's encoders see in its own memes.

    What is there already is kept, so that an interrupted pass goes on.

    Args:
        run: its folder.
        out: the store's folder, made if missing.

    Returns:
        The store's key.

    Raises:
        ValueError: if there is no finished run, or as `extract.extract` does.
    """
    path = pathlib.Path(run)
    ran = folder.read_json(path / "config.json")
    if ran is None or not (path / "results.json").exists():
        raise ValueError(f"{path} holds no finished run (config.json, results.json)")
    config = load_config("configs/graph.py:demo").unlock()
    # The same memes: built in ones are made again from these.
    config.seed = ran["seed"]
    for leaf in ("root", "dev", "validation", "image_size"):
        config.data[leaf] = ran["data"][leaf]
    if "synthetic" in ran["data"]:
        config.data.synthetic.update(ran["data"]["synthetic"])
    config.extract.run = os.fspath(path)
    config.extract.arm = ran["arms"][0]
    return extract(config.lock(), out)
