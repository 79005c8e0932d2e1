"""A finished run of small pictures, from its folder, as an arm of a study."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from memejax import logs
from memejax.report.study.arms import DIAGNOSTICS, Arm


def read_arm(
    folder: str | os.PathLike[str],
    *,
    name: str,
    title: str,
    group: str,
    probabilities: bool = False,
    **more: Any,
) -> Arm | None:
    """The arm that a run's folder holds; None if the run is not finished.

    Args:
        folder: of the run, as `classify` and `train.run` leave it.
        name: short and unique.
        title: for a person.
        group: one of `arms.GROUPS`.
        probabilities: whether to read what each drawn plan was drawn from.
        **more: `primary`, `score`, `favour` and `ratio`, as `Arm` takes them.
    """
    where = pathlib.Path(folder)
    if not (where / "results.json").exists():
        return None
    results = json.loads((where / "results.json").read_text("utf-8"))
    curves = json.loads((where / "curves.json").read_text("utf-8"))
    steps = sorted(map(int, curves))
    validation, test = (
        np.array([curves[str(step)][part] for step in steps]).T
        for part in ("validation", "test")
    )
    return Arm(
        name=name,
        title=title,
        group=group,
        updates=results["steps"],
        seconds=results["seconds"],
        steps=np.array(steps),
        validation_error=validation,
        test_error=test,
        diagnostics=_diagnostics(where),
        refreshes=[
            (step, drawn["probs"])
            for step, drawn in (read_draws(where) if probabilities else ())
        ],
        **{"primary": False, **more},
    )


def read_draws(
    folder: str | os.PathLike[str],
) -> list[tuple[int, Mapping[str, np.ndarray]]]:
    """Of every plan that a run drew by scores, in order: (update, arrays).

    The arrays are those of the first seed: `uncertainty`, `probs` and `rows` of the
    data, each [m].
    """
    files = pathlib.Path(folder).glob("train/refreshes/*.npz")
    found = []
    for file in sorted(files, key=lambda file: int(file.stem)):
        with np.load(file) as saved:
            found.append((int(file.stem), dict(saved)))
    return found


def _diagnostics(where: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    lines = [
        line
        for line in logs.read_metrics(where / "train" / "metrics.jsonl")
        if line["split"] == "curriculum"
    ]
    steps = np.array([line["step"] for line in lines])
    return {
        name: (steps, np.array([line[name] for line in lines]))
        for name in DIAGNOSTICS
        if lines and name in lines[0]
    }
