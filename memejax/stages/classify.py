"""The stage "classify": small pictures under a curriculum, all seeds at once.

Files in the run's folder:

    baseline/     the uniform run that "bac" ranks by, unless config.baseline names one
    train/        metrics.jsonl, checkpoints, refreshes/<update>.npz (drawn plans)
    curves.json   errors of every seed at every evaluation
    scores.npz    final scores of every training row [seeds, m], uniform runs only
"""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import atomic, curriculum, folder, logs, parallel
from memejax.datasets import labelled
from memejax.datasets.labelled import LabelledData
from memejax.errors import UserError
from memejax.stage import Evaluation, Measured, Stage
from memejax.stages.context import Context, Ended
from memejax.stages.parts import curricula
from memejax.stages.parts.small_classifier import make_classifier

NAME = "train"
RATING = "accuracy"


def load(config: ConfigDict, path: pathlib.Path) -> LabelledData:
    """Load the data of all seeds; nothing is written to the folder."""
    del path
    return labelled.load(config, _seeds(config))


def devices(config: ConfigDict) -> Mesh:
    """Return the largest mesh that the seeds can be split over evenly."""
    return parallel.devices_for_seeds(config.seeds, config.parallel.devices)


def prepare(config: ConfigDict) -> None:
    """Make each CPU core a device if there are several seeds to run side by side."""
    if config.seeds > 1:
        parallel.device_per_core()


def make(config: ConfigDict, data: LabelledData, *, seed: int, mesh: Mesh) -> Stage:
    """Make the training of all seeds in shuffled passes; `seed` is ignored."""
    del seed
    uniform = config.copy_and_resolve_references()
    uniform.curriculum.kind = "uniform"
    return make_classifier(uniform, data, seeds=_seeds(config), mesh=mesh).stage


def check(
    config: ConfigDict, data: LabelledData, *, mesh: Mesh, before: Stage | None
) -> Stage:
    """Build the stage and trace its first step, before a run's folder is claimed.

    Raises:
        ValueError: as `run` does, but for a baseline that is still to be trained.
    """
    del before
    baseline = None
    if curricula.needs_baseline(config.curriculum):
        baseline = {config.curriculum.score: np.zeros(data.train.shape, np.float32)}
        if config.baseline is not None:
            _read_scores(pathlib.Path(config.baseline), data)
    made = make_classifier(
        config, data, seeds=_seeds(config), mesh=mesh, baseline=baseline
    )
    made.stage.trace()
    return made.stage


def updates(config: ConfigDict, data: LabelledData) -> dict[str, int]:
    """Return the planned updates, of the baseline as well if it is run first."""
    del data
    total, ranked = config.train.steps, curricula.needs_baseline(config.curriculum)
    first = {"baseline": total} if ranked and config.baseline is None else {}
    return first | {NAME: total}


def run(context: Context, before: Ended | None) -> Ended:
    """Train all seeds and score their training data, unless already done.

    The outcome has `errors`, the error rate on "validation" and "test" for every seed
    at the last update; `steps` and `seconds`.

    Raises:
        ValueError: as `make_classifier` does; if config.baseline is not the folder of a
            finished run of the same seeds and rows.
    """
    del before  # The only stage of its run.
    outcome = context.outcome(NAME)
    if outcome is None:
        baseline = None
        if curricula.needs_baseline(context.config.curriculum):
            baseline = _baseline(context)
        outcome = _train(context, baseline)
    return Ended(NAME, {NAME: outcome}, _no_next_stage)


def _no_next_stage() -> Stage:
    raise ValueError("no stage can follow classify")


def _seeds(config: ConfigDict) -> range:
    return range(config.seed, config.seed + config.seeds)


def _baseline(context: Context) -> dict[str, np.ndarray]:
    """Return score -> uncertainty [s, m] of a uniform run's final networks."""
    path = context.folder / "baseline"
    if context.config.baseline is not None:
        path = pathlib.Path(context.config.baseline)
    elif not (path / "scores.npz").exists():
        uniform = context.config.copy_and_resolve_references()
        uniform.curriculum.kind = "uniform"
        _train(dataclasses.replace(context, config=uniform, folder=path), None)
    return _read_scores(path, context.data)


def _read_scores(path: pathlib.Path, data: LabelledData) -> dict[str, np.ndarray]:
    """Return score -> uncertainty [s, m] of the finished uniform run in a folder."""
    file = path / "scores.npz"
    if not file.exists():
        raise UserError(f"baseline={path} holds no scores.npz of a finished run")
    try:
        with np.load(file) as saved:
            scores = dict(saved)
        rows = scores.pop("rows")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error})") from error
    if not np.array_equal(rows, data.train):
        raise UserError(f"{file} is for other seeds or other training pictures")
    return scores


def _train(context: Context, baseline: dict[str, np.ndarray] | None) -> dict[str, Any]:
    config, data = context.config, context.data
    made = make_classifier(
        config, data, seeds=_seeds(config), mesh=context.mesh, baseline=baseline
    )
    curves = _Curves(context.folder / "curves.json")

    def measure(state: Any) -> Measured:
        errors = made.errors(state)
        curves.add(int(np.asarray(state.step)[0]), errors)
        values = {f"error/{part}": float(e.mean()) for part, e in errors.items()}
        return Measured(values, rating=1 - values["error/validation"])

    evaluation = Evaluation(measure, "held out", RATING)
    state, outcome = context.train(made.stage, NAME, evaluation)
    if config.curriculum.kind == "uniform":
        logs.say("scores of every training picture")
        scores = made.uncertainty(state, tuple(curriculum.SCORES))
        columns = {"rows": data.train} | scores
        with atomic.replacing(context.folder / "scores.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **columns)
    result = {
        "steps": outcome["steps"],
        "seconds": outcome["seconds"],
        "errors": curves.last(),
    }
    context.finish(NAME, result)
    return result


class _Curves:
    """Errors of every seed at every evaluation, in a file that resuming extends."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._rows: dict[str, Any] = folder.read_json(path) or {}

    def add(self, step: int, errors: dict[str, np.ndarray]) -> None:
        """Add an evaluation; a repeated one overwrites the first."""
        self._rows[str(step)] = {part: e.tolist() for part, e in errors.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(self._path, self._rows)

    def last(self) -> dict[str, list[float]]:
        """Return the errors of the last evaluation."""
        return self._rows[max(self._rows, key=int)]
