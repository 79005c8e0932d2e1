"""The stage "evaluate": the previous stage's best checkpoints, on every split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memejax import labels, logs, metrics, parallel, scoring
from memejax.checkpoint import Checkpoints
from memejax.metrics import AVERAGE
from memejax.stage import BEST, Stage
from memejax.stages.context import Context, Ended

NAME = "evaluate"


def run(context: Context, before: Ended | None) -> Ended:
    """Score every split, unless already done.

    Each of several arms is scored by its own best checkpoint, and their average by the
    average's.

    The outcome has `stage`, the name of the previous stage; `checkpoint`, the step of
    its best checkpoint; `checkpoints`, that of each arm; `splits`, the reports of the
    arms on every labelled split. The predictions for all splits, and the labels of
    memes, are written to the folder.
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
    trained = before.outcomes[before.name]
    # Not the best of those that are whole, which may be another one.
    best, bests = trained["best_step"], trained.get("best_steps", {})
    scored = [name for name in data.splits if name != "train"]
    proba: dict[str, dict[str, Any]] = {name: {} for name in scored}
    steps: dict[str, int] = {}
    for step in sorted({best, *bests.values()}):
        logs.say(
            f"{NAME}: scoring {', '.join(scored)} by the checkpoint of update {step}"
        )
        variables = _weights(context, before.name, stage, step)
        for name in scored:
            found = scoring.probabilities(
                stage.predict, variables, stage.scoring(data.splits[name])
            )
            # In their order, whatever the order of their checkpoints.
            kept = {a: p for a, p in found.items() if _own(a, best, bests) == step}
            steps |= {arm: step for arm in kept}
            both = proba[name] | kept
            proba[name] = {arm: both[arm] for arm in found if arm in both}
        if step == best and stage.explain is not None:
            _explain(context, stage.explain, variables, proba[data.dev][AVERAGE])
        # Free the devices for the next.
        del variables
    if parallel.is_first():
        for name, values in proba.items():
            _write(context, data.splits[name], values)
            labels.write(context.folder / NAME, data.splits[name])
    return {
        "stage": before.name,
        "checkpoint": best,
        "checkpoints": steps,
        "splits": _reports(context, proba),
    }


def _own(arm: str, best: int, bests: Mapping[str, int]) -> int:
    """Step of an arm's best checkpoint; of the average, and of a single arm, `best`."""
    return bests.get(f"{BEST}/{arm}", best)


def _weights(context: Context, name: str, stage: Stage, step: int) -> Any:
    """Return the variables of a checkpoint, without the rest of the state."""
    folder = context.folder / name / "checkpoints"
    with Checkpoints(folder, keep=context.options.keep, best=[BEST]) as saves:
        return saves.restore(stage.abstract, step=step).state.weights()


def _explain(context: Context, explain, variables: Any, proba: Any) -> None:
    """Write the pictures that explain the first seed's network."""
    if context.seed == context.config.seed:
        folder = context.folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        for file, png in explain(variables, proba).items():
            (folder / file).write_bytes(png)


def _reports(context: Context, proba: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reports of the arms on every labelled split."""
    data = context.data
    dev = data.splits[data.dev]
    thresholds = {
        arm: metrics.best_threshold(values, dev.labels)
        for arm, values in proba[data.dev].items()
    }
    return {
        name: metrics.reports_by_arm(
            values,
            data.splits[name].labels,
            thresholds=thresholds,
            seed=context.seed,
        )
        for name, values in proba.items()
        if data.splits[name].labelled
    }


def _write(context: Context, split: Any, proba: dict[str, Any]) -> None:
    """Write a split's predictions, one file per arm."""
    folder = context.folder / NAME / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    for arm, values in proba.items():
        suffix = "" if arm == AVERAGE else f".{arm}"
        path = folder / f"{split.name}{suffix}.csv"
        metrics.write_predictions(path, split.ids, proba=values)
