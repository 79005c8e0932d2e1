"""Profiles a stage of an experiment, on its data and devices."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from memejax import folder, logs
from memejax.profile import files, runner
from memejax.stage import Stage
from memejax.stages import STAGES
from memejax.stages.parts.pretrained import adopt


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
        stage: one of the config's that trains; the first if None.
        steps: in the traced window.

    Raises:
        ValueError: for a stage that the config does not have, or steps less than 1.
    """
    has = [name for name in config.stages if STAGES[name].make is not None]
    if stage is None and has:
        stage = has[0]
    if stage is None or stage not in has:
        raise ValueError(f"got stage {stage!r}, expected one of the config's: {has}")
    if steps < 1:
        raise ValueError(f"got steps={steps}, expected at least 1")
    where = pathlib.Path(out).absolute()
    where.mkdir(parents=True, exist_ok=True)
    config = adopt(config)
    made, dtype = _make(config, stage, where), config.model.dtype
    logs.say(f"{config.name}, preset {config.preset}: compiles the step of {stage}")
    profile = runner.measure(
        made.run_chunk,
        made.init(),
        chunks=_endless(made.feeder),
        folder=where,
        steps=steps,
        dtype=dtype,
    )
    written = files.write(
        profile,
        where,
        title=f"Profile of {config.name}, preset {config.preset}, stage {stage}",
        facts=_about(made.feeder.plan.batch, dtype),
    )
    # The long tables are for the file.
    logs.say(written[0].read_text("utf-8").partition("## By operation")[0])
    logs.say("\n".join(str(file) for file in written))
    logs.say(f"the traces, with the extra [profile]: tensorboard --logdir={where}")
    return profile


def _make(config: ConfigDict, name: str, where: pathlib.Path) -> Stage:
    """Make a stage on its data and devices, as the first of a run."""
    kind = STAGES[name]
    if kind.make is None:
        raise ValueError(f"the stage {name} trains nothing")
    (where / "data").mkdir(exist_ok=True)
    data, mesh = kind.load(config, where / "data"), kind.devices(config)
    return kind.make(config, data, seed=config.seed, mesh=mesh)


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
