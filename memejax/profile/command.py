"""Profiles a stage of an experiment, on its data and devices."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from memejax import build, dataset, folder, labelled, logs, parallel
from memejax.profile import files, runner

STAGES = ("pretrain", "finetune", "graph", "classify")


def run(
    config: ConfigDict,
    out: str | os.PathLike[str],
    *,
    stage: str | None = None,
    steps: int = 5,
) -> runner.Profile:
    """Profiles the steps of a stage, and writes traces and tables.

    The stage starts as in a run, from scratch or from the checkpoints that the config
    names; no run's folder is read or written. A curriculum is left out: it decides
    which examples come, and not what a step does with them.

    Args:
      config: of an experiment.
      out: gets `cold/` and `warm/`, which TensorBoard shows, profile.md, .csv and
        .json, and built-in memes in `data/`.
      stage: one of STAGES; the first that the config has of them if None.
      steps: in the traced window.

    Raises:
      ValueError: for a stage that the config does not have, or steps less than 1.
    """
    has = [name for name in STAGES if name in config.stages]
    if stage is None and has:
        stage = has[0]
    if stage not in has:
        raise ValueError(f"got stage {stage!r}, expected one of the config's: {has}")
    if steps < 1:
        raise ValueError(f"got steps={steps}, expected at least 1")
    where = pathlib.Path(out).absolute()
    where.mkdir(parents=True, exist_ok=True)
    config = build.adopt(config)
    made, batch, dtype = _make(config, stage, where)
    logs.say(f"{config.name}, preset {config.preset}: compiles the step of {stage}")
    profile = runner.measure(
        made.run_chunk,
        made.state,
        chunks=_endless(made.feeder),
        folder=where,
        steps=steps,
        dtype=dtype,
    )
    written = files.write(
        profile,
        where,
        title=f"Profile of {config.name}, preset {config.preset}, stage {stage}",
        facts=_about(batch, dtype),
    )
    # The long tables are for the file.
    logs.say(written[0].read_text("utf-8").partition("## By operation")[0])
    logs.say("\n".join(str(file) for file in written))
    logs.say(f"the traces, with the extra [profile]: tensorboard --logdir={where}")
    return profile


def _make(config: ConfigDict, stage: str, where: pathlib.Path) -> tuple[Any, int, str]:
    """The stage, the examples in a batch, and the dtype of its products."""
    dtype = config.model.dtype
    if stage == "classify":
        seeds = range(config.seed, config.seed + config.seeds)
        config = config.copy_and_resolve_references()
        config.curriculum.kind = "uniform"
        data = labelled.load(config, seeds)
        made = build.classifier(config, data, seeds=seeds).stage
        return made, config.train.batch, dtype
    if stage == "graph":
        # On one device, as a run has it.
        data, mesh = build.graph_data(config), parallel.mesh(1)
        made = build.graph(config, data, seed=config.seed, mesh=mesh)
        return made, config.graph.batch, "float32"
    makers = {"pretrain": build.pretrain, "finetune": build.finetune}
    (where / "data").mkdir(exist_ok=True)
    data = dataset.load(config, where / "data")
    made = makers[stage](config, data, seed=config.seed, mesh=build.mesh(config))
    return made, made.feeder.plan.batch, dtype


def _endless(feeder: Any) -> Iterator[tuple[int, Any]]:
    """Its chunks over and over: a demo may have fewer than a profile takes."""
    while True:
        yield from feeder.chunks(0)


def _about(batch: int, dtype: str) -> dict[str, Any]:
    around = folder.environment()
    versions = ("memejax", "jax", "jaxlib", "flax")
    return {
        "batch": batch,
        "dtype": dtype,
        "devices": ", ".join(around["devices"]),
        "cores": around["cores"],
        "versions": ", ".join(
            f"{name} {around['packages'][name]}" for name in versions
        ),
    }
