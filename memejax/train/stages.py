"""The stages of one seed.

Each is resumed from its last checkpoint, and one that ended has an outcome.json and is
not run again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memejax import build, evaluate, folder, logs, parallel, scores
from memejax.loop import loop
from memejax.train.context import Context
from memejax.train.judgement import best_on_splits, on_dev
from memejax.train.results import read

ORDER = ("pretrain", "probe", "finetune", "graph", "evaluate")


def check(stages: Sequence[str]) -> None:
    """Raises where a run cannot have these stages.

    Raises:
      ValueError: if they are unknown, out of order or do not go together.
      parallel.ProcessError: if there are several processes, and the stages are for one.
    """
    stages = tuple(stages)
    if "classify" in stages and len(stages) > 1:
        raise ValueError(f"classify goes alone, got {stages}")
    if stages != ("classify",):
        known = set(stages) <= set(ORDER)
        if not known or list(stages) != sorted(stages, key=ORDER.index):
            raise ValueError(
                f"stages must be some of {ORDER} in this order, got {stages}"
            )
    if "probe" in stages and "pretrain" not in stages:
        raise ValueError("probe looks at what pretrain made: name both in stages")
    if "graph" in stages and not set(stages) <= {"graph", "evaluate"}:
        raise ValueError(f"graph goes with evaluate alone, got {stages}")
    if parallel.count() > 1 and {"classify", "graph"} & set(stages):
        raise parallel.ProcessError(
            f"stages={stages} run in one process; there are {parallel.count()}"
        )


def run_seed(context: Context) -> dict[str, Any]:
    """The stages of one seed, in order; they are such as `check` lets pass."""
    stages = tuple(context.config.stages)
    outcomes, pretrained = {}, None
    if "pretrain" in stages:
        outcomes, pretrained = _pretrain(context, "probe" in stages)
    if "finetune" in stages:
        outcomes |= _finetune(context, pretrained, "evaluate" in stages)
    if "graph" in stages:
        make = functools.partial(context.stage, build.graph)
        outcomes |= _supervised(context, "graph", make, "evaluate" in stages)
    return outcomes


def _pretrain(context: Context, look: bool) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Pretraining with its collapse panel, and what its features are worth.

    Returns:
      The outcomes, and a function that gives the variables it ended with, once.
    """
    where = context.folder / "pretrain"
    looked = context.folder / "probe-pretrain"
    outcome = read(where / "outcome.json")
    seen = read(looked / "outcome.json")
    ended: Callable[[], Any] = functools.partial(_pretrained, context)
    weights = None
    if outcome is None or (look and seen is None):
        stage = context.stage(build.pretrain)
        # The loop gives the first state's memory up: a copy is the untrained network.
        untrained = parallel.fetch(stage.state.weights()) if look else None
        if outcome is None:
            state, outcome = loop(stage, context.config, where, context.signals)
            folder.write_json(where / "outcome.json", outcome)
            # Not the state: its moments, teacher and centre have no more use.
            weights = state.weights()
            del state
        if look:
            logs.say("probe: neighbours, linear probe, maps and pictures")
            weights = ended() if weights is None else weights
            seen = evaluate.probe(
                context.config,
                context.data,
                stage,
                trained=weights,
                untrained=untrained,
                mesh=context.mesh,
                where=looked,
            )
            folder.write_json(looked / "outcome.json", seen)
    if weights is not None:
        # Who takes them holds them alone, and drops them after use.
        ended = [weights].pop
    return {"pretrain": outcome} | ({"probe-pretrain": seen} if look else {}), ended


def _finetune(
    context: Context, pretrained: Callable[[], Any] | None, score: bool
) -> dict[str, Any]:
    """Fine-tuning, and the best checkpoint on every split."""

    def make() -> build.Stage:
        start = pretrained and pretrained()
        return context.stage(build.finetune, start=start, **_curriculum(context, start))

    return _supervised(context, "finetune", make, score)


def _supervised(
    context: Context, name: str, make: Callable[[], build.Stage], score: bool
) -> dict[str, Any]:
    """A stage that the dev split judges, and its best checkpoint on every split."""
    where = context.folder / name
    scored_in = context.folder / "evaluate"
    outcome = read(where / "outcome.json")
    scored = read(scored_in / "outcome.json")
    if outcome is not None and (scored is not None or not score):
        return {name: outcome} | ({"evaluate": scored} if score else {})
    stage = make()
    if outcome is None:
        # Not the last state, which would stay beside the best one.
        outcome = loop(
            stage, context.config, where, context.signals, on_dev(context, stage)
        )[1]
        folder.write_json(where / "outcome.json", outcome)
    if not score:
        return {name: outcome}
    scored = best_on_splits(context, stage, trained=where, where=scored_in)
    folder.write_json(scored_in / "outcome.json", scored)
    return {name: outcome, "evaluate": scored}


def _curriculum(context: Context, start: Any) -> dict[str, Any]:
    """What fine-tuning is to know of its curriculum: section and baseline's scores.

    The baseline that "bac" ranks by is the same fine-tuning in shuffled passes, in the
    folder `baseline`.
    """
    if "curriculum" not in context.config:
        return {}
    section = context.config.curriculum
    if not build.needs_baseline(section):
        return {"curriculum": section}
    train = context.data.splits["train"]
    where = context.folder / "baseline"
    file = where / "uncertainty.npy"
    if parallel.from_first(file.exists()):
        uncertainty = np.load(file)
    else:
        stage = context.stage(build.finetune, start=start)
        state, _ = loop(stage, context.config, where, context.signals)
        feeder = build.scoring_feeder(context.config, train, context.mesh)
        proba = scores.probabilities(stage.predict, state.weights(), feeder)
        uncertainty = scores.uncertainty(section.score, proba, train.labels)
        if parallel.is_first():
            with folder.replacing(file) as opened:
                np.save(opened, uncertainty)
    return {"curriculum": section, "uncertainty": uncertainty}


def _pretrained(context: Context) -> Any:
    """The variables that pretraining ended with, from its last checkpoint."""
    stage = context.stage(build.pretrain)
    stage.give_up()
    return evaluate.restore(
        context.folder / "pretrain", stage, keep=context.config.checkpoint.keep
    )
