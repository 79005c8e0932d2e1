"""The stages of a run: `STAGES` is the only place that knows them by name.

A run has some of them, in an order that `check` allows:

    pretrain   multimodal CASS, CASS or DINO; no labels
    probe      what the pretrained features are worth, with pictures
    finetune   the labels, from the pretrained arms or from scratch
    evaluate   the best checkpoint on every split
  or, of stored features, in place of all before evaluate
    graph      a network on the memes' graphs
  or, of small pictures, all seeds at once
    classify   a classifier under a curriculum

Each is a file: it loads its data, chooses its devices, makes a `Stage` for the loop,
and returns an `Ended` to the next one. A further stage is one file and one line here.

    kind.py      what an entry of the table is
    context.py   what a stage is run with, and what it hands on
    parts/       from sections of a config to models, optimizers, views, plans
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from memejax import parallel
from memejax.stages import classify, evaluate, finetune, graph, pretrain, probe
from memejax.stages.context import Context as Context
from memejax.stages.context import Ended as Ended
from memejax.stages.kind import Kind as Kind
from memejax.stages.parts import training

_STREAMED: dict[str, Any] = dict(load=training.load, devices=training.devices)
STAGES: dict[str, Kind] = {
    "pretrain": Kind(
        "Pretraining",
        "pretrained",
        pretrain.run,
        section="pretrain",
        make=pretrain.make,
        updates=pretrain.updates,
        **_STREAMED,
    ),
    "probe": Kind(
        "Probe", "", probe.run, section="probe", after=("pretrain",), first=False
    ),
    "finetune": Kind(
        "Fine-tuning",
        "fine-tuned",
        finetune.run,
        section="finetune",
        after=("pretrain", "probe"),
        make=finetune.make,
        updates=finetune.updates,
        **_STREAMED,
    ),
    "graph": Kind(
        "Training on graphs",
        "trained",
        graph.run,
        section="graph",
        load=graph.load,
        devices=graph.devices,
        make=graph.make,
        updates=graph.updates,
        alone=True,
        about=graph.about,
    ),
    "evaluate": Kind(
        "Evaluation", "", evaluate.run, after=("finetune", "graph"), first=False
    ),
    "classify": Kind(
        "Training under a curriculum",
        "trained",
        classify.run,
        section="train",
        load=classify.load,
        devices=classify.devices,
        make=classify.make,
        updates=classify.updates,
        together=True,
        alone=True,
        prepare=classify.prepare,
    ),
}


def check(stages: Sequence[str]) -> None:
    """Raise where a run cannot have these stages.

    Raises:
        ValueError: if they are none, unknown, or in an order that they do not allow.
        parallel.ProcessError: if there are several processes, and a stage is for one.
    """
    stages = tuple(stages)
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise ValueError(f"got stages={stages}, expected some of {tuple(STAGES)}")
    for i, name in enumerate(stages):
        kind = STAGES[name]
        if (not kind.first) if i == 0 else (stages[i - 1] not in kind.after):
            places = ["first"] if kind.first else []
            places += [f"after {other}" for other in kind.after]
            raise ValueError(
                f"got stages={stages}: {name} may stand {' or '.join(places)}"
            )
        if kind.alone and parallel.count() > 1:
            raise parallel.ProcessError(
                f"stages={stages} run in one process; there are {parallel.count()}"
            )


def check_sections(config: ConfigDict) -> None:
    """Raise ValueError where a config names a stage and lacks its section."""
    for name in config.stages:
        section = STAGES[name].section
        if section and section not in config:
            hint = ""
            if STAGES[name].after:
                # What follows pretraining is switched on.
                hint = f": --config=FILE.py:{config.preset},then={name}"
            raise ValueError(
                f"the stage {name} needs the section {section}, which this config "
                f"lacks{hint}"
            )


def prepare(config: ConfigDict) -> None:
    """Set up devices as a config's stages need them, before any is used."""
    for name in config.stages:
        kind = STAGES.get(name)
        if kind is not None and kind.prepare is not None:
            kind.prepare(config)
