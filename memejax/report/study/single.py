"""The page of one run of a classifier: its learning curves, draws and profile."""

from __future__ import annotations

import pathlib
from typing import Any

from ml_collections import ConfigDict

from memejax import folder
from memejax.report import profiled
from memejax.report.cells import count
from memejax.report.study.arms import Study, score_title
from memejax.report.study.page import study_html
from memejax.report.study.read import read_arm


def html(path: pathlib.Path) -> str:
    """Return the page of a finished run.

    Args:
        path: folder of the run.

    Raises:
        ValueError: if it holds no finished run.
    """
    saved = folder.read_config(path)
    if saved is None:
        raise ValueError(f"{path} holds no finished run: it has no config.json")
    config = ConfigDict(saved)
    c = config.curriculum
    titles = {
        "uniform": "shuffled passes",
        "replacement": "uniform draws",
        "switch": "a switch from easy to all pictures",
        "bac": "BAC, random order"
        if c.favour == "random"
        else f"BAC, {score_title(c.score)}, {c.favour} first",
        "dsac": f"DSAC, {score_title(c.score)}, {c.favour} favoured",
    }
    groups = {"uniform": "uniform", "replacement": "uniform", "switch": "baseline"}
    arm = read_arm(
        path,
        name=c.kind,
        title=titles[c.kind],
        group=groups[c.kind] if c.kind in groups else c.kind,
        probabilities=True,
    )
    if arm is None:
        raise ValueError(f"{path} holds no finished run")
    results = folder.read_json(path / "results.json")
    page = Study(
        title=f"Curriculum on {results['data']['name']}",
        preset=config.preset,
        size=f"{count(config.seeds, 'seed')}, {config.train.steps:,} updates of "
        f"{config.train.batch} examples",
        data=_about(results["data"]),
        arms=[arm],
        reference=arm.name,
        band=0.01,
    )
    # Each step is one of all seeds at once.
    traced = {"train": "train", "baseline": "baseline/train"}
    section = profiled.of_stages(path, traced)
    return study_html(page, more=[] if section is None else [section])


def _about(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts of the data, for a page."""
    parts = ("train", "validation", "test")
    named = {
        "Data": facts["name"],
        "Folder": facts.get("root"),
        "Pool": facts.get("pool"),
        "Pictures": ", ".join(f"{part} {facts[part]:,}" for part in parts),
        "Classes": facts["classes"],
        "Label noise": facts["label_noise"] or None,
    }
    return {name: fact for name, fact in named.items() if fact is not None}
