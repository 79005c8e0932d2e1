"""From the folder of a finished run of small pictures to an arm of a study."""

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
    """Read a run's folder as an arm; None if the run is not finished.

    Args:
        folder: of the run, as `classify` and `train.run` leave it.
        name: short and unique.
        title: for display.
        group: one of `arms.GROUPS`.
        probabilities: whether to read the sampling probabilities of each plan.
        **more: `primary`, `score`, `favour` and `ratio`, as `Arm` takes them.
    """
    folder = pathlib.Path(folder)
    if not (folder / "results.json").exists():
        return None
    results = json.loads((folder / "results.json").read_text("utf-8"))
    curves = json.loads((folder / "curves.json").read_text("utf-8"))
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
        diagnostics=_diagnostics(folder),
        refreshes=[
            (step, drawn["probs"])
            for step, drawn in (read_draws(folder) if probabilities else ())
        ],
        **{"primary": False, **more},
    )


def read_draws(
    folder: str | os.PathLike[str],
) -> list[tuple[int, Mapping[str, np.ndarray]]]:
    """Read the scores and probabilities behind each plan: (update, arrays), in order.

    The arrays are those of the first seed: `uncertainty`, `probs` and `rows` of the
    data, each [m].
    """
    files = pathlib.Path(folder).glob("train/refreshes/*.npz")
    found = []
    for file in sorted(files, key=lambda file: int(file.stem)):
        with np.load(file) as saved:
            found.append((int(file.stem), dict(saved)))
    return found


def _diagnostics(folder: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    lines = [
        line
        for line in logs.read_metrics(folder / "train" / "metrics.jsonl")
        if line["split"] == "curriculum"
    ]
    steps = np.array([line["step"] for line in lines])
    return {
        name: (steps, np.array([line[name] for line in lines]))
        for name in DIAGNOSTICS
        if lines and name in lines[0]
    }
