"""The stages of a run: `STAGES` is the only place that lists them by name.

A run has some of them, in an order that `check` allows:

    pretrain   multimodal CASS, CASS or DINO, without labels
    probe      quality of the pretrained features, with pictures
    finetune   supervised training, from the pretrained arms or from scratch
    evaluate   the best checkpoint on every split
  or, on stored features, in place of everything before evaluate
    graph      a network on the memes' graphs
    heads      a head on features of pictures and captions, all seeds at once
  or, on small pictures, for all seeds at once
    classify   a classifier under a curriculum

Each is one file: it loads its data, chooses its devices, makes a `Stage` for the loop,
and returns an `Ended` for the next one. A new stage takes one file and one line here.

    kind.py      an entry of the table
    context.py   inputs and outputs of a stage
    parts/       from sections of a config to models, optimizers, views, plans
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import parallel
from memejax.errors import UserError
from memejax.stage import Stage
from memejax.stages import (
    classify,
    evaluate,
    finetune,
    graph,
    heads,
    leaves,
    pretrain,
    probe,
)
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
        "Probe",
        "",
        probe.run,
        section="probe",
        after=("pretrain",),
        first=False,
        check=probe.check,
        own=("probe",),
        folders=("probe-*",),
    ),
    "finetune": Kind(
        "Fine-tuning",
        "fine-tuned",
        finetune.run,
        section="finetune",
        after=("pretrain", "probe"),
        make=finetune.make,
        check=finetune.check,
        own=("finetune", "curriculum"),
        folders=(finetune.NAME, finetune.BASELINE),
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
        check=graph.check,
        updates=graph.updates,
        alone=True,
        about=graph.about,
    ),
    "heads": Kind(
        "Training of a head",
        "trained",
        heads.run,
        section="heads",
        load=heads.load,
        devices=heads.devices,
        check=heads.check,
        own=("heads",),
        updates=heads.updates,
        alone=True,
        about=heads.about,
        prepare=classify.prepare,
    ),
    "evaluate": Kind(
        "Evaluation",
        "",
        evaluate.run,
        after=("finetune", "graph", "heads"),
        first=False,
    ),
    "classify": Kind(
        "Training under a curriculum",
        "trained",
        classify.run,
        section="train",
        load=classify.load,
        devices=classify.devices,
        make=classify.make,
        check=classify.check,
        updates=classify.updates,
        together=True,
        alone=True,
        prepare=classify.prepare,
    ),
}


def check_config(config: ConfigDict) -> None:
    """Check the stages of a config, their sections, and the value of every leaf.

    Raises:
        UserError: naming what is wrong and what is expected.
        parallel.ProcessError: if a stage needs a single process and there are several.
    """
    check_order(config.stages)
    check_sections(config)
    leaves.check(config)


def check_order(stages: Sequence[str]) -> None:
    """Check that a run can have these stages.

    Raises:
        UserError: if there are none, one is unknown, or the order is not allowed.
        parallel.ProcessError: if a stage needs a single process and there are several.
    """
    stages = tuple(stages)
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise UserError(f"got stages={stages}, expected some of {tuple(STAGES)}")
    for i, name in enumerate(stages):
        kind = STAGES[name]
        if (not kind.first) if i == 0 else (stages[i - 1] not in kind.after):
            places = ["first"] if kind.first else []
            places += [f"after {other}" for other in kind.after]
            raise UserError(
                f"got stages={stages}: {name} may come {' or '.join(places)}"
            )
        if kind.alone and parallel.count() > 1:
            raise parallel.ProcessError(
                f"stages={stages} run in one process; there are {parallel.count()}"
            )


def check_sections(config: ConfigDict) -> None:
    """Raise UserError if a config names a stage and lacks its section."""
    for name in config.stages:
        section = STAGES[name].section
        if section and section not in config:
            hint = ""
            if STAGES[name].after:
                # The option `then` adds the stages that follow pretraining.
                hint = f": --config=FILE.py:{config.preset},then={name}"
            raise UserError(
                f"the stage {name} needs the section {section}, which this config "
                f"lacks{hint}"
            )


def prepare(config: ConfigDict) -> None:
    """Set up devices for a config's stages, before any device is used."""
    for name in config.stages:
        kind = STAGES.get(name)
        if kind is not None and kind.prepare is not None:
            kind.prepare(config)


def check_runs(
    config: ConfigDict, data: Any, *, mesh: Mesh | None, ahead: bool = False
) -> dict[str, Stage]:
    """Build every stage on the data and the devices, and trace its first step.

    What a config's leaves only say together, or with the data, is found out here,
    in seconds and before anything is trained.

    Args:
        config: of the run.
        data: as loaded by its first stage.
        mesh: the devices.
        ahead: whether to begin to compile the first stage, see `Stage.compile_ahead`.

    Returns:
        The stages that train, by name, of the config's first seed.

    Raises:
        UserError: naming the stage.
    """
    made: dict[str, Stage] = {}
    before = None
    for name in config.stages:
        kind = STAGES[name]
        try:
            if kind.check is not None:
                found = kind.check(config, data, mesh=mesh, before=before)
            elif kind.make is not None:
                found = kind.make(config, data, seed=config.seed, mesh=mesh)
                found.trace()
            else:
                continue
            if found is not None:
                if ahead and not made:
                    found = found.compile_ahead()
                made[name] = before = found
        except UserError:
            raise
        # What flax, jax and numpy raise for sizes that do not fit.
        except (
            ArithmeticError,
            LookupError,
            MemoryError,
            TypeError,
            ValueError,
        ) as error:
            reason = str(error).strip() or type(error).__name__
            raise UserError(f"the stage {name} cannot run so: {reason}") from error
    return made


def unread(stages: Sequence[str], path: pathlib.Path) -> set[str]:
    """Return the sections of a config that no stage begun in a run's folder has read.

    Args:
        stages: of the run.
        path: the run's folder.
    """
    free: set[str] = set()
    for name in stages:
        kind = STAGES[name]
        folders = kind.folders or (name,)
        if not any(next(path.glob(f"*/{folder}"), None) for folder in folders):
            free |= set(kind.own)
    return free
