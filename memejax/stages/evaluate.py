"""The stage "evaluate": the previous stage's best checkpoint, on every split."""

from __future__ import annotations

from typing import Any

from memejax import logs, metrics, parallel, scoring
from memejax.checkpoint import Checkpoints
from memejax.metrics import AVERAGE
from memejax.stage import BEST
from memejax.stages.context import Context, Ended

NAME = "evaluate"


def run(context: Context, before: Ended | None) -> Ended:
    """Score every split, unless already done.

    The outcome has `stage`, the name of the previous stage; `checkpoint`, the step of
    its best checkpoint; `splits`, the reports of the arms on every labelled split. The
    predictions for all splits are written to the folder.
    """
    if before is None:
        raise ValueError("evaluate needs a training stage before it in config.stages")
    outcome = context.outcome(NAME)
    if outcome is None:
        outcome = _evaluate(context, before)
        context.finish(NAME, outcome)
    return Ended(before.name, {NAME: outcome}, before.stage, before.weights)


def _evaluate(context: Context, before: Ended) -> dict[str, Any]:
    stage, data = before.stage(), context.data
    checkpoints = context.folder / before.name / "checkpoints"
    # Not the best of those that are whole, which may be another one.
    best = before.outcomes[before.name]["best_step"]
    with Checkpoints(checkpoints, keep=context.options.keep, best=BEST) as saves:
        saved = saves.restore(stage.abstract, step=best)
    # Free the rest of the state on the devices.
    step, variables = saved.step, saved.state.weights()
    del saved
    proba, scored = {}, [name for name in data.splits if name != "train"]
    logs.say(f"{NAME}: scoring {', '.join(scored)} by the checkpoint of update {step}")
    for name in scored:
        split = data.splits[name]
        proba[name] = scoring.probabilities(
            stage.predict, variables, stage.scoring(split)
        )
        if parallel.is_first():
            _write(context, split, proba[name])
    dev = data.splits[data.dev]
    if stage.explain is not None and context.seed == context.config.seed:
        pictures = stage.explain(variables, proba[data.dev][AVERAGE])
        for file, png in pictures.items():
            (context.folder / NAME / file).write_bytes(png)
    thresholds = {
        arm: metrics.best_threshold(values, dev.labels)
        for arm, values in proba[data.dev].items()
    }
    return {
        "stage": before.name,
        "checkpoint": step,
        "splits": {
            name: metrics.reports_by_arm(
                values,
                data.splits[name].labels,
                thresholds=thresholds,
                seed=context.seed,
            )
            for name, values in proba.items()
            if data.splits[name].labelled
        },
    }


def _write(context: Context, split: Any, proba: dict[str, Any]) -> None:
    """Write a split's predictions, one file per arm."""
    folder = context.folder / NAME / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    for arm, values in proba.items():
        suffix = "" if arm == AVERAGE else f".{arm}"
        path = folder / f"{split.name}{suffix}.csv"
        metrics.write_predictions(path, split.ids, proba=values)
