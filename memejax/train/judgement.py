"""How a stage is judged: while it runs on the dev split, in the end on every split."""

from __future__ import annotations

import pathlib
from typing import Any

from memejax import build, dataset, feeders, metrics, parallel, scores
from memejax.checkpoint import Checkpoints
from memejax.loop import BEST, Evaluation, Measured
from memejax.report import graph_pictures
from memejax.train.context import Context


def _scoring_feeder(context: Context, split: dataset.Split) -> feeders.Feeder:
    """One pass over a split in order, as the stage's `predict` takes it."""
    graph = "graph" in context.config.stages
    make = build.graph_feeder if graph else build.scoring_feeder
    return make(context.config, split, context.mesh)


def on_dev(context: Context, stage: build.Stage) -> Evaluation:
    """How a stage is judged: AUROCs of the arms and their average on the dev split."""
    dev = context.data.splits[context.data.dev]
    dev_feeder = _scoring_feeder(context, dev)

    def measure(state) -> Measured:
        proba = scores.probabilities(stage.predict, state.weights(), dev_feeder)
        values = {
            f"{BEST}/{arm}": metrics.auroc(p, dev.labels) for arm, p in proba.items()
        }
        return Measured(
            values,
            rating=values[f"{BEST}/{scores.AVERAGE}"],
            histograms={f"scores/{arm}": p for arm, p in proba.items()},
        )

    return Evaluation(measure, dev.name)


def best_on_splits(
    context: Context, stage: build.Stage, *, trained: pathlib.Path, where: pathlib.Path
) -> dict[str, Any]:
    """The best checkpoint: predictions of every split, figures of labelled ones.

    The stage's own state is given up.

    Args:
      context: of the stage.
      stage: whose checkpoint.
      trained: its folder.
      where: folder of the predictions.

    Returns:
      JSON: `checkpoint`, its step; `splits`, a labelled split the reports of its arms.
    """
    config, data = context.config, context.data
    with Checkpoints(
        trained / "checkpoints", keep=config.checkpoint.keep, best=BEST
    ) as saves:
        stage.give_up()
        saved = saves.restore(stage.state, step=saves.best)
    # No more than is used stays on the devices.
    step, variables = saved.step, saved.state.weights()
    del saved
    proba = {}
    for name, split in data.splits.items():
        if name == "train":
            continue
        feeder = _scoring_feeder(context, split)
        proba[name] = scores.probabilities(stage.predict, variables, feeder)
        if not parallel.is_first():
            continue
        (where / "predictions").mkdir(parents=True, exist_ok=True)
        for arm, values in proba[name].items():
            suffix = "" if arm == scores.AVERAGE else f".{arm}"
            metrics.write_predictions(
                where / "predictions" / f"{name}{suffix}.csv",
                split.ids,
                proba=values,
            )
    if "graph" in config.stages and context.seed == config.seed:
        drawn = graph_pictures.draw(
            config, variables, proba=proba[data.dev][scores.AVERAGE]
        )
        if drawn is not None:
            (where / graph_pictures.FILE).write_bytes(drawn)
    dev = data.splits[data.dev]
    thresholds = {
        arm: metrics.best_threshold(values, dev.labels)
        for arm, values in proba[data.dev].items()
    }
    return {
        "checkpoint": step,
        "splits": {
            name: scores.reports(
                values,
                data.splits[name].labels,
                thresholds=thresholds,
                seed=context.seed,
            )
            for name, values in proba.items()
            if data.splits[name].labelled
        },
    }
