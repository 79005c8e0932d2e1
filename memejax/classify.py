"""Classifiers of small pictures under a curriculum, all seeds at once.

The stage "classify" of a run (`train.run`). Its folder gets

    baseline/     the uniform run that "bac" ranks by, unless config.baseline names one
    train/        metrics.jsonl, checkpoints, refreshes/<update>.npz (drawn plans)
    curves.json   errors of every seed at every evaluation
    scores.npz    of a uniform run: every score of every training row at the end
                  [seeds, m]
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import build, folder, labelled, logs, metrics
from memejax.labelled import LabelledData
from memejax.loop import Evaluation, Measured, Signals, loop
from memejax.report import profiled, study
from memejax.report.cells import count

RATING = "accuracy"


def run(
    config: ConfigDict, data: LabelledData, where: pathlib.Path, *, signals: Signals
) -> dict[str, Any]:
    """Trains all seeds, and scores what they were trained on.

    Args:
      config: a run's.
      data: as `load` gave it.
      where: the run's folder.
      signals: of the loop.

    Returns:
      `{"errors": {"validation": [s], "test": [s]}, "steps": int, "seconds": float}` at
      the last update, as results.json holds them.

    Raises:
      ValueError: as `build.classifier` does; if config.baseline is not the folder of a
        finished run of the same seeds and rows.
    """
    done = folder.read_json(where / "train" / "outcome.json")
    if done is not None:
        return done
    baseline = None
    if build.needs_baseline(config.curriculum):
        baseline = _baseline(config, data, where, signals)
    return _train(config, data, where, signals, baseline)


def load(config: ConfigDict) -> LabelledData:
    """The data of all seeds."""
    return labelled.load(config, _seeds(config))


def write_page(config: ConfigDict, where: pathlib.Path) -> None:
    """Writes report.html of a finished run: its learning curves, draws and profile."""
    c = config.curriculum
    titles = {
        "uniform": "shuffled passes",
        "replacement": "uniform draws",
        "switch": "a switch from easy to all pictures",
        "bac": "BAC, random order"
        if c.favour == "random"
        else f"BAC, {study.score_title(c.score)}, {c.favour} first",
        "dsac": f"DSAC, {study.score_title(c.score)}, {c.favour} favoured",
    }
    groups = {"uniform": "uniform", "replacement": "uniform", "switch": "baseline"}
    arm = study.read_arm(
        where,
        name=c.kind,
        title=titles[c.kind],
        group=groups[c.kind] if c.kind in groups else c.kind,
        probabilities=True,
    )
    if arm is None:
        raise ValueError(f"{where} holds no finished run")
    results = folder.read_json(where / "results.json")
    page = study.Study(
        title=f"Curriculum on {results['data']['name']}",
        preset=config.preset,
        size=f"{count(config.seeds, 'seed')}, {config.train.steps:,} updates of "
        f"{config.train.batch} examples",
        data=_about(results["data"]),
        arms=[arm],
        reference=arm.name,
        band=0.01,
    )
    # Every step is one of all seeds at once.
    traced = {"train": "train", "baseline": "baseline/train"}
    sections = profiled.of_stages(where, traced)
    (where / "report.html").write_text(study.study_html(page, more=sections), "utf-8")


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


def tell(results: dict[str, Any]) -> None:
    """Says the errors of results.json on the console."""
    for part, errors in results["errors"].items():
        mean, std = metrics.mean_std(errors)
        spread = "" if np.isnan(std) else f" ± {std:.2%}"
        logs.say(f"{part} error {mean:.2%}{spread} ({len(errors)} seeds)")


def _seeds(config: ConfigDict) -> range:
    return range(config.seed, config.seed + config.seeds)


def _baseline(config, data, where, signals) -> dict[str, np.ndarray]:
    """Score -> uncertainty [s, m] of a uniform run's last networks."""
    path = where / "baseline"
    if config.baseline is not None:
        path = pathlib.Path(config.baseline)
    elif not (path / "scores.npz").exists():
        uniform = config.copy_and_resolve_references()
        uniform.curriculum.kind = "uniform"
        _train(uniform, data, path, signals, None)
    file = path / "scores.npz"
    if not file.exists():
        raise ValueError(f"baseline={path} holds no scores.npz of a finished run")
    with np.load(file) as saved:
        scores = dict(saved)
    if not np.array_equal(scores.pop("rows"), data.train):
        raise ValueError(f"{file} is of other seeds or other training pictures")
    return scores


def _train(config, data, where, signals, baseline) -> dict[str, Any]:
    made = build.classifier(config, data, seeds=_seeds(config), baseline=baseline)
    curves = _Curves(where / "curves.json")

    def measure(state: Any) -> Measured:
        errors = made.errors(state)
        curves.add(int(np.asarray(state.step)[0]), errors)
        values = {f"error/{part}": float(e.mean()) for part, e in errors.items()}
        return Measured(values, rating=1 - values["error/validation"])

    state, outcome = loop(
        made.stage,
        config,
        where / "train",
        signals,
        Evaluation(measure, "held out", RATING),
    )
    if config.curriculum.kind == "uniform":
        logs.say("scores of every training picture")
        columns = {"rows": data.train} | made.uncertainty(state, tuple(build.SCORES))
        with folder.replacing(where / "scores.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **columns)
    result = {
        "steps": outcome["steps"],
        "seconds": outcome["seconds"],
        "errors": curves.last(),
    }
    folder.write_json(where / "train" / "outcome.json", result)
    return result


class _Curves:
    """Errors of every seed at every evaluation, in a file that resuming extends."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._rows: dict[str, Any] = folder.read_json(path) or {}

    def add(self, step: int, errors: dict[str, np.ndarray]) -> None:
        """Takes an evaluation; the same one again takes its place."""
        self._rows[str(step)] = {part: e.tolist() for part, e in errors.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(self._path, self._rows)

    def last(self) -> dict[str, list[float]]:
        """The errors of the last evaluation."""
        return self._rows[max(self._rows, key=int)]
